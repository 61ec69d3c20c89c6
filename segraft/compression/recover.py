"""A pruned model folder from a model folder: prune, then train on to win the accuracy back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import torch

from segraft.checkpoint import load_model, save_model
from segraft.compression.prune import prune_channels, prune_weights, sparsity
from segraft.data.packed import PackedDataset
from segraft.device import setup
from segraft.params import Training
from segraft.training.checkpoints import CheckpointStore
from segraft.training.loop import Run
from segraft.training.monitor import stop_wish

Kind = Literal["channels", "weights"]


def prune_and_recover(
    model: Path, dataset: Path, share: float, kind: Kind, training: Training, work: Path, destination: Path
) -> None:
    """Write the pruned form of a model, trained on as `training` says; a killed call goes on from `work`.

    With `distill.teacher: pretrained` it learns from the model as it was before pruning.

    Args:
        model: a model folder.
        dataset: the packed dataset to train on.
        share: of the channels or weights, 0 … below 1; 0 copies the model.
        kind: what is pruned.
        training: how it trains on.
        work: where checkpoints outlive a kill.
        destination: the model folder to write.

    Raises:
        UserError: the network cannot be pruned, or the folder is not whole.
    """
    device = setup(training.threads)
    torch.manual_seed(training.seed)
    network, card = load_model(model)
    teacher = None
    if share:
        if training.distill.teacher == "pretrained":
            teacher = (load_model(model)[0].to(device), card)
        channels = prune_channels(network, share) if kind == "channels" else {}
        if kind == "weights":
            prune_weights(network, share)
        pruned = {"of": card.weights_sha256, "kind": kind, "share": share, "training": training.model_dump(mode="json")}
        provenance = card.provenance | {"pruned": pruned}
        card = card.model_copy(update={"channels": card.channels | channels, "provenance": provenance})
        key = hashlib.sha256(json.dumps(card.model_dump(), sort_keys=True).encode()).hexdigest()
        store = CheckpointStore(work, key)
        run = Run(network.to(device), card, PackedDataset(dataset), training, device, store, teacher=teacher)
        with stop_wish() as stop:
            run.fit(stop)
        network.load_state_dict(run.best or network.state_dict())
        store.close(finished=True)
        pruned["sparsity"] = round(sparsity(network), 4)
    save_model(destination, network, card)
