"""Every knob, typed: one frozen class a section of params.yaml, most of them the section of one step.

The classes hold types, bounds and meanings; params.yaml alone holds values, so no field has a default.
"""

from __future__ import annotations

import json
import reprlib
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segraft.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]
"""RGB"""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[AtLeastOne, AtLeastOne], Field(description="height, width in pixels")]
MAX_PIXELS = 89_478_485
"""Of any image: Pillow's threshold for a decompression bomb, 256 MiB of RGB."""

Split = Literal["train", "val", "test"]
Condition = Literal["clear", "dusk", "night", "rain", "fog", "snow", "night-rain"]
InitName = Literal["library", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "orthogonal"]
LossName = Literal["cross_entropy", "ohem", "focal", "dice", "tversky", "lovasz", "boundary"]
RungName = Literal[
    "scratch",
    "scratch_total",
    "encoder",
    "encoder_total",
    "source",
    "probe",
    "frozen",
    "gradual",
    "full",
    "mixed",
    "distilled",
    "self_train",
    "finetune",
]
RuntimeName = Literal[
    "torch", "torch-compiled", "onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-bf16", "openvino-int8"
]
FormatName = Literal[
    "cityscapes",
    "acdc",
    "bdd100k",
    "camvid",
    "camvid32",
    "voc",
    "ade20k",
    "cocostuff",
    "pets",
    "folder",
    "joint",
    "none",
]


class Section(BaseModel):
    """A frozen group of knobs; an unknown or missing key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Folder(Section):
    """Where `format: folder` finds its files, relative to the dataset's path; `{split}` stands for train, val, test."""

    images: str = Field(description="glob of the images, for example images/{split}/*.jpg")
    masks: str = Field(description="path of an image's mask: {split}, {dir}, {stem}, {name}; masks/{split}/{stem}.png")
    split_files: str | None = Field(description="text files with one image stem a line, for example splits/{split}.txt")
    group: str | None = Field(description="regular expression: what it captures in a name is the video; null: {dir}")
    encoding: Literal["ids", "trainIds", "colors"] = Field(description="what a mask's pixels hold; see the taxonomy")


class Dataset(Section):
    """One labelled dataset."""

    path: str = Field(description="folder of the dataset; dvc.yaml hands it to the steps")
    format: FormatName = Field(description="the layout on disk; joint: several (see sets); none: no dataset")
    taxonomy: str = Field(description="name of a file in data/taxonomies: the classes of these masks")
    include: tuple[str, ...] = Field(description="globs on sample ids; a sample is kept if one matches")
    holdout: Fraction = Field(
        description="share of each sequence, its end, that becomes val (0: as given); without a test, val becomes it"
    )
    limit: AtLeastOne | None = Field(description="label budget: keep this many train images, evenly spaced")
    folder: Folder = Field(description="only read with format: folder")


class JointSet(Dataset):
    """One of several source datasets."""

    path: str = Field(pattern=r"^[\w.-]*\w[\w.-]*$", description="its folder, directly below the source's path")
    share: Positive = Field(description="how often training draws from it, next to the others' shares")


class Source(Dataset):
    """The source: one dataset, or several that are trained on together."""

    sets: tuple[JointSet, ...] = Field(description="with `format: joint`, the datasets in the folder; else empty")

    @model_validator(mode="after")
    def _sets_are_of_a_joint_source(self) -> Source:
        if (self.format == "joint") != bool(self.sets):
            raise ValueError(f"sets: {len(self.sets)} with format {self.format}: joint needs some, no other has any")
        if twice := sorted(path for path, times in Counter(one.path for one in self.sets).items() if times > 1):
            raise ValueError(f"sets: path given twice: {', '.join(twice)}")
        if odd := [f"{one.path}: format {one.format}" for one in self.sets if one.format in ("joint", "none")]:
            raise ValueError(f"sets: {', '.join(odd)}: must be a dataset")
        return self

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Every dataset of it by its folder below the path; that of a source that is no joint one is empty."""
        return {one.path: one for one in self.sets} or {"": self}


class Data(Section):
    """The two sides. The model learns the classes of the target's taxonomy."""

    source: Source
    target: Dataset

    @model_validator(mode="after")
    def _target_is_one_dataset(self) -> Data:
        if self.target.format == "joint":
            raise ValueError("target: format joint: only the source may be several datasets")
        if self.target.format == "none":
            raise ValueError("target: format none: there is no pipeline without a target; give the layout of its files")
        return self


class StreetSet(Section):
    """One generated set: how many images a split, and under which conditions."""

    train: Count
    val: Count
    test: Count
    conditions: tuple[Condition, ...] = Field(min_length=1)


class Streets(Section):
    """The embedded procedural street scenes."""

    seed: Count
    size: Size
    source: StreetSet
    target: StreetSet


class Validate(Section):
    """What counts as an error and what as a warning in the data."""

    min_size: AtLeastOne = Field(description="smallest side of an image, pixels")
    max_pixels: Annotated[int, Field(ge=1, le=MAX_PIXELS)] = Field(
        description="largest image, pixels; read from the header, before decoding; cut larger ones into tiles"
    )
    min_samples: AtLeastOne = Field(description="fewest images a split may have")
    rare_images: Count = Field(description="warn about a class that fewer train images than this show")
    max_void: Fraction = Field(description="warn about a mask of which more than this share is ignored")
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = Field(
        description="images of two splits whose 64-bit perceptual hashes differ in at most so many bits are near twins"
    )
    drift: Positive = Field(description="warn when an image statistic of source and target differs by more deviations")
    strict: bool = Field(description="treat warnings as errors")
    workers: Count = Field(description="processes that read files (0: one a core)")


class Simulate(Section):
    """Offline: extra copies of source images under another condition (share of the train split for each)."""

    night: Fraction
    rain: Fraction
    fog: Fraction


class CopyPaste(Section):
    """Offline: rare objects of some target images pasted into others (Ghiasi et al. 2021)."""

    copies: Count = Field(description="extra images for each train image of the target")
    classes: tuple[str, ...] = Field(description="class names to paste; empty: the rarest third")


class Online(Section):
    """Random changes made to each crop while training; image and mask move together."""

    flip: Fraction = Field(description="probability of a left-right flip")
    rotate: NonNegative = Field(description="largest rotation, degrees, both ways")
    scale: tuple[Positive, Positive] = Field(description="range of the zoom")
    color: Fraction = Field(description="strength of brightness, contrast, saturation and hue changes")
    noise: NonNegative = Field(description="largest standard deviation of sensor noise, of 255")
    blur: Fraction = Field(description="probability of a slight blur")
    rare_crop: Fraction = Field(description="probability that a crop is centred on a pixel of a rare class")

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Online:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {list(self.scale)}: the smallest must not be above the largest")
        return self


class Augment(Section):
    """How the packed training set is made and what training does to it."""

    seed: Count
    size: Size | None = Field(description="resize images to this offline; null: as they are")
    crop: Size = Field(description="what one training sample is cut to; a multiple of 32")
    codec: Literal["raw", "jpeg"] = Field(description="raw: fastest; jpeg (images) and png (masks): 10x smaller")
    shard_mb: AtLeastOne = Field(description="size of one shard file, MiB")
    source_classes: Literal["target", "own"] = Field(
        description="what pretraining learns: the target's classes, or the source's own, which finetune then grafts"
    )
    source_samples: Count = Field(description="source images packed with the target, for finetune.source_share")
    unlabelled: str | None = Field(
        min_length=1,
        description="the target's images without masks, for self-training: a glob below its path; rest: the train "
        "images that data.target.limit leaves out; null: none",
    )
    simulate: Simulate
    copy_paste: CopyPaste
    online: Online

    @model_validator(mode="after")
    def _crop_fits_the_encoders(self) -> Augment:
        if any(side < 32 or side % 32 for side in self.crop):
            raise ValueError(f"crop: {list(self.crop)}: both sides must be multiples of 32")
        return self


class Model(Section):
    """Which network."""

    arch: str = Field(description="unet, deeplabv3plus, segformer, swiftnet, …; docs/models.md lists them")
    encoder: str = Field(description="efficientnet_lite0, resnet18, convnext_tiny, dinov2_small, …; see docs/models.md")
    weights: str = Field(
        description="imagenet, random, a model folder, a registered model (models:/NAME@ALIAS), or the path or URL of "
        "a checkpoint of torchvision, timm, smp, MMSegmentation or Darknet"
    )
    init: InitName = Field(description="how weights that are not loaded are drawn; library: as each library does")
    zero_last_norm: bool = Field(
        description="residual blocks start as their shortcut: their last BatchNorm's scale is 0"
    )


class Distill(Section):
    """A teacher's answers as further labels."""

    teacher: str | None = Field(description="a model folder; pretrained: the one that finetune starts from; null: none")
    kind: Literal["logit", "channel", "feature"] = Field(
        description="logit: Hinton et al. 2015; channel: Shu et al. 2021; feature: similarities, Liu et al. 2019"
    )
    weight: Positive = Field(description="of the distillation loss, beside the labels'")
    temperature: Positive = Field(description="of the softmax over classes (logit) or places (channel)")


class SelfTrain(Section):
    """Learning from the target's unlabelled images, with the averaged model as teacher (DACS, MIC)."""

    weight: NonNegative = Field(description="of the unlabelled images' loss (0: no self-training)")
    start: AtLeastOne = Field(description="epochs with labels alone before it begins; a pretrained model needs one")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="the loss weighs as much as the share of pixels of which the teacher is this sure"
    )
    mix: Fraction = Field(description="probability that half of a labelled image's classes is pasted in (ClassMix)")
    mask: Annotated[float, Field(ge=0, lt=1)] = Field(description="share of the patches hidden from the student (MIC)")
    patch: AtLeastOne = Field(description="side of such a patch, pixels")
    tolerance: Fraction = Field(description="validation mIoU, 0 to 1, that may be lost before self-training is stopped")


class Training(Section):
    """One training run; an epoch is a number of steps, so budgets do not depend on the dataset's size."""

    seed: Count
    epochs: Count = Field(description="0: no training")
    steps_per_epoch: Count = Field(description="0: one pass over the train images")
    batch_size: AtLeastOne
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive = Field(description="peak learning rate")
    encoder_lr: NonNegative = Field(description="the encoder's learning rate as a multiple of lr")
    momentum: Fraction = Field(description="of SGD, which is Nesterov's if this is above 0")
    weight_decay: NonNegative
    schedule: Literal["constant", "step", "exponential", "cosine", "poly", "one_cycle"]
    decay: Fraction = Field(description="η·decay^t: factor an epoch (exponential) or each decay_every epochs (step)")
    decay_every: AtLeastOne = Field(description="epochs between two drops of the step schedule")
    power: Positive = Field(description="of the poly schedule: (1 - t)^power")
    warmup: Literal["none", "linear", "constant"]
    warmup_steps: Count
    clip_norm: NonNegative = Field(description="largest gradient norm (0: no clipping)")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(description="decay of the averaged weights (0: none)")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        description="each stage of the encoder learns by this factor slower than the one after it"
    )
    freeze: Literal["none", "encoder", "body", "gradual"] = Field(
        description="body: all but the classifier, a linear probe; frozen layers keep their BatchNorm statistics too"
    )
    thaw: Fraction = Field(description="gradual thaws the encoder, last stage first, over this share of the run")
    batch_norm: Literal["train", "frozen", "reestimate", "group"] = Field(
        description="frozen: statistics stay; reestimate: they are taken anew on the train images, then stay; "
        "group: GroupNorm in its place"
    )
    l2_sp: NonNegative = Field(description="pull back to the pretrained weights, in place of their weight decay")
    lora_rank: Count = Field(description="learn the encoder's linear layers by updates of this rank alone (0: no)")
    loss: dict[LossName, Positive] = Field(min_length=1, description="losses to add up, with their weights")
    class_weights: Literal["none", "inverse", "inverse_sqrt", "median_frequency", "effective_number"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(description="of cross_entropy and ohem")
    ohem_keep: Annotated[float, Field(gt=0, le=1)] = Field(description="share of the pixels, the hardest, that count")
    focal_gamma: NonNegative
    tversky: tuple[Positive, Positive] = Field(description="weights of false and of missed pixels")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto: bf16 where it is faster: GPUs that have it, CPUs with AMX"
    )
    patience: Count = Field(description="stop after this many epochs without a better validation mIoU (0: never)")
    checkpoint_every: Count = Field(description="steps between two checkpoints (0: only at the end of an epoch)")
    threads: Count = Field(description="CPU threads of torch (0: all the process may use)")

    source_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of each batch that comes from the source samples packed with the target"
    )
    distill: Distill
    self_train: SelfTrain

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.schedule == "one_cycle" and self.warmup != "none":
            raise ValueError("schedule: one_cycle has a rise of its own; say warmup: none")
        if self.lora_rank and self.freeze != "none":
            raise ValueError("lora_rank: keeps the encoder's own weights frozen; say freeze: none")
        if self.self_train.weight and not self.ema:
            raise ValueError("self_train: its teacher is the averaged model; give ema a value above 0, such as 0.99")
        if list(self.loss) == ["boundary"]:
            raise ValueError("loss: boundary does not see which side of an edge a class is on; add another loss")
        return self


class Pretrain(Training):
    """Training on the source."""


class Finetune(Training):
    """Training on the target, from the pretrained model."""


class Scratch(Section):
    """The baseline: the target alone, from random weights, with the settings of finetune but these."""

    budget: Literal["finetune", "total"] = Field(description="as many steps as finetune, or as pretrain and finetune")
    lr: Positive


class Crf(Section):
    """The fully connected CRF (Krähenbühl & Koltun 2011) on top of the network's answer."""

    iterations: Count = Field(description="of mean-field inference (0: no CRF; DeepLab: 10)")
    smooth: NonNegative = Field(description="weight of the kernel over position")
    smooth_std: Positive = Field(description="its width, pixels")
    appearance: NonNegative = Field(description="weight of the kernel over position and colour")
    position_std: Positive = Field(description="its width, pixels")
    color_std: Positive = Field(description="its width in colour, of 255")


class Evaluate(Section):
    """Scoring on the target's test split."""

    batch_size: AtLeastOne
    examples: AtLeastOne = Field(description="how many best and how many worst images the report shows")
    threads: Count
    window: Size | None = Field(description="see larger images in overlapping windows of this size; null: whole")
    crf: Crf
    adapt_batch_norm: bool = Field(
        description="take BatchNorm's statistics anew on the images that are scored, without their labels"
    )


class Export(Section):
    """Runtimes that serve the model: which to try, and how far from PyTorch they may be."""

    runtimes: tuple[RuntimeName, ...] = Field(description="to make and measure; eager torch always takes part")
    images: AtLeastOne = Field(description="validation images that speed and parity are measured on")
    calibration_images: AtLeastOne = Field(description="train images that the ranges of INT8 come from")
    max_miou_loss: NonNegative = Field(description="mIoU points that a runtime may lose against PyTorch in fp32")
    min_agreement: Fraction = Field(description="share of the pixels that must get the class that PyTorch gives them")
    threads: Count


class Tracking(Section):
    """Where MLflow keeps runs."""

    uri: str = Field(description="empty: MLFLOW_TRACKING_URI, else the local mlflow.db; a URL: that server")
    experiment: str
    required: bool = Field(description="fail when the server does not answer, rather than go on without it")
    timeout: Positive = Field(description="seconds before a call to the server is given up")


class Register(Section):
    """Where the model is registered and when it becomes champion."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    min_gain: NonNegative = Field(description="mIoU points by which the champion must be beaten on the same test set")


class Resources(Section):
    """What a step's pod asks for, and may not exceed."""

    cpu: str = Field(pattern=r"^\d+(\.\d+)?m?$", description="cores, for example 4 or 500m")
    memory: str = Field(pattern=r"^\d+(\.\d+)?[KMGT]i?$", description="for example 16Gi")


class Gpu(Section):
    """The accelerators of the steps that use one."""

    type: str = Field(description="the resource's name in Kubernetes: nvidia.com/gpu, amd.com/gpu")
    count: Count = Field(description="0: none")


class Toleration(Section):
    """A taint of nodes that pods may be put on all the same."""

    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Volume(Section):
    """A PersistentVolumeClaim that every step mounts."""

    claim: str
    path: str = Field(pattern="^/")


class Secret(Section):
    """A key of a Secret, as an environment variable: passwords are named here, never written."""

    name: str
    key: str
    env: str = Field(pattern="^[A-Z_][A-Z0-9_]*$")


class Nodes(Section):
    """Training on many nodes, as a Kubeflow TrainJob whose nodes each have `heavy` and `gpu`."""

    count: Count = Field(description="of pretrain, finetune and scratch (0: each in its own pod); needs cluster.store")
    runtime: str = Field(description="a TrainingRuntime; it mounts the volume of cluster.store at the same path")
    strategy: Literal["ddp", "fsdp"] = Field(
        description="ddp: each process has all weights; fsdp: each keeps a part, for networks that do not fit"
    )


class Cluster(Section):
    """How Kubeflow runs the steps; the same steps run on one machine without any of it."""

    image: str = Field(description="the image of every step; pin it as name@sha256:…, for a tag may move")
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    repo: str = Field(description="git repository that `fetch` brings the datasets from with DVC; empty: none")
    rev: str = Field(description="its branch, tag or commit; empty: the default branch")
    store: str = Field(description="folder on a volume where datasets stay, rather than travel; empty: they travel")
    pack_parts: AtLeastOne = Field(description="tasks that pack the source side by side, each a part of every split")
    light: Resources = Field(description="of the steps that neither train nor score")
    heavy: Resources = Field(description="of pretrain, finetune, scratch and evaluate")
    gpu: Gpu = Field(description="of those four, too")
    nodes: Nodes
    shm: str = Field(pattern=r"^\d+[KMGT]i$", description="size of their /dev/shm, which DataLoader workers fill")
    node_selector: dict[str, str] = Field(description="labels of the nodes for those four")
    tolerations: tuple[Toleration, ...] = Field(description="of those four")
    volumes: tuple[Volume, ...]
    secrets: tuple[Secret, ...]
    timeout: Count = Field(description="seconds after which a step is stopped (0: never)")
    retries: Count = Field(
        description="of what a lost pod or server may fail: training, fetch, pretrained, register, deploy"
    )

    @model_validator(mode="after")
    def _nodes_share_a_store(self) -> Cluster:
        if self.nodes.count and not self.store:
            raise ValueError(f"nodes: {self.nodes.count} nodes see one dataset only in a store: set cluster.store")
        return self


class Sweep(Section):
    """Fine-tuning under several settings; the best on val is evaluated and registered."""

    settings: tuple[tuple[str, ...], ...] = Field(
        min_length=1, description="each a list of KEY=VALUE that changes the section finetune"
    )
    parallel: AtLeastOne = Field(description="how many at once; one machine runs at most two")


class Ladder(Section):
    """What the source is worth: one compute budget, several ways to spend it, several label budgets."""

    seeds: tuple[Count, ...] = Field(min_length=1, description="each draws its own label subsets and trains anew")
    labels: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        min_length=1, description="shares of the train images"
    )
    rungs: tuple[RungName, ...] = Field(min_length=1, description="docs/ladder.md says what each is")


class ServeLimits(Section):
    """What a client may ask of the server; whatever is beyond is refused with a 4xx before it costs anything."""

    body_mb: AtLeastOne = Field(description="MiB of a request, checked before it is read")
    message_mb: AtLeastOne = Field(description="MiB of a gRPC request, which is whole before anyone can refuse it")
    json_mb: AtLeastOne = Field(description="MiB of its JSON, which takes many times its size when parsed")
    pixels: AtLeastOne = Field(description="pixels of a request, read from the headers before decoding")
    sides: tuple[AtLeastOne, AtLeastOne] = Field(description="smallest and largest height or width")
    images: AtLeastOne = Field(description="images of a request")
    formats: tuple[Literal["JPEG", "PNG", "WEBP"], ...] = Field(min_length=1)
    decode: Positive = Field(description="seconds that decoding may take")
    header: Positive = Field(description="seconds until a request's headers are there")
    body: Positive = Field(description="seconds until its body is there; and that a client may stop reading its answer")
    answer_mb: AtLeastOne = Field(description="MiB of an answer, estimated before it is made")

    @model_validator(mode="after")
    def _sides_are_a_range(self) -> ServeLimits:
        if self.sides[0] > self.sides[1]:
            raise ValueError(f"sides: {list(self.sides)}: the smallest must not be more than the largest")
        return self


class ServeTile(Section):
    """Overlap tiling of images that are too large to go through the network whole; sides in pixels."""

    whole: AtLeastOne = Field(description="pixels up to which an image is not tiled, and which a batch may have")
    size: AtLeastOne = Field(multiple_of=32)
    overlap: AtLeastOne = Field(multiple_of=32, description="of neighbours; seams are blended in its middle half")

    @model_validator(mode="after")
    def _overlap_fits(self) -> ServeTile:
        if 2 * self.overlap > self.size:
            raise ValueError(f"overlap: {self.overlap}: must be at most half of size, {self.size}")
        return self


class ServeMonitor(Section):
    """What the server remembers of its requests, in bounded memory."""

    confidence_every: Count = Field(description="the mean confidence of each n-th image is measured (0: of none)")
    window: AtLeastOne = Field(description="latest images that drift is measured on")
    keep: Count = Field(description="how many of the hardest images are set aside for labelling (0: none)")
    keep_folder: str = Field(description="where they are set aside")

    @model_validator(mode="after")
    def _hardest_are_known(self) -> ServeMonitor:
        if self.keep and not self.confidence_every:
            raise ValueError("keep: the hardest images are chosen by their confidence; give confidence_every 1 or more")
        return self


class Serve(Section):
    """The KServe endpoint. A flag -S serve.key=value or SEGRAFT_SERVE_KEY (a dot is __) of the environment wins."""

    host: str = Field(description="address to listen at; 0.0.0.0 in a container")
    http_port: Annotated[int, Field(ge=0, le=65535)]
    grpc_port: Annotated[int, Field(ge=0, le=65535, description="0: no gRPC")]
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="the model's name in URLs")
    runtime: str = Field(description="auto: the one that export measured as the best, else torch")
    threads: Count
    max_batch: AtLeastOne = Field(description="images that go through the network at once")
    batch_wait: NonNegative = Field(description="seconds that a batch waits for images that are being decoded")
    queue: AtLeastOne = Field(description="requests that are being answered or wait; more get 503 and Retry-After")
    timeout: Positive = Field(description="seconds for a request; a client may ask for less")
    drain: NonNegative = Field(description="seconds between saying 'not ready' and closing the door after SIGTERM")
    grace: Positive = Field(description="seconds that accepted requests then have to finish")
    limits: ServeLimits
    tile: ServeTile
    monitor: ServeMonitor

    @model_validator(mode="after")
    def _ports_differ(self) -> Serve:
        if self.grpc_port and self.grpc_port == self.http_port:
            raise ValueError(f"grpc_port: {self.grpc_port}: is http_port, too; give two ports, or 0 for no gRPC")
        return self


class Deploy(Section):
    """A registered model's endpoint on a cluster: `segraft deploy`, and what a pipeline does behind the gate."""

    pipeline: Literal["alias", "endpoint"] = Field(
        description="what a pipeline's task deploy does: move the alias `deployed`, or roll the endpoint out first"
    )
    endpoint: str = Field(description="folder of the InferenceService: k8s/endpoint/cpu, gpu, local, or your own")
    runtime: str = Field(description="overlay whose ServingRuntime is sent along: k8s/overlays/cpu; empty: it is there")
    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    image: str = Field(description="the server's, pinned as name@sha256:…; empty: the ServingRuntime's")
    artifacts: str = Field(
        description="where pods find what the tracking server hands through: its --artifacts-destination"
    )
    canary: Annotated[int, Field(ge=0, le=100)] | None = Field(
        description="per cent of the requests for the new version, with Knative; null: as `endpoint` says, which is all"
    )
    replicas: tuple[Count, AtLeastOne] | None = Field(description="fewest and most pods; null: as `endpoint` says")
    target: AtLeastOne | None = Field(description="requests at one pod that scaling aims at; null: as `endpoint` says")
    timeout: Positive = Field(description="seconds until the endpoint must be ready")

    @model_validator(mode="after")
    def _replicas_are_a_range(self) -> Deploy:
        if self.replicas is not None and self.replicas[0] > self.replicas[1]:
            raise ValueError(f"replicas: {list(self.replicas)}: the fewest must not be more than the most")
        return self


class Choice(Section):
    """A knob that is one of some values."""

    choices: tuple[str | bool | int | float, ...] = Field(min_length=2)


class Range(Section):
    """A knob between two values, both of them included."""

    low: float
    high: float
    log: bool = Field(description="search evenly in the logarithm")
    integer: bool

    @model_validator(mode="after")
    def _is_one(self) -> Range:
        if not (self.low < self.high and (self.low > 0 or not self.log)):
            raise ValueError(f"[{self.low}, {self.high}]: low must be below high, and above 0 with log")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"[{self.low}, {self.high}]: low and high must be whole with integer")
        return self


class Tune(Section):
    """The search for finetune's knobs: `segraft tune` here, a Katib Experiment on a cluster."""

    seed: Count
    trials: AtLeastOne = Field(description="how many trainings in all, those of earlier calls included")
    startup: Count = Field(description="trials that are drawn at random, and that none is pruned before")
    parallel: AtLeastOne = Field(description="trials at once on a cluster; here it is one after the other")
    space: dict[str, Choice | Range] = Field(min_length=1, description="key of finetune → where to look")


class Params(Section):
    """params.yaml, whole."""

    data: Data
    streets: Streets
    validate_: Validate = Field(alias="validate")
    augment: Augment
    model: Model
    pretrain: Pretrain
    finetune: Finetune
    scratch: Scratch
    evaluate: Evaluate
    export: Export
    register_: Register = Field(alias="register")
    tracking: Tracking
    cluster: Cluster
    sweep: Sweep
    tune: Tune
    ladder: Ladder
    serve: Serve
    deploy: Deploy

    def section(self, name: str) -> Section:
        """The section called `name` in params.yaml."""
        section = getattr(self, name if name in type(self).model_fields else f"{name}_")
        assert isinstance(section, Section)
        return section


SECTIONS: dict[str, type[Section]] = {
    (field.alias or name): field.annotation  # type: ignore[misc]
    for name, field in Params.model_fields.items()
}


def read_yaml(path: Path) -> Any:
    """A YAML file's content; a missing or broken file is a UserError that names it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" in {Path.cwd()}; run this in the project's root, or give its path"
        raise UserError(f"{path}: no such file{where}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; give a file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return _parse_yaml(text, str(path))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's loader would take the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else "")
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError: 2026-02-30, which is no date
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON document's content; a broken one is a UserError that says where it was."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}; make it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file is missing or is none.
    """
    try:
        content = parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`, which makes it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {type(content).__name__}")
    return content


FOUND = reprlib.Repr()
"""Shows what was found in few words: it may be a stranger's, megabytes long or nested deeper than `repr` can go."""
FOUND.maxlevel, FOUND.maxstring, FOUND.maxother = 3, 200, 200


def build(cls: type[Section], values: Any, where: str) -> Any:
    """`values` as a `cls`; every wrong key is named with its dotted path in one UserError."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_complaint(where, detail, cls) for detail in _causes(error.errors())]
        raise UserError("\n".join(lines)) from None


def _causes(details: Sequence[Any]) -> list[Any]:
    """Without the lists that are too short because wrong items were left out of them."""
    inner = {detail["loc"][:-1] for detail in details}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]


def _complaint(where: str, detail: Any, cls: type[Section]) -> str:
    name = ".".join(str(part) for part in (where, *detail["loc"]) if part != "")
    if detail["type"] == "extra_forbidden":
        known = _known_keys(cls, detail["loc"][:-1])
        return f"{name}: unknown key" + (f"; known here: {', '.join(known)}" if known else "; remove it")
    if detail["type"] == "missing":
        return f"{name}: missing; give it a value"
    said = detail["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        return f"{name}: {said}"  # of knobs that do not go together, which it names; all of the section would hide it
    return f"{name}: {said} (found {FOUND.repr(detail['input'])})"


def _known_keys(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Of the section at the end of the path, which may lead through lists, mappings and alternatives."""
    for part in path:
        fields = getattr(kind, "model_fields", {})
        field = next((field for name, field in fields.items() if part in (name, field.alias)), None)
        if field is not None:
            kind = field.annotation
            continue
        kinds = [one for one in typing.get_args(kind) if hasattr(one, "model_fields") or typing.get_args(one)]
        # of several, pydantic names the one it means by its class
        kind = next((one for one in kinds if getattr(one, "__name__", "?") in str(part)), kinds[-1] if kinds else None)
    return [field.alias or name for name, field in getattr(kind, "model_fields", {}).items()]


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """params.yaml, with `section.key=value` overrides (values are YAML), checked as a whole."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    params: Params = build(Params, values, "")
    return params


def change(params: Params, section: str, changes: Sequence[str]) -> Params:
    """Params with KEY=VALUE changes to one section, checked as a whole."""
    values = params.model_dump(mode="json", by_alias=True)
    for one in changes:
        _override(values, f"{section}.{one}")
    changed: Params = build(Params, values, "")
    return changed


def _override(values: dict[str, Any], override: str) -> None:
    (*parents, key), value = parse_override(values, override)
    for parent in parents:
        values = values[parent]
    values[key] = value


def parse_override(values: Mapping[str, Any], override: str) -> tuple[list[str], Any]:
    """Keys, outermost first, and value of `section.key=value`; the keys must be in `values`."""
    dotted, found, text = override.partition("=")
    if not found:
        raise UserError(f"-S {override}: expected section.key=value")
    keys, node = dotted.split("."), values
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            raise UserError(f"-S {override}: params.yaml has no {dotted}")
        node = node[key]
    value = _parse_yaml(text, f"-S {override}")
    # YAML takes on and no for truth values, 2026-11-23 for a date and 0123456 for a number; a name may be any of them.
    return keys, text if isinstance(node, str) and isinstance(value, bool | int | float | date) else value


def as_section(name: str, values: Section | Mapping[str, Any] | str) -> Section:
    """Section `name` from a typed section, a mapping (whole numbers may be floats), or a JSON string."""
    if isinstance(values, Section):
        return values
    if isinstance(values, str):
        values = json.loads(values)
    section: Section = build(SECTIONS[name], values, name)
    return section
