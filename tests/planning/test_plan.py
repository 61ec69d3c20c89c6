"""The planner on real, tiny data: what it measures, what each rule makes of it, and a plan that trains."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from segraft.checkpoint import read_card, save_model
from segraft.commands import plan_transfer
from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.models import create_model
from segraft.params import load_params
from segraft.planning import plan as planning
from segraft.planning.distance import kid
from segraft.planning.facts import measure, objects
from segraft.planning.machine import Probe, Trial, best_batch, try_batches
from segraft.planning.plan import batch_of_minutes, batch_of_pixels
from segraft.planning.rules import DATA, MACHINE, RATE, RULES, decide
from segraft.planning.rules.data import FEW
from segraft.planning.write import commented
from segraft.steps import run
from tests.planning.conftest import PARAMS, PLAIN, Look, manifest, pack
from tests.test_contract import ROOT

NEAR, FAR = (0.1, 0.2), (0.9, 0.2)


@pytest.fixture
def facts(tmp_path):
    """Facts of a packed dataset of a look, with a source at a distance or without one."""

    def of(look=PLAIN, distance=NEAR, norms=True, **known):
        dataset = PackedDataset(pack(tmp_path, look))
        found = measure(dataset, manifest(dataset), 40 if distance else 0, distance, norms)
        return replace(found, **known)

    return of


def choose(rules, facts):
    return {choice.knob.removeprefix("finetune."): choice.value for choice in decide(rules, facts)}


def test_facts_are_those_of_the_pixels(facts):
    found = facts(Look(train=8, blank=6, unlabelled=3, source=2))
    assert (found.images, found.val, found.unlabelled, found.mixed, found.groups) == (8, 2, 3, 2, 1)
    assert found.size == found.native == (72, 100) and found.rare_share == 0.25
    disc_pixels = 2 * 697  # of two whole discs of radius 15, at the most
    assert found.imbalance >= (8 * 71 * 100 - disc_pixels) / disc_pixels


def test_pasted_copies_are_no_labelled_images(facts):
    found = facts(Look(train=8, blank=6, pasted=20))
    assert (found.images, found.rare_share) == (8, 0.25)


def test_objects_are_connected_components_by_class_without_specks():
    mask = np.zeros((40, 60), np.uint8)
    mask[2:12, 3:8], mask[20:30, 40:60], mask[35, 35], mask[:1] = 1, 1, 1, 255
    found = objects([mask], 2)
    assert found.smallest == 125.0  # the median of 50 and 200; class 0 has one of 2149
    assert found.extent == (round(np.percentile([10, 39], 75)), round(np.percentile([12.5, 60], 75)))


@pytest.mark.parametrize(
    ("look", "distance", "knob", "value"),
    [
        (Look(), NEAR, "freeze", "encoder"),
        (Look(), FAR, "freeze", "gradual"),
        (Look(), None, "freeze", "none"),
        (Look(train=11), NEAR, "freeze", "none"),
        (Look(), FAR, "thaw", 0.25),
        (Look(), FAR, "lora_rank", 0),
        (Look(), NEAR, "encoder_lr", 0.1),
        (Look(), FAR, "encoder_lr", 0.5),
        (Look(), FAR, "layer_decay", 0.75),
        (Look(train=101), FAR, "layer_decay", 1.0),
        (Look(), NEAR, "l2_sp", 0.1),
        (Look(), FAR, "l2_sp", 0.0),
        (Look(tiny=True), FAR, "class_weights", "inverse_sqrt"),
        (Look(tiny=True), FAR, "loss", {"cross_entropy": 1.0, "lovasz": 0.5}),
        (Look(), FAR, "loss", {"cross_entropy": 1.0}),
        (Look(blank=5), FAR, "augment.online.rare_crop", 0.5),
    ],
)
def test_each_rule_of_the_data_shows(facts, look, distance, knob, value):
    assert choose(DATA, facts(look, distance, batch=4, steps=500))[knob] == value


def test_a_frozen_encoder_gets_no_rates_by_depth(facts):
    chosen = choose(DATA, facts(Look(train=FEW), NEAR, batch=4, steps=500))
    assert (chosen["freeze"], chosen["layer_decay"]) == ("encoder", 1.0)
    chosen = choose(DATA, facts(Look(train=FEW), FAR, batch=4, steps=500))
    assert (chosen["freeze"], chosen["layer_decay"]) == ("gradual", 0.75)


@pytest.mark.parametrize(("knob", "value"), [("freeze", "none"), ("thaw", None), ("layer_decay", 1.0)])
def test_a_short_budget_keeps_no_layer_waiting(facts, knob, value):
    assert choose(DATA, facts(distance=FAR, batch=4, steps=499)).get(knob) == value


def test_balanced_classes_need_no_weights_and_common_ones_no_crops(facts):
    chosen = choose(DATA, replace(facts(), imbalance=4.9))
    assert chosen["class_weights"] == "none" and "augment.online.rare_crop" not in chosen


@pytest.mark.parametrize(
    ("size", "extent", "now", "crop"),
    [
        ((72, 100), (30, 30), (32, 32), [32, 64]),
        ((300, 700), (220, 20), (32, 32), [288, 448]),
        ((20, 40), (9, 9), (32, 32), [32, 32]),
        ((256, 512), (30, 35), (192, 320), [192, 320]),
        ((64, 100), (9, 9), (192, 320), [64, 96]),
    ],
)
def test_the_crop_holds_typical_objects_stays_within_the_image_and_never_shrinks_for_nothing(
    facts, size, extent, now, crop
):
    assert choose(DATA, replace(facts(), size=size, extent=extent, crop=now))["augment.crop"] == crop


@pytest.mark.parametrize(
    ("known", "knob", "value"),
    [
        ({}, "batch_size", 4),
        ({"distance": 0.1}, "batch_norm", "frozen"),
        ({"distance": 0.1, "batch": 8}, "batch_norm", "train"),
        ({"batch": 2}, "batch_norm", "reestimate"),
        ({}, "batch_norm", "train"),
        ({"batch": 2, "norms": False}, "batch_norm", "train"),
        ({"mixed": 3}, "source_share", 0.25),
        ({"mixed": 3, "steps": 499}, "source_share", 0.0),
        ({"mixed": 3, "images": 101}, "source_share", 0.0),
        ({}, "source_share", 0.0),
        ({"unlabelled": 6}, "self_train.weight", 1.0),
        ({"unlabelled": 5}, "self_train.weight", 0.0),
        ({"unlabelled": 6, "val": 0}, "self_train.weight", 0.0),
        ({"unlabelled": 6, "steps": 1000}, "self_train.weight", 0.0),
        ({"steps": 90}, "steps_per_epoch", 9),
        ({"steps": 90}, "schedule", "poly"),
        ({"steps": 90}, "power", 1.0),
        ({"steps": 90}, "warmup_steps", 9),
        ({"steps": 400}, "ema", 0.99),
        ({"steps": 10**6, "images": 118_000}, "ema", 0.9999),
        ({}, "steps_per_epoch", 50),
        ({}, "schedule", "cosine"),
        ({"images": 1000}, "steps_per_epoch", 500),
        ({}, "epochs", 10),
        ({"steps": 3}, "epochs", 3),
        ({"steps": 59}, "epochs", 8),
        ({"steps": 59}, "steps_per_epoch", 7),
        ({}, "warmup", "linear"),
    ],
)
def test_each_rule_of_the_machine_shows(facts, known, knob, value):
    base = {"batch": 4, "images_per_second": 9.0, "fastest": 10.0, "steps": 10_000}
    assert choose(MACHINE, replace(facts(distance=FAR), **base | known))[knob] == value


def test_the_rate_is_the_found_one_or_the_old_one(facts):
    assert choose(RATE, facts(lr=0.001234, lr_before=0.5)) == {"lr": 0.0012}
    assert choose(RATE, facts(lr=None, lr_before=0.5)) == {"lr": 0.5}


@pytest.mark.parametrize(("found", "chosen"), [(0.003, 0.003), (0.002, 0.002), (0.0009, 0.002), (0.0007, 0.0007)])
def test_a_rate_is_lowered_only_if_it_is_far_too_high(facts, found, chosen):
    assert choose(RATE, facts(lr=found, lr_before=0.002)) == {"lr": chosen}


def test_distance_is_that_of_the_distributions():
    rng = np.random.default_rng(0)
    same, noise = kid(rng.normal(size=(40, 8)), rng.normal(size=(30, 8)), rng)
    far, chance = kid(rng.normal(size=(40, 8)), rng.normal(1.5, 1, (30, 8)), rng)
    assert same < noise and far > 10 * chance > 0


def test_the_smallest_batch_that_is_as_fast_as_any_is_taken():
    trials = [Trial(2, 10.0, 1), Trial(4, 14.0, 1), Trial(8, 15.5, 1), Trial(16, 20.0, 1)]
    assert best_batch(trials, 4).batch == 8 and best_batch(trials[:1], 4).batch == 2


def test_a_batch_of_two_that_does_not_fit_is_one_clear_error():
    def full(training, steps):
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(UserError, match=r"2 crops a batch do not fit the memory of cpu: make augment\.crop smaller"):
        try_batches(full, PARAMS.finetune, 32, torch.device("cpu"))


def test_a_short_budget_of_pixels_keeps_the_batch_that_leaves_it_more_steps(facts):
    trials = [Trial(2, 5.0, 1), Trial(4, 7.0, 1), Trial(8, 10.0, 1), Trial(16, 10.0, 1)]
    known = facts(crop=(64, 64))
    few, many = 100 * 4 * 64 * 64, 600 * 8 * 64 * 64
    found = batch_of_pixels(known, trials, few, 4)
    assert (found.batch, found.steps, found.images_per_second, found.capped) == (4, 100, 7.0, True)
    assert "fewer steps" in next(c.why for c in decide(MACHINE, found) if c.knob == "finetune.batch_size")
    assert [batch_of_pixels(known, trials, few, now).batch for now in (1, 8, 16)] == [4, 8, 8]
    assert batch_of_pixels(known, trials, many, 4).batch == 8  # 600 steps are enough
    in_time = batch_of_minutes(known, trials, 1)
    assert (in_time.batch, in_time.steps, in_time.capped) == (8, 60 * 10 // 8, False)


def arguments(tmp_path, pretrained, look=PLAIN):
    data = PackedDataset(pack(tmp_path, look))
    manifest(data).to_parquet(tmp_path / "target.parquet")
    text = (ROOT / "params.yaml").read_text()
    values = yaml.safe_load(text)
    small = PARAMS.model_dump(mode="json", by_alias=True)
    for section in ("model", "finetune"):
        values[section] = small[section]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return SimpleNamespace(
        params=tmp_path / "params.yaml",
        source=tmp_path,
        target=tmp_path,
        manifest=tmp_path,
        pretrained=pretrained,
        set=[],
        minutes=None,
        plan=tmp_path / "plan.yaml",
    )


def test_a_plan_loads_trains_and_says_why(tmp_path, pretrained, capsys):
    args = arguments(tmp_path, pretrained)
    plan_transfer.main(args)
    planned, text = load_params(args.plan), args.plan.read_text()
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["facts"]["images"] == 6 and [trial["batch"] for trial in record["batches"]] == [2, 4]
    assert len(record["lr_range"]["rates"]) > 10 and planned.augment.crop == (64, 96) == tuple(record["facts"]["crop"])
    area = planned.finetune.batch_size * 64 * 96
    steps = planned.finetune.epochs * planned.finetune.steps_per_epoch
    assert 0 < steps * area <= record["facts"]["compute"] == 2 * 4 * 4 * 64 * 64
    for choice in record["choices"]:
        assert f"{choice['why']} [{choice['source']}]" in text
    assert "the crop changes from [64, 64]" in capsys.readouterr().out
    again = {**vars(args), "plan": tmp_path / "again.yaml"}
    plan_transfer.main(SimpleNamespace(**again))
    other = json.loads((tmp_path / "again.json").read_text())
    assert [other["facts"][k] for k in ("distance", "noise", "extent", "imbalance")] == [
        record["facts"][k] for k in ("distance", "noise", "extent", "imbalance")
    ]
    paths = {"work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    paths |= {"dataset": tmp_path, "pretrained": pretrained}
    metrics = run("finetune", {"model": planned.model, "finetune": planned.finetune}, paths)
    assert metrics["steps"] == steps


def test_the_machine_is_measured_with_the_adapters_that_will_be_trained(tmp_path, pretrained, monkeypatch):
    card = read_card(pretrained).model_copy(update={"arch": "segformer", "encoder": "mit_b0"})
    save_model(tmp_path / "donor", create_model(card.arch, card.encoder, len(card.classes)), card)
    adapted = []

    def probe(model, *others):
        adapted.append(any("parametrizations" in name for name, _ in model.named_parameters()))
        return Probe(model, *others)

    monkeypatch.setattr(planning, "Probe", probe)
    args = arguments(tmp_path, tmp_path / "donor", Look(train=FEW + 1))  # with fewer the plan does without
    args.set = ["model.arch=segformer", "model.encoder=mit_b0", "finetune.lora_rank=2"]
    plan_transfer.main(args)
    assert adapted and all(adapted)


def test_comments_stand_in_the_file_and_nothing_else_changes(facts):
    text = (ROOT / "params.yaml").read_text()
    base = {"batch": 4, "images_per_second": 9.0, "fastest": 10.0, "steps": 10_000, "lr": 0.001}
    choices = decide(RULES, facts(Look(unlabelled=9, source=2), FAR, **base))
    new = commented(text, choices, ["finetune.weight_decay=0.5", "augment.simulate.night=0.125"])
    before, after = yaml.safe_load(text), yaml.safe_load(new)
    assert after["finetune"].pop("weight_decay") == 0.5 and after["augment"]["simulate"].pop("night") == 0.125
    del before["finetune"]["weight_decay"], before["augment"]["simulate"]["night"]
    lines = {choice.knob.rsplit(".", 1)[-1] for choice in choices} | {"weight_decay", "simulate", "self_train"}
    for old, now in zip(text.splitlines(), new.splitlines(), strict=True):
        assert old == now or old.split(":")[0].strip() in lines
    for choice in choices:
        *parents, key = choice.knob.split(".")
        node, old = after, before
        for parent in parents:
            node, old = node[parent], old[parent]
        assert node[key] == choice.value
        old[key] = choice.value
    assert after == before and "# see docs/own-data.md" in new


def test_a_model_of_another_network_is_refused(tmp_path, pretrained):
    args = arguments(tmp_path, pretrained)
    args.params.write_text(
        args.params.read_text().replace("encoder: mobilenet_v3_small", "encoder: mobilenet_v3_large")
    )
    with pytest.raises(
        UserError, match=r"is lraspp on mobilenet_v3_small, and params.yaml says lraspp on mobilenet_v3_large"
    ):
        plan_transfer.main(args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": 0.0}, "above 0"),
        ({"minutes": math.inf}, "--minutes inf: give a number"),
        ({"plan": ROOT / "plan.json"}, r"plan\.json: the measurements go there; name a \.yaml file"),
        ({"pretrained": ROOT / "no"}, "pretrain step"),
        ({"set": ["finetune.lrr=1"]}, "params.yaml has no finetune.lrr"),
    ],
)
def test_bad_arguments_are_named(tmp_path, pretrained, change, message):
    args = SimpleNamespace(**vars(arguments(tmp_path, pretrained)) | change)
    with pytest.raises(UserError, match=message):
        plan_transfer.main(args)


def test_an_unlabelled_target_is_refused(facts):
    with pytest.raises(UserError, match="no labelled train image"):
        facts(Look(train=0))


def test_every_rule_and_its_source_is_explained():
    text = (ROOT / "docs/planner.md").read_text()
    for rule in RULES:
        assert f"`{rule.knob.removeprefix('finetune.')}`" in text and all(
            one in text for one in rule.source.split("; ")
        )
