"""One training run as a step sees it: from folders to folders."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segraft import __version__
from segraft.checkpoint import (
    ModelCard,
    Norm,
    Preprocessing,
    build_network,
    load_model,
    load_weights,
    read_card,
    save_model,
)
from segraft.data.packed import DatasetCard, PackedDataset
from segraft.device import environment, setup
from segraft.errors import UserError
from segraft.models import find_encoder
from segraft.models.init import initialise
from segraft.models.weights import load_weights as load_foreign
from segraft.params import Distill, Model, Training
from segraft.steps import Metrics, write_json
from segraft.training.adapters import add_lora, merge_lora
from segraft.training.checkpoints import decisive
from segraft.training.distributed import World
from segraft.training.loop import Run
from segraft.training.monitor import peak_memory_mb, stop_wish, system_log
from segraft.training.schedules import planned
from segraft.training.sharding import whole
from segraft.training.transfer import FILLED, Graft, graft, links, translated


def train(
    step: str,
    model: Model,
    training: Training,
    dataset: Path,
    pretrained: Path | None,
    work: Path,
    weights: Path,
    log: Path,
) -> Metrics:
    """Train a model and write its folder and its log.

    Args:
        step: the step's name, for the provenance.
        model: which network.
        training: the knobs.
        dataset: packed dataset.
        pretrained: model folder to start from, or None: `model.weights` in the encoder, chance elsewhere.
        work: where checkpoints outlive a kill.
        weights: the model folder to write.
        log: the training log to write; docs/architecture.md describes it.

    Returns:
        miou (best on val), steps, seconds, images_per_second.
    """
    device = setup(training.threads)
    world = World(device)
    torch.manual_seed(training.seed)
    packed = PackedDataset(dataset, cache=work / "shards")
    norm: Norm = "group" if training.batch_norm == "group" else read_card(pretrained).norm if pretrained else "batch"
    network = _network(model, len(packed.card.classes), norm, pretrained)
    origin, report = _initialise(network, model, packed.card, pretrained)
    teacher = teacher_of(training.distill, pretrained, packed.card, device)
    card = _card(step, model, training, packed.card, pretrained, origin, norm)
    if teacher:
        card.provenance["teacher"] = teacher[1].weights_sha256
    if training.lora_rank:
        add_lora(network.get_submodule("encoder"), training.lora_rank)
    store = world.store(work, _fingerprint(card, network))
    log.mkdir(parents=True)
    started = time.time()
    kept = frozenset(entry.tensor for entry in report if entry.outcome in FILLED)
    network, plain = (network, copy.deepcopy(network)) if world.sharded else (network.to(device), network)
    run = Run(network, card, packed, training, device, store, world, kept, teacher)
    with stop_wish() as stop, system_log(log / "system.jsonl"):
        run.fit(stop)
    plain.load_state_dict(whole(run.best or network.state_dict()))
    merge_lora(plain)
    card.provenance.update(steps=run.progress.step, best_epoch=run.progress.best_epoch)
    save_model(weights, plain, card)
    metrics = _metrics(run)
    _write_log(log, run, card, report, metrics, started)
    store.close(finished=True)
    packed.close()
    world.close()
    return metrics


def _network(model: Model, classes: int, norm: Norm, pretrained: Path | None) -> nn.Module:
    """The network that the params name, as narrow as the pretrained one was pruned.

    Raises:
        UserError: the pretrained one was pruned, and is another network.
    """
    parent = read_card(pretrained) if pretrained else None
    if pretrained is None or parent is None or not parent.channels:
        return build_network(model.arch, model.encoder, classes, norm)
    if (parent.arch, parent.encoder) != (model.arch, model.encoder):
        raise UserError(
            f"{pretrained}: was pruned, and its widths fit {parent.arch} on {parent.encoder} alone, not {model.arch} "
            f"on {model.encoder}; change the section model, or start from the model that it was pruned from"
        )
    state = load_weights(pretrained, parent)
    return build_network(model.arch, model.encoder, classes, norm, parent.channels, state)


def _initialise(
    network: nn.Module, model: Model, dataset: DatasetCard, pretrained: Path | None
) -> tuple[str, list[Graft]]:
    """Fill the network; returns where the encoder's weights came from, and what became of each pretrained tensor."""
    parent = read_card(pretrained) if pretrained else None
    initialise(network, model.init, model.zero_last_norm)
    origin, foreign = "", list[Graft]()
    if parent is None or parent.encoder != model.encoder:
        origin, foreign = load_foreign(network, find_encoder(model.encoder), model.weights)
        kept = sum(entry.outcome == "kept" for entry in foreign)
        print(f"loaded {kept} of {len(network.state_dict())} tensors from {origin}")
    if pretrained is None or parent is None:
        return origin, foreign
    same = parent.encoder == model.encoder
    grafted = graft(network, load_weights(pretrained, parent), links(parent, dataset), same)
    kept = sum(entry.outcome == "kept" for entry in grafted)
    print(f"grafted {kept} of {len(network.state_dict())} tensors from {pretrained}")
    loaded = {entry.tensor: entry for entry in foreign if entry.outcome == "kept"}
    report = [e if e.outcome in FILLED else loaded.get(e.tensor, e) for e in grafted]
    for line in _told(report):
        print(f"  {line}")
    return origin or f"pretrained {parent.weights_sha256[:12]}", report


def _told(report: list[Graft]) -> Iterator[str]:
    """What was not simply kept, tensors of one fate together."""
    fates = dict[tuple[str, str], list[str]]()
    for entry in report:
        if entry.outcome != "kept":
            fates.setdefault((entry.outcome, entry.why), []).append(entry.tensor)
    for (outcome, why), (first, *others) in fates.items():
        yield f"{first}{f' and {len(others)} more' if others else ''}: {outcome}: {why}"


def teacher_of(
    distill: Distill, pretrained: Path | None, dataset: DatasetCard, device: torch.device
) -> tuple[nn.Module, ModelCard] | None:
    """The model to learn from, in the dataset's classes; None if there is none to be.

    Raises:
        UserError: it is to be the pretrained model, and there is none.
    """
    if distill.teacher is None:
        return None
    folder = pretrained if distill.teacher == "pretrained" else Path(distill.teacher)
    if folder is None:
        raise UserError("distill.teacher: pretrained: this step starts from no model; give a model folder, or null")
    teacher, card = translated(*load_model(folder), dataset, f"distill.teacher: {folder}")
    return teacher.to(device).to(memory_format=torch.channels_last), card  # type: ignore[call-overload]


def _card(
    step: str,
    model: Model,
    training: Training,
    dataset: DatasetCard,
    pretrained: Path | None,
    origin: str,
    norm: Norm,
) -> ModelCard:
    entry = find_encoder(model.encoder)
    parent = read_card(pretrained) if pretrained else None
    return ModelCard(
        arch=model.arch,
        encoder=model.encoder,
        taxonomy=dataset.taxonomy,
        classes=dataset.classes,
        norm=norm,
        channels=parent.channels if parent else {},
        preprocessing=Preprocessing(mean=entry.mean, std=entry.std),
        provenance={
            "segraft": __version__,
            "step": step,
            "dataset": dataset.fingerprint,
            "encoder_weights": origin,
            "pretrained": parent.weights_sha256 if parent else None,
            "model": model.model_dump(mode="json"),
            "training": training.model_dump(mode="json"),
        },
    )


def _fingerprint(card: ModelCard, network: nn.Module) -> str:
    """Digest of all that decides the result: the card and the weights that training starts from."""
    digest = hashlib.sha256(decisive(card.model_dump()).encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _metrics(run: Run) -> Metrics:
    progress = run.progress
    images = progress.step * run.training.batch_size
    metrics = {"steps": float(progress.step), "seconds": round(progress.seconds, 3)}
    if progress.step:
        metrics["images_per_second"] = round(images / progress.seconds, 3)
    if progress.best_epoch and run.scored:
        metrics["miou"] = round(progress.best_miou, 6)
    return metrics


def _write_log(log: Path, run: Run, card: ModelCard, report: list[Graft], metrics: Metrics, started: float) -> None:
    lines = [json.dumps(record) + "\n" for record in run.progress.history]
    (log / "history.jsonl").write_text("".join(lines), encoding="utf-8")
    content: dict[str, Any] = {
        "step": card.provenance["step"],
        "params": {"model": card.provenance["model"], "training": card.provenance["training"]},
        "dataset": card.provenance["dataset"],
        "steps": run.progress.step,
        "epochs": run.progress.step / run.steps_per_epoch if run.progress.step else 0,
        "best_epoch": run.progress.best_epoch,
        "best_miou": metrics.get("miou"),
        "stopped_early": run.progress.stopped_early,
        "seconds": metrics["seconds"],
        "images_per_second": metrics.get("images_per_second"),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "started": started,
        "ended": time.time(),
        "environment": environment(run.device),
        "encoder_weights": card.provenance["encoder_weights"],
        "graft": [entry._asdict() for entry in report],
        "schedule": planned(run.layers.groups, run.total, run.steps_per_epoch, run.training),
    }
    write_json(log / "training.json", content)
