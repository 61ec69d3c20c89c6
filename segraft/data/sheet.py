"""Contact sheets: what training will see, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.data.loader import Loader
from segraft.data.packed import DatasetCard, PackedDataset

Pixels = NDArray[np.uint8]
COLUMNS, GAP, BAND, WIDTH = 6, 6, 26, 240
INK, PAPER, VOID = (40, 40, 40), 250, (0, 0, 0)


def contact_sheet(datasets: dict[str, PackedDataset], seed: int, path: Path) -> None:
    """Write a PNG: for each dataset two rows of training crops above their labels, and a legend of the classes.

    Args:
        datasets: title → packed dataset; one without train samples is left out.
        seed: which crops.
        path: the PNG file.
    """
    blocks = [_block(title, dataset, seed) for title, dataset in datasets.items() if len(dataset.split("train"))]
    legend = _legend(next(iter(datasets.values())).card, blocks[0].shape[1])
    path.write_bytes(cv2.imencode(".png", np.vstack([*blocks, legend])[..., ::-1])[1].tobytes())


def _block(title: str, dataset: PackedDataset, seed: int) -> Pixels:
    loader = Loader(dataset, 2 * COLUMNS, seed)
    batch = loader.batch(0)
    card = dataset.card
    palette = np.full((256, 3), VOID, np.uint8)
    known = [color for _, color in _entries(card)]
    palette[: len(known)] = known
    rows = []
    for first in (0, COLUMNS):
        images = list(batch.images[first : first + COLUMNS])
        labels = [palette[mask] for mask in batch.masks[first : first + COLUMNS]]
        rows += [_row(images), _row(labels)]
    samples = f"{title}: {len(loader)} train samples, crops of {card.crop[0]} x {card.crop[1]}"
    return np.vstack([_band(samples, rows[0].shape[1]), *rows])


def _row(tiles: Sequence[Pixels]) -> Pixels:
    height = round(WIDTH * tiles[0].shape[0] / tiles[0].shape[1])
    small = [cv2.resize(tile, (WIDTH, height), interpolation=cv2.INTER_AREA) for tile in tiles]
    framed = [cv2.copyMakeBorder(t, 0, GAP, GAP, 0, cv2.BORDER_CONSTANT, value=(PAPER,) * 3) for t in small]
    return np.hstack(framed)


def _band(text: str, width: int) -> Pixels:
    band = np.full((BAND, width, 3), PAPER, np.uint8)
    cv2.putText(band, text, (GAP, BAND - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return band


def _entries(card: DatasetCard) -> list[tuple[str, tuple[int, int, int]]]:
    """Name and colour of each class and coarse label, by their values; a coarse one has its classes' mean colour."""
    colors = [c.color for c in card.classes]
    mean = [np.mean([colors[index] for index in one.members], axis=0).astype(int).tolist() for one in card.coarse]
    return list(
        zip([*(c.name for c in card.classes), *(one.name for one in card.coarse)], [*colors, *mean], strict=True)
    )


def _legend(card: DatasetCard, width: int) -> Pixels:
    entries = [*_entries(card), ("ignored", VOID)]
    column = 170
    across = max(1, width // column)
    legend = np.full((BAND * -(-len(entries) // across) + GAP, width, 3), PAPER, np.uint8)
    for place, (name, color) in enumerate(entries):
        y, x = BAND * (place // across), GAP + column * (place % across)
        cv2.rectangle(legend, (x, y + 6), (x + 18, y + 20), color, -1)
        cv2.putText(legend, name[:20], (x + 24, y + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return legend
