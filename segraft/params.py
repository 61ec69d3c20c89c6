"""Every knob, typed: one frozen class a section of params.yaml, most of them the section of one step.

The classes hold types, bounds and meanings; params.yaml alone holds values, so no field has a default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segraft.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[int, int], Field(description="height, width in pixels")]

Split = Literal["train", "val", "test"]
Condition = Literal["clear", "dusk", "night", "rain", "fog", "snow", "night-rain"]
FormatName = Literal[
    "cityscapes", "acdc", "bdd100k", "camvid", "camvid32", "voc", "ade20k", "cocostuff", "pets", "folder", "none"
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
    format: FormatName = Field(description="the layout on disk; none: there is no such dataset")
    taxonomy: str = Field(description="name of a file in data/taxonomies: the classes of these masks")
    include: tuple[str, ...] = Field(description="globs on sample ids; a sample is kept if one matches")
    holdout: Fraction = Field(
        description="share of each sequence, its end, that becomes val (0: as given); without a test, val becomes it"
    )
    limit: AtLeastOne | None = Field(description="label budget: keep this many train images, evenly spaced")
    folder: Folder = Field(description="only read with format: folder")


class Data(Section):
    """The two datasets. The model learns the classes of the target's taxonomy."""

    source: Dataset
    target: Dataset


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
    max_pixels: AtLeastOne = Field(description="largest image, pixels; read from the header, before decoding")
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


class Augment(Section):
    """How the packed training set is made and what training does to it."""

    seed: Count
    size: Size | None = Field(description="resize images to this offline; null: as they are")
    crop: Size = Field(description="what one training sample is cut to; a multiple of 32")
    codec: Literal["raw", "jpeg"] = Field(description="raw: fastest; jpeg (images) and png (masks): 10x smaller")
    shard_mb: AtLeastOne = Field(description="size of one shard file, MiB")
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

    arch: str = Field(description="unet, deeplabv3plus, deeplabv3, fcn")
    encoder: str = Field(description="resnet18 … resnet101, efficientnet_lite0")
    weights: str = Field(description="imagenet, random, or a file of the encoder's weights (.safetensors, .pth)")


class Training(Section):
    """One training run; an epoch is a number of steps, so budgets do not depend on the dataset's size."""

    seed: Count
    epochs: Count = Field(description="0: no training")
    steps_per_epoch: Count = Field(description="0: one pass over the data")
    batch_size: AtLeastOne
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive = Field(description="peak learning rate")
    encoder_lr: NonNegative = Field(description="the encoder's learning rate as a multiple of lr")
    momentum: Fraction = Field(description="of SGD")
    weight_decay: NonNegative
    schedule: Literal["constant", "step", "exponential", "cosine", "poly"]
    decay: Fraction = Field(description="η·decay^t: factor an epoch (exponential) or each decay_every epochs (step)")
    decay_every: AtLeastOne = Field(description="epochs between two drops of the step schedule")
    power: Positive = Field(description="of the poly schedule: (1 - t)^power")
    warmup: Literal["none", "linear", "constant"]
    warmup_steps: Count
    clip_norm: NonNegative = Field(description="largest gradient norm (0: no clipping)")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(description="decay of the averaged weights (0: none)")
    freeze: Literal["none", "encoder"] = Field(description="frozen layers keep their BatchNorm statistics too")
    class_weights: Literal["none", "median_frequency", "inverse_sqrt"]
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto: bf16 where the hardware multiplies it")
    patience: Count = Field(description="stop after this many epochs without a better validation mIoU (0: never)")
    checkpoint_every: Count = Field(description="steps between two checkpoints (0: only at the end of an epoch)")
    threads: Count = Field(description="CPU threads of torch (0: all the process may use)")


class Pretrain(Training):
    """Training on the source."""


class Finetune(Training):
    """Training on the target, from the pretrained model."""


class Scratch(Section):
    """The baseline: the target alone, from random weights, with the settings of finetune but these."""

    budget: Literal["finetune", "total"] = Field(description="as many steps as finetune, or as pretrain and finetune")
    lr: Positive


class Evaluate(Section):
    """Scoring on the target's test split."""

    batch_size: AtLeastOne
    examples: AtLeastOne = Field(description="how many best and how many worst images the report shows")
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
    register_: Register = Field(alias="register")
    tracking: Tracking

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
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def build(cls: type[Section], values: Any, where: str) -> Any:
    """`values` as a `cls`; every wrong key is named with its dotted path in one UserError."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_complaint(where, detail, cls) for detail in error.errors()]
        raise UserError("\n".join(lines)) from None


def _complaint(where: str, detail: Any, cls: type[Section]) -> str:
    name = ".".join(str(part) for part in (where, *detail["loc"]) if part != "")
    if detail["type"] == "extra_forbidden":
        known = _known_keys(cls, detail["loc"][:-1])
        return f"{name}: unknown key; known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{name}: missing; give it a value in params.yaml"
    return f"{name}: {detail['msg'].removeprefix('Value error, ')} (found {detail['input']!r})"


def _known_keys(cls: type[Section], path: Sequence[str | int]) -> list[str]:
    for part in path:
        field = next((f for n, f in cls.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        cls = field.annotation
    return [field.alias or name for name, field in cls.model_fields.items()]


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """params.yaml, with `section.key=value` overrides (values are YAML), checked as a whole."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections, found {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    params: Params = build(Params, values, "")
    return params


def _override(values: dict[str, Any], override: str) -> None:
    dotted, found, text = override.partition("=")
    if not found:
        raise UserError(f"-S {override}: expected section.key=value")
    *parents, key = dotted.split(".")
    for parent in parents:
        values = values.get(parent) if isinstance(values, dict) else None  # type: ignore[assignment]
    if not isinstance(values, dict) or key not in values:
        raise UserError(f"-S {override}: params.yaml has no {dotted}")
    values[key] = yaml.safe_load(text)


def as_section(name: str, values: Section | Mapping[str, Any] | str) -> Section:
    """Section `name` from a typed section, a mapping (whole numbers may be floats), or a JSON string."""
    if isinstance(values, Section):
        return values
    if isinstance(values, str):
        values = json.loads(values)
    section: Section = build(SECTIONS[name], values, name)
    return section
