"""serving.json: what export added to a model folder, what it measured, and which runtime it chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from segraft.checkpoint import ModelCard, read_card, sha256
from segraft.errors import UserError
from segraft.params import Section, build, parse_json
from segraft.serving.drift import Reference
from segraft.serving.runtimes import FILES, SERVING


class Measured(Section):
    """One runtime, measured on real images against eager PyTorch in fp32."""

    latency_ms: float = Field(description="median for one image of the size below")
    size_mb: float = Field(description="of the files that it reads, 10^6 bytes")
    miou: float | None = Field(description="0…1; null: the images have no labelled pixel")
    agreement: float = Field(description="share of the pixels, 0…1, whose class is PyTorch's")
    passed: bool
    why: str = Field(description="what it failed at; empty if it passed")


class ServingCard(Section):
    """serving.json."""

    format: Literal[1] = 1
    weights_sha256: str = Field(description="of the PyTorch weights that the files below were made from")
    stride: int = Field(ge=1, le=256, description="sides of what the network sees are multiples of this")
    chosen: str
    why: str
    runtimes: dict[str, Measured]
    unavailable: dict[str, str] = Field(description="runtimes that were asked for and could not be made, and why")
    measured_on: dict[str, Any]
    files: dict[str, str] = Field(description="file of this folder → sha256")
    reference: Reference | None

    @field_validator("files")
    @classmethod
    def _are_graphs(cls, files: dict[str, str]) -> dict[str, str]:
        strange = set(files) - {file for of in FILES.values() for file in of}
        if strange:
            raise ValueError(f"no runtime reads {sorted(strange)}")
        return files


def read_serving_card(folder: Path) -> ServingCard | None:
    """A model folder's serving.json, or None if it was never exported.

    Raises:
        UserError: there is one, and it cannot be read or is of other weights.
    """
    path = folder / SERVING
    if not path.is_file():
        return None
    values = parse_json(path.read_bytes(), str(path))
    card: ServingCard = build(ServingCard, values, str(path))
    if card.weights_sha256 != read_card(folder).weights_sha256:
        raise UserError(f"{path}: was made from other weights than the folder holds; export the model again")
    return card


def verified(folder: Path, card: ServingCard, name: str) -> Path:
    """The path of a runtime's file, if its bytes are those that export wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: missing; export the model again")
    if sha256(path) != card.files[name]:
        raise UserError(f"{path}: its sha256 is not the one in {SERVING}: damaged or replaced; export the model again")
    return path


def check_channels(graph: Path, channels: object, card: ModelCard) -> None:
    """Refuse a graph that does not know the card's classes.

    Args:
        graph: its file.
        channels: of its output "logits".
        card: the model folder's.

    Raises:
        UserError: they differ.
    """
    if isinstance(channels, int) and channels != len(card.classes):  # else the graph does not say
        raise UserError(
            f"{graph}: logits of {channels} classes; the model's card has {len(card.classes)}; export it again"
        )


def unreadable(graph: Path, error: Exception) -> UserError:
    """What is said of a graph that an engine cannot open."""
    return UserError(
        f"{graph}: not a graph that this engine runs; export the model again ({' '.join(str(error).split())[:300]})"
    )
