"""One training run as a step sees it: from folders to folders."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segraft import __version__
from segraft.checkpoint import ModelCard, Preprocessing, load_weights, read_card, save_model
from segraft.data.packed import DatasetCard, PackedDataset
from segraft.device import environment, setup
from segraft.models import create_model, find_encoder
from segraft.models.encoders import load_encoder_weights
from segraft.params import Model, Training
from segraft.steps import Metrics, write_json
from segraft.training.checkpoints import CheckpointStore
from segraft.training.loop import Run
from segraft.training.monitor import peak_memory_mb, stop_wish, system_log
from segraft.training.transfer import Graft, graft


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
    torch.manual_seed(training.seed)
    packed = PackedDataset(dataset, cache=work / "shards")
    network = create_model(model.arch, model.encoder, len(packed.card.classes))
    origin, report = _initialise(network, model, packed.card, pretrained)
    card = _card(step, model, training, packed.card, pretrained, origin)
    store = CheckpointStore(work, _fingerprint(card, network))
    log.mkdir(parents=True)
    started = time.time()
    run = Run(network.to(device), card, packed, training, device, store)
    with stop_wish() as stop, system_log(log / "system.jsonl"):
        run.fit(stop)
    network.load_state_dict(run.best or network.state_dict())
    card.provenance.update(steps=run.progress.step, best_epoch=run.progress.best_epoch)
    save_model(weights, network, card)
    metrics = _metrics(run)
    _write_log(log, run, card, report, metrics, started)
    store.close(finished=True)
    return metrics


def _initialise(
    network: nn.Module, model: Model, dataset: DatasetCard, pretrained: Path | None
) -> tuple[str, list[Graft]]:
    """Fill the network; returns where the encoder's weights came from, and what became of each pretrained tensor."""
    parent = read_card(pretrained) if pretrained else None
    origin = ""
    if parent is None or parent.encoder != model.encoder:
        origin = load_encoder_weights(network.get_submodule("encoder"), find_encoder(model.encoder), model.weights)
    if pretrained is None or parent is None:
        return origin, []
    same_classes = [c.name for c in parent.classes] == [c.name for c in dataset.classes]
    report = graft(network, load_weights(pretrained, parent), same_classes)
    kept = sum(entry.outcome == "kept" for entry in report)
    print(f"grafted {kept} of {len(network.state_dict())} tensors from {pretrained}")
    for entry in report:
        if entry.outcome != "kept":
            print(f"  {entry.tensor}: {entry.outcome}: {entry.why}")
    return origin or f"pretrained {parent.weights_sha256[:12]}", report


def _card(
    step: str, model: Model, training: Training, dataset: DatasetCard, pretrained: Path | None, origin: str
) -> ModelCard:
    entry = find_encoder(model.encoder)
    parent = read_card(pretrained) if pretrained else None
    return ModelCard(
        arch=model.arch,
        encoder=model.encoder,
        taxonomy=dataset.taxonomy,
        classes=dataset.classes,
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
    digest = hashlib.sha256(json.dumps(card.model_dump(), sort_keys=True).encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _metrics(run: Run) -> Metrics:
    progress = run.progress
    images = progress.step * run.training.batch_size
    metrics = {"steps": float(progress.step), "seconds": round(progress.seconds, 3)}
    if progress.step:
        metrics["images_per_second"] = round(images / progress.seconds, 3)
    if progress.best_epoch and len(run.val):
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
    }
    write_json(log / "training.json", content)
