"""Whole runs with each option: it has its effect, a stop in the middle changes nothing, and the folder stays plain."""

import gc
import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segraft.checkpoint import load_model, load_weights, read_card
from segraft.data.packed import CARD, PackedDataset, ShardWriter
from segraft.errors import UserError
from segraft.evaluation.run import score
from segraft.params import load_params
from segraft.steps import run
from segraft.training import loop
from segraft.training.unused import without_effect
from tests.training.conftest import disc, pack
from tests.training.test_run import MODEL, PARAMS, TRAINING, pretrain

SELF = {"weight": 1.0, "start": 1, "threshold": 0.6, "mix": 0.5, "mask": 0.5, "patch": 16, "tolerance": 1.0}
SEGFORMER = MODEL.model_copy(update={"arch": "segformer", "encoder": "mit_b0"})
OPTIONS = {
    "losses": {"loss": {"ohem": 1.0, "dice": 0.5, "boundary": 0.2}, "class_weights": "effective_number"},
    "gradual": {"freeze": "gradual", "thaw": 0.8, "layer_decay": 0.7, "schedule": "one_cycle", "warmup": "none"},
    "frozen statistics": {"batch_norm": "frozen", "source_share": 0.4},
    "reestimated statistics": {"batch_norm": "reestimate", "loss": {"lovasz": 1.0}},
    "group norm": {"batch_norm": "group", "loss": {"focal": 1.0, "tversky": 1.0}},
    "l2-sp": {"l2_sp": 0.5},
    "teacher": {"distill": {"teacher": "pretrained", "kind": "feature", "weight": 5.0, "temperature": 4.0}},
    "self-training": {"self_train": SELF},
    "lora": {"lora_rank": 2},
}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Discs with the splits `source` and `unlabelled`."""
    return pack(tmp_path_factory.mktemp("rich"), further={"source": (300, 4), "unlabelled": (400, 5)})


@pytest.fixture(scope="module")
def donors(tmp_path_factory, rich):
    """Pretrained folders by the name of their encoder."""
    made = {}
    for model in (MODEL, SEGFORMER):
        folder = tmp_path_factory.mktemp(model.encoder)
        paths = {"dataset": rich, "work": folder / "work", "weights": folder / "model", "log": folder / "log"}
        training = TRAINING.model_copy(update={"epochs": 1})
        run("pretrain", {"model": model, "pretrain": training}, paths)
        made[model.encoder] = folder / "model"
    return made


def finetune(folder: Path, dataset: Path, pretrained: Path, model=MODEL, **changes: object) -> dict[str, float]:
    training = TRAINING.model_dump() | {"epochs": 2} | changes
    paths = {"dataset": dataset, "work": folder / "work", "weights": folder / "model", "log": folder / "log"}
    return run("finetune", {"model": model, "finetune": training}, paths | {"pretrained": pretrained})


def log_of(folder: Path) -> dict:
    return json.loads((folder / "log" / "training.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_a_stopped_run_ends_with_the_same_weights(option, tmp_path, rich, donors, monkeypatch):
    model = SEGFORMER if option == "lora" else MODEL
    finetune(tmp_path / "whole", rich, donors[model.encoder], model, **OPTIONS[option])
    step = loop.Run._step

    def stopping(self, batch):
        step(self, batch)
        if self.progress.step == 7:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loop.Run, "_step", stopping)
        finetune(tmp_path / "stopped", rich, donors[model.encoder], model, **OPTIONS[option])
    gc.collect()  # the stopped run lets go of its folder
    finetune(tmp_path / "stopped", rich, donors[model.encoder], model, **OPTIONS[option])
    assert read_card(tmp_path / "stopped" / "model") == read_card(tmp_path / "whole" / "model")
    network, card = load_model(tmp_path / "whole" / "model")
    assert card.norm == ("group" if option == "group norm" else "batch")
    assert not any("parametrizations" in name for name in network.state_dict())


def test_a_linear_probe_leaves_all_but_the_classifier_as_it_was(tmp_path, rich, donors):
    finetune(tmp_path, rich, donors["resnet18"], freeze="body", epochs=1)
    before, after = (load_weights(folder, read_card(folder)) for folder in (donors["resnet18"], tmp_path / "model"))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"segmentation_head.0.weight", "segmentation_head.0.bias"}
    assert list(log_of(tmp_path)["schedule"]) == ["decoder and head"]


def test_l2_sp_holds_the_weights_where_they_were(tmp_path, rich, donors):
    finetune(tmp_path, rich, donors["resnet18"], l2_sp=1e9, epochs=1, ema=0.0)
    before, after = (load_weights(folder, read_card(folder)) for folder in (donors["resnet18"], tmp_path / "model"))
    weights = [name for name in after if name.endswith("weight")]
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in weights)


def test_a_group_norm_model_is_fine_tuned_as_one(tmp_path, rich, donors):
    finetune(tmp_path / "first", rich, donors["resnet18"], batch_norm="group", epochs=1)
    finetune(tmp_path / "second", rich, tmp_path / "first" / "model", epochs=0)
    cards = [read_card(tmp_path / run / "model") for run in ("first", "second")]
    assert cards[0].weights_sha256 == cards[1].weights_sha256 and cards[1].norm == "group"
    assert {entry["outcome"] for entry in log_of(tmp_path / "second")["graft"]} == {"kept"}


def test_a_teacher_is_named_in_the_model_s_origins_and_changes_it(tmp_path, rich, donors):
    distill = {"teacher": str(donors["resnet18"]), "kind": "logit", "weight": 1.0, "temperature": 2.0}
    finetune(tmp_path / "taught", rich, donors["resnet18"], distill=distill, epochs=1)
    finetune(tmp_path / "alone", rich, donors["resnet18"], epochs=1)
    taught, alone = (read_card(tmp_path / run / "model") for run in ("taught", "alone"))
    assert taught.provenance["teacher"] == read_card(donors["resnet18"]).weights_sha256
    assert "teacher" not in alone.provenance and taught.weights_sha256 != alone.weights_sha256


def test_pretrain_has_no_pretrained_teacher(tmp_path, rich):
    distill = TRAINING.distill.model_copy(update={"teacher": "pretrained"})
    paths = {"dataset": rich, "work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    with pytest.raises(UserError, match=r"distill\.teacher: pretrained: this step starts from no model"):
        run("pretrain", {"model": MODEL, "pretrain": TRAINING.model_copy(update={"distill": distill})}, paths)


def test_self_training_that_does_harm_is_stopped_and_undone(tmp_path, rich, donors, capsys, monkeypatch):
    scores = iter([0.8, 0.5, 0.7, 0.6])
    monkeypatch.setattr(loop.Run, "_validate", lambda self: next(scores))
    counted = []
    further = loop.Run._further_loss
    monkeypatch.setattr(
        loop.Run, "_further_loss", lambda self, *args: counted.append(further(self, *args) is not None) or None
    )
    finetune(tmp_path, rich, donors["resnet18"], self_train=SELF | {"tolerance": 0.0}, epochs=4)
    assert "self-training is stopped: val mIoU fell from 0.8000 to 0.5000" in capsys.readouterr().out
    assert counted == [False] * 5 + [True] * 5 + [False] * 10
    assert log_of(tmp_path)["best_epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"loss": {"dice": 1.0}, "label_smoothing": 0.1}, ["class_weights: inverse_sqrt:", "label_smoothing: 0.1:"]),
        ({"loss": {"focal": 1.0}, "label_smoothing": 0.1}, ["label_smoothing: 0.1:"]),
        ({"batch_norm": "frozen", "l2_sp": 0.1}, []),
        ({"self_train": SELF, "ema": 0.9}, ["self_train: begins after 1 epochs, and this run has 0"]),
        ({"freeze": "encoder", "layer_decay": 0.5}, ["layer_decay: 0.5: freeze: encoder keeps"]),
        ({"freeze": "gradual", "thaw": 0}, ["freeze: gradual: thaw: 0"]),
        (
            {"epochs": 1, "steps_per_epoch": 2, "warmup": "linear", "warmup_steps": 2, "schedule": "poly"},
            ["schedule: poly: warm-up takes 2 steps, this run has 2"],
        ),
        ({"epochs": 1, "steps_per_epoch": 2, "warmup": "linear", "warmup_steps": 1, "schedule": "poly"}, []),
        (
            {
                "epochs": 1,
                "steps_per_epoch": 2,
                "warmup": "linear",
                "warmup_steps": 1,
                "freeze": "gradual",
                "thaw": 0.5,
            },
            ["thaw: 0.5: what thaws last has 1 steps left"],
        ),
        (
            {
                "freeze": "body",
                "distill": {"teacher": "pretrained", "kind": "feature", "weight": 1.0, "temperature": 1.0},
            },
            ["distill: kind: feature is about the encoder, which freeze: body keeps"],
        ),
        ({"encoder_lr": 0.0, "layer_decay": 0.5}, ["layer_decay: 0.5: encoder_lr: 0 keeps"]),
        ({"freeze": "encoder", "l2_sp": 0.1}, []),
        ({"freeze": "body", "l2_sp": 0.1}, []),
        ({"batch_norm": "group"}, []),
    ],
)
def test_a_knob_without_effect_is_named(changes, lines, tmp_path, rich, donors, capsys):
    finetune(tmp_path, rich, donors["resnet18"], **{"epochs": 0} | changes)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("without effect: ")]
    assert len(said) == len(lines)
    assert all(line.startswith(f"without effect: {start}") for start, line in zip(lines, said, strict=True))


def test_statistics_without_batch_norm_and_a_pull_without_a_graft_are_named(tmp_path, rich, donors, capsys):
    finetune(tmp_path / "first", rich, donors["resnet18"], batch_norm="group", epochs=0)
    finetune(tmp_path / "second", rich, tmp_path / "first" / "model", batch_norm="reestimate", epochs=0)
    assert "without effect: batch_norm: reestimate: the network has no BatchNorm" in capsys.readouterr().out
    pretrain(tmp_path / "third", rich, l2_sp=0.1, epochs=0)
    assert "without effect: l2_sp: 0.1: nothing came from a pretrained model" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"freeze": "encoder"}, {"freeze": "body"}, {"encoder_lr": 0.0}])
def test_a_pull_on_an_encoder_that_stays_is_named(changes, donors):
    network, _ = load_model(donors["resnet18"])
    kept = [name for name, _ in network.named_parameters() if name.startswith("encoder.")]
    training = TRAINING.model_copy(update={"l2_sp": 0.1})
    assert without_effect(training, network, kept, 99, True) == []
    [line] = without_effect(training.model_copy(update=changes), network, kept, 99, True)
    assert line.startswith("without effect: l2_sp: 0.1: ")
    assert line.endswith(" keeps all that came from the pretrained model")


def test_group_norm_without_batch_norm_is_named():
    group = TRAINING.model_copy(update={"batch_norm": "group"})
    [line] = without_effect(group, nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4)), [], 99, True)
    assert line.startswith("without effect: batch_norm: group: the network has no BatchNorm")


def test_a_teacher_of_one_class_has_no_classes_to_compare(tmp_path, donors, capsys):
    dataset = pack(tmp_path / "data", names=("floor", "sky"), kin={"discs": (("ground", "floor"),)}, taxonomy="toys")
    for kind in ("logit", "channel"):
        distill = {"teacher": "pretrained", "kind": kind, "weight": 1.0, "temperature": 1.0}
        finetune(tmp_path / kind, dataset, donors["resnet18"], epochs=0, distill=distill)
        named = "without effect: distill: kind: logit compares classes" in capsys.readouterr().out
        assert named == (kind == "logit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_share": 0.5}, r"source_share: .* has no source samples; set augment\.source_samples"),
        ({"self_train": SELF}, r"no unlabelled images; name some in augment\.unlabelled"),
        ({"lora_rank": 4}, "lora_rank: this encoder has no linear layers"),
        (
            {"distill": {"teacher": "/nowhere", "kind": "logit", "weight": 1.0, "temperature": 1.0}},
            "nowhere: not a model",
        ),
    ],
)
def test_what_is_not_there_is_one_clear_error(changes, message, tmp_path, discs, donors):
    with pytest.raises(UserError, match=message):
        finetune(tmp_path, discs, donors["resnet18"], **changes)


def test_a_source_model_of_other_classes_is_scored_and_grafted_through_the_map(tmp_path, donors):
    """The donor's disc is split into two classes, its ground goes by another name, and one class is new."""
    kin = {"discs": (("ground", "floor"), ("disc", "ball"), ("disc", "plate"))}
    dataset = pack(tmp_path / "data", names=("floor", "ball", "plate", "sky"), kin=kin, taxonomy="toys")
    as_it_is = score(donors["resnet18"], dataset, "test", 4, 1)
    itself = score(donors["resnet18"], pack(tmp_path / "same"), "test", 4, 1)
    assert [c.name for c in as_it_is.card.classes] == ["floor", "ball", "plate", "sky"]
    assert (as_it_is.matrix[:2, :2] == itself.matrix).all()
    finetune(tmp_path / "run", dataset, donors["resnet18"], epochs=0)
    head = [e for e in log_of(tmp_path / "run")["graft"] if e["tensor"].startswith("segmentation_head")]
    assert {(e["outcome"], e["why"]) for e in head} == {("transplanted", "1 copied, 2 split, 1 new")}


def test_an_epoch_of_mixed_batches_shows_every_labelled_image(tmp_path, rich, donors):
    mixed = {"source_share": 0.5, "steps_per_epoch": 0, "epochs": 1, "batch_size": 4}
    train = len(PackedDataset(rich).split("train"))
    assert finetune(tmp_path, rich, donors["resnet18"], **mixed)["steps"] == math.ceil(train / 2)


def test_batch_norm_is_adapted_to_what_is_scored_when_evaluate_says_so(rich, donors):
    adapted = PARAMS.evaluate.model_copy(update={"adapt_batch_norm": True})
    plain, other = (score(donors["resnet18"], rich, "test", 2, 1, how) for how in (PARAMS.evaluate, adapted))
    assert (plain.matrix != other.matrix).any() and plain.matrix.sum() == other.matrix.sum()


def test_scratch_takes_nothing_from_the_source_or_a_teacher(tmp_path, discs):
    """Settings that need what it has not would fail; it must ignore them."""
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    finetune = TRAINING.model_copy(
        update={
            "epochs": 0,
            "source_share": 0.5,
            "self_train": TRAINING.self_train.model_copy(update={"weight": 1.0}),
            "distill": TRAINING.distill.model_copy(update={"teacher": "pretrained"}),
            "lora_rank": 4,
        }
    )
    paths = {"dataset": discs, "work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    sections = {"model": MODEL, "pretrain": params.pretrain, "finetune": finetune, "scratch": params.scratch}
    run("scratch", sections, paths)
    assert read_card(tmp_path / "model").provenance["step"] == "scratch"


def test_a_gradient_that_is_no_number_is_never_saved_as_the_best(tmp_path, rich, donors, monkeypatch):
    """In the last step of an epoch the loss alone would not show it."""
    clip = nn.utils.clip_grad_norm_

    def spoil(parameters, most):
        parameters = list(parameters)
        next(p for p in parameters if p.grad is not None).grad.fill_(torch.inf)
        return clip(parameters, most)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(UserError, match="the loss is nan near step"):
        finetune(tmp_path, rich, donors["resnet18"], epochs=1, steps_per_epoch=1, clip_norm=1.0)
    assert not (tmp_path / "model").exists()


def test_val_without_a_single_label_is_no_val(tmp_path, donors, capsys):
    """Its score would be no number: then nothing is the best, and all of it is patience's."""
    packed = pack(tmp_path / "void", val=0, further={"unlabelled": (400, 5)})
    writer = ShardWriter(packed, "val", 2, "raw", 1)
    writer.add(replace(disc(100), mask=np.full_like(disc(100).mask, 255)))
    card = json.loads((packed / CARD).read_text())
    card["splits"]["val"] = writer.close().model_dump()
    (packed / CARD).write_text(json.dumps(card))
    metrics = finetune(tmp_path, packed, donors["resnet18"], epochs=3, patience=1)
    assert "without effect: patience: 1: there are no val labels" in capsys.readouterr().out
    log = log_of(tmp_path)
    assert "miou" not in metrics and log["best_epoch"] == 3 and not log["stopped_early"]
    assert "val_miou" not in (tmp_path / "log" / "history.jsonl").read_text()
    with pytest.raises(UserError, match=r"self_train: .*void has no val labels"):
        finetune(tmp_path / "more", packed, donors["resnet18"], self_train=SELF)
