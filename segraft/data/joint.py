"""Several source datasets with label sets of their own, as one packed dataset.

What a dataset does not know is ignored; what it knows more coarsely than the model stays a label for several classes,
whose probabilities the loss adds up (the idea of YOLO9000's WordTree, Redmon & Farhadi 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from segraft.data.packed import Packed
from segraft.data.packing import Files, open_files, simulated, spread
from segraft.data.taxonomy import load_taxonomy
from segraft.params import Augment, Source

Makers = list[Callable[[], Packed]]


def open_source(
    root: Path, source: Source, classes: str, taxonomies: Path, rows: list[dict[str, Any]], augment: Augment
) -> dict[str, Files]:
    """Split of the packed dataset → the files whose train samples it is to hold; the first is train.

    Args:
        root: the source's folder.
        source: its section.
        classes: name of the model's taxonomy.
        taxonomies: folder of taxonomy files.
        rows: the source's manifest; paths of a joint source begin with the dataset's folder.
        augment: the knobs.

    Raises:
        UserError: no map leads from a dataset's taxonomy to the model's, or from the model's to it.
    """
    if not source.sets:
        return {"train": open_files(root, source, classes, taxonomies, rows, augment.size)}
    model, coarse = load_taxonomy(taxonomies, classes), set[tuple[int, ...]]()
    for one in source.sets:
        coarse |= set(model.joint_from(load_taxonomy(taxonomies, one.taxonomy))[1].values())
    opened = {}
    for number, one in enumerate(source.sets):
        own = [row for row in rows if row["image"].startswith(f"{one.path}/")]
        files = open_files(root, one, classes, taxonomies, own, augment.size, tuple(sorted(coarse)), one.path)
        opened[f"joint-{number}" if number else "train"] = files
    return opened


def shares(source: Source, opened: dict[str, Files]) -> dict[str, float]:
    """Split → share of the samples that training draws from it; empty for a single dataset."""
    total = sum(one.share for one in source.sets)
    return {split: one.share / total for split, one in zip(opened, source.sets, strict=False)}


def beyond_first(opened: dict[str, Files], augment: Augment) -> dict[str, Makers]:
    """Split → makers of the samples of all datasets but the first; their val and test join the first's."""
    found: dict[str, Makers] = {}
    for split, files in list(opened.items())[1:]:
        for row in files.rows:
            found.setdefault(split if row["split"] == "train" else row["split"], []).append(partial(files.read, row))
        found.setdefault(split, []).extend(simulated(files, augment))
    return found


def mixed(opened: dict[str, Files], count: int) -> Makers:
    """Makers of at most `count` train samples of all datasets alike, for mixed batches; coarse labels are ignored."""
    found: Makers = []
    for number, files in enumerate(opened.values()):
        part = count * (number + 1) // len(opened) - count * number // len(opened)
        found += spread(replace(files, coarse=None if files.coarse is None else ()), part)
    return found
