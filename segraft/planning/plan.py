"""The plan: facts of data and machine, the rules' choices, and the params file that carries them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segraft.checkpoint import ModelCard, build_network, load_weights, read_card
from segraft.data.packed import DatasetCard, PackedDataset
from segraft.device import setup
from segraft.errors import UserError
from segraft.params import Params, Section, Training, build
from segraft.planning.distance import domain_distance
from segraft.planning.facts import Facts, measure
from segraft.planning.machine import NoStore, Probe, Trial, bare, best_batch, try_batches
from segraft.planning.rate import Range, range_test
from segraft.planning.rules import DATA, LEAST_BATCH, MACHINE, RATE, Choice, decide
from segraft.training.adapters import add_lora
from segraft.training.batchnorm import norms
from segraft.training.distributed import World
from segraft.training.transfer import graft, links

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Plan:
    """What was measured, and what was chosen."""

    facts: Facts
    choices: tuple[Choice, ...]
    batches: tuple[Trial, ...]
    lr_range: Range
    device: str
    threads: int

    def as_json(self) -> dict[str, Any]:
        """All of it with plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Inputs:
    """The data to plan for, and the model to start from."""

    params: Params
    source: PackedDataset
    target: PackedDataset
    manifest: pd.DataFrame
    """of the target"""
    pretrained: Path


def plan(inputs: Inputs, minutes: float | None) -> Plan:
    """Measure, then choose, in three rounds: by the data, with what the machine can do, and by a range test of rates.

    Args:
        inputs: data, model and the params that are kept where no rule applies.
        minutes: of training on this machine; None: as many pixels as the settings of finetune see now.

    Raises:
        UserError: there is nothing to train on, or the model is not the one that the params name.
    """
    params, target = inputs.params, inputs.target
    device = setup(params.finetune.threads)
    network, card = starting_network(inputs)
    network.to(device)
    facts = replace(_data_facts(inputs, network, card), lr_before=params.finetune.lr)
    choices = decide(DATA, facts)
    crop = next(choice.value for choice in choices if choice.knob == "augment.crop")
    seen = _pixels(params.finetune, target)
    target.card = target.card.model_copy(update={"crop": tuple(crop)})

    def make(training: Training, steps: int) -> Probe:
        torch.manual_seed(training.seed)
        model, _ = starting_network(inputs)
        if training.lora_rank:
            add_lora(model.get_submodule("encoder"), training.lora_rank)
        return Probe(model.to(device), card, target, bare(training, steps), device, NoStore(), World(device))

    trials = try_batches(make, chosen(params, choices).finetune, facts.images, device)
    facts = replace(facts, crop=tuple(crop), fastest=max(trial.images_per_second for trial in trials))
    if minutes is None:
        facts = batch_of_pixels(facts, trials, seen, params.finetune.batch_size)
    else:
        facts = batch_of_minutes(facts, trials, minutes)
    choices = decide((*DATA, *MACHINE), facts)
    found = range_test(make, chosen(params, choices).finetune)
    facts = replace(facts, lr=found.chosen, lr_why=found.why)
    choices += decide(RATE, facts)
    return Plan(facts, tuple(choices), tuple(trials), found, device.type, torch.get_num_threads())


def batch_of_minutes(facts: Facts, trials: Sequence[Trial], minutes: float) -> Facts:
    """The facts with the best batch, and what it can do in that time."""
    best = best_batch(trials, LEAST_BATCH)
    return _with_batch(facts, best, round(60 * minutes * best.images_per_second * math.prod(facts.crop)))


def batch_of_pixels(facts: Facts, trials: Sequence[Trial], pixels: int, now: int) -> Facts:
    """The facts with the best batch, or with `now`'s if the better one would leave fewer steps than the data wants.

    Args:
        facts: with the crop.
        trials: of batch sizes, rising.
        pixels: that training may see.
        now: batch size of the params.
    """
    best, most = best_batch(trials, LEAST_BATCH), max(LEAST_BATCH, now)
    found = _with_batch(facts, best, pixels)
    if best.batch <= most or not found.short:
        return found
    smaller = [trial for trial in trials if trial.batch <= most]
    return replace(_with_batch(facts, smaller[-1], pixels), capped=True)


def _with_batch(facts: Facts, trial: Trial, pixels: int) -> Facts:
    steps = pixels // (math.prod(facts.crop) * trial.batch)
    speed = trial.images_per_second
    return replace(facts, compute=pixels, batch=trial.batch, images_per_second=speed, steps=steps)


def starting_network(inputs: Inputs) -> tuple[nn.Module, ModelCard]:
    """The network as finetune starts with it, and a card for it in the target's classes.

    Raises:
        UserError: the pretrained model is another network than the params say.
    """
    model, dataset, parent = inputs.params.model, inputs.target.card, read_card(inputs.pretrained)
    if (parent.arch, parent.encoder) != (model.arch, model.encoder):
        raise UserError(
            f"{inputs.pretrained}: is {parent.arch} on {parent.encoder}, and params.yaml says {model.arch} on "
            f"{model.encoder}; run the pretrain step again, or change the section model"
        )
    state = load_weights(inputs.pretrained, parent)
    network = build_network(model.arch, model.encoder, len(dataset.classes), parent.norm, parent.channels, state)
    graft(network, state, links(parent, dataset))
    return network, _card(parent, dataset)


def _card(parent: ModelCard, dataset: DatasetCard) -> ModelCard:
    return parent.model_copy(update={"taxonomy": dataset.taxonomy, "classes": dataset.classes})


def _data_facts(inputs: Inputs, network: nn.Module, card: ModelCard) -> Facts:
    trained = read_card(inputs.pretrained).provenance.get("steps") != 0
    source, target = inputs.source.split("train"), inputs.target.split("train")
    distance = None
    if trained and min(len(source), len(target)) > 1:
        encoder = network.get_submodule("encoder")
        distance = domain_distance(encoder, card, source, target, inputs.params.finetune.seed)
    return measure(inputs.target, inputs.manifest, len(source) if trained else 0, distance, norms=bool(norms(network)))


def _pixels(training: Training, dataset: PackedDataset) -> int:
    """Pixels that a training sees: steps × batch × crop."""
    steps = training.steps_per_epoch or math.ceil(len(dataset.split("train")) / training.batch_size)
    return training.epochs * steps * training.batch_size * math.prod(dataset.card.crop)


def chosen(params: Params, choices: Sequence[Choice]) -> Params:
    """The params with the choices in place, checked as a whole."""
    values = params.model_dump(mode="json", by_alias=True)
    for choice in choices:
        *parents, key = choice.knob.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        node[key] = choice.value
    built: Params = build(Params, values, "")
    return built


def changes(params: Section, choices: Sequence[Choice]) -> list[Choice]:
    """The choices that are another value than the params have."""
    values = params.model_dump(mode="json", by_alias=True)

    def before(knob: str) -> Any:
        node: Any = values
        for part in knob.split("."):
            node = node[part]
        return node

    return [choice for choice in choices if before(choice.knob) != choice.value]
