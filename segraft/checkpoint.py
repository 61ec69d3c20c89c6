"""A model is a folder that explains itself: `weights.safetensors` and `model.json`; no code in it, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from segraft.errors import UserError
from segraft.params import Color, Section, build, parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, CARD = "weights.safetensors", "model.json"
Norm = Literal["batch", "group"]


class ClassCard(Section):
    """A class that the model knows; its place in the list is its trainId."""

    name: str
    color: Color


class Preprocessing(Section):
    """What is done to an RGB image, scaled to 0…1, before the network sees it."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ModelCard(Section):
    """model.json: everything but the weights; evaluate and serve read these facts from nowhere else."""

    format: Literal[1] = 1
    arch: str
    encoder: str
    taxonomy: str
    classes: tuple[ClassCard, ...] = Field(min_length=2, max_length=255)
    ignore_index: Literal[255] = 255
    norm: Norm = "batch"
    """group: GroupNorm stands where the network as built has BatchNorm"""
    channels: dict[str, int] = Field(default_factory=dict)
    """convolution → output channels, where pruning left fewer than the network as built has"""
    preprocessing: Preprocessing
    provenance: dict[str, Any] = Field(default_factory=dict)
    weights_sha256: str = ""


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file.

    Raises:
        OSError: the disk refuses it, which safetensors says in words of its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        refused = re.search(r"\(os error (\d+)\)", str(error))
        if refused is None:
            raise
        raise OSError(int(refused[1]), os.strerror(int(refused[1])), str(path)) from None


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> ModelCard:
    """Write a model folder; the same weights and card give the same bytes. Returns the card with its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, {name: t.detach().cpu() for name, t in model.state_dict().items()})
    card = card.model_copy(update={"weights_sha256": sha256(folder / WEIGHTS)})
    (folder / CARD).write_text(json.dumps(card.model_dump(), indent=2) + "\n", encoding="utf-8")
    return card


def teacher_sha256(teacher: str | None) -> str | None:
    """Digest of the weights of `distill.teacher`, if it is a folder: the path alone does not say what it teaches."""
    return read_card(Path(teacher)).weights_sha256 if teacher not in (None, "pretrained") else None


def read_card(folder: Path) -> ModelCard:
    """A model folder's card.

    Raises:
        UserError: there is none, or it is not one.
    """
    path = folder / CARD
    try:
        values = parse_json(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: not a model folder: it has no {CARD}") from None
    card: ModelCard = build(ModelCard, values, str(path))
    return card


def load_weights(folder: Path, card: ModelCard) -> dict[str, Any]:
    """A model folder's state dict, if its bytes are those that the card names.

    Raises:
        UserError: the weights are missing, or not the ones that were saved.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: missing; make the model folder again")
    if sha256(path) != card.weights_sha256:
        raise UserError(f"{path}: its sha256 is not the one in {CARD}: the file is damaged or replaced; make it again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); make the model folder again") from None


def build_network(
    arch: str,
    encoder: str,
    classes: int,
    norm: Norm = "batch",
    channels: Mapping[str, int] | None = None,
    state: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network as cards describe them, with random weights.

    Args:
        arch: which architecture.
        encoder: which encoder.
        classes: how many.
        norm: group: GroupNorm in the place of BatchNorm.
        channels: what a card says of its pruned convolutions.
        state: the pruned weights, whose shapes the network gets; needed where there are channels.
    """
    from segraft.models import create_model

    network = create_model(arch, encoder, classes)
    if channels:
        from segraft.compression.widths import fit_widths

        assert state is not None
        fit_widths(network, state, channels)
    if norm == "group":
        from segraft.training.batchnorm import to_group_norm

        to_group_norm(network)
    return network


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """A model folder's network on the CPU, in eval mode, and its card.

    Raises:
        UserError: the folder is not whole, or the weights do not fit the architecture that it names.
    """
    card = read_card(folder)
    state = load_weights(folder, card)
    model = build_network(card.arch, card.encoder, len(card.classes), card.norm, card.channels, state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights do not fit {card.arch} on {card.encoder}: {str(error)[:300]}") from None
    return model.eval(), card
