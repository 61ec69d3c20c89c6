"""A smaller model folder from a model folder: pruned and trained on, or a student that learned from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from segraft.checkpoint import ModelCard, load_model, read_card, save_model
from segraft.compression.prune import CRITERION, Kind, prune_channels, prune_weights, sparsity
from segraft.data.loader import Loader
from segraft.data.packed import PackedDataset
from segraft.device import setup
from segraft.evaluation.predict import network_input
from segraft.params import Model, Training
from segraft.steps import remove
from segraft.training.checkpoints import CheckpointStore, decisive
from segraft.training.loop import Run
from segraft.training.losses import Loss
from segraft.training.monitor import stop_wish
from segraft.training.run import teacher_of, train

BATCHES = 8
"""Of the train split, that say which channels the loss needs."""


def prune_and_recover(
    model: Path, dataset: Path, share: float, kind: Kind, training: Training, work: Path, destination: Path
) -> None:
    """Write the pruned form of a model, trained on as `training` says; a killed call goes on from `work`.

    `distill.teacher: pretrained` is the model as it was before pruning, and `l2_sp` pulls to the pruned weights.

    Args:
        model: a model folder.
        dataset: the packed dataset to train on.
        share: of the channels or weights, 0 … below 1; 0 copies the model.
        kind: what is pruned.
        training: how it trains on.
        work: where checkpoints outlive a kill.
        destination: the model folder to write.

    Raises:
        UserError: the network cannot be pruned, or a folder is not whole.
    """
    device = setup(training.threads)
    torch.manual_seed(training.seed)
    network, card = load_model(model)
    if share:
        if training.lora_rank or training.batch_norm == "group":
            print("without effect: lora_rank, batch_norm: group: a pruned model keeps its layers")
        packed = PackedDataset(dataset)
        teacher = teacher_of(training.distill, model, packed.card, device)
        network.to(device)
        channels = {}
        if kind == "channels":
            channels = prune_channels(network, share, _losses(network, card, packed, training, device))
        else:
            prune_weights(network, share)
        pruned = {"of": card.weights_sha256, "kind": kind, "by": CRITERION[kind], "share": share}
        pruned["training"] = training.model_dump(mode="json")
        if teacher:
            pruned["teacher"] = teacher[1].weights_sha256
        provenance = card.provenance | {"pruned": pruned}
        card = card.model_copy(update={"channels": card.channels | channels, "provenance": provenance})
        key = hashlib.sha256(decisive(card.model_dump()).encode()).hexdigest()
        store = CheckpointStore(work, key)
        kept = frozenset(name for name, _ in network.named_parameters())
        run = Run(network, card, packed, training, device, store, kept=kept, teacher=teacher)
        with stop_wish() as stop:
            run.fit(stop)
        network.load_state_dict(run.best or network.state_dict())
        store.close(finished=True)
        pruned["sparsity"] = round(sparsity(network), 4)
    save_model(destination, network, card)


def _losses(
    network: nn.Module, card: ModelCard, dataset: PackedDataset, training: Training, device: torch.device
) -> Iterator[Tensor]:
    """What the network loses on a few batches, as training would count it."""
    loader = Loader(dataset, training.batch_size, training.seed)
    loss = Loss(training, loader.card, card.ignore_index, device, dataset.card.coarse)
    for batch in loader.batches(0, BATCHES):
        masks = torch.from_numpy(batch.masks).to(device).long()
        yield loss(network(network_input(card, list(batch.images), device)), masks)


def teach(
    model: Path, dataset: Path, student: str, start: Model, training: Training, work: Path, destination: Path
) -> None:
    """Write a student on another encoder that learned from a model; a killed call goes on from `work`.

    Args:
        model: a model folder: the teacher, and what the decoder starts from where shapes fit.
        dataset: the packed dataset to train on.
        student: name of its encoder; the architecture is the model's.
        start: where its encoder's weights come from.
        training: how it learns; `distill` says how from the model.
        work: where checkpoints outlive a kill.
        destination: the model folder to write.

    Raises:
        UserError: the encoder's weights cannot be had, or a folder is not whole.
    """
    card = read_card(model)
    network = start.model_copy(update={"arch": card.arch, "encoder": student})
    distill = training.distill.model_copy(update={"teacher": str(model)})
    # What is made by chance has no statistics to keep, and no layers that are better left alone.
    norm = "group" if training.batch_norm == "group" else "train"
    how = training.model_copy(update={"distill": distill, "batch_norm": norm, "freeze": "none", "lora_rank": 0})
    pretrained = None if card.channels else model  # pruned widths fit no other encoder
    remove(work / "log")
    train("compress", network, how, dataset, pretrained, work / "run", destination, work / "log")
