"""Which classes each split shows, and what that is worth: a class that training never sees cannot be scored.

A rare class may be absent from a small split by chance; an error is only what chance does not explain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segraft.data.formats import SPLITS
from segraft.data.taxonomy import Taxonomy
from segraft.errors import UserError
from segraft.params import Split

COMMON = 0.5
"""A class in at least this share of the train images is missing, not rare, where a split does not show it."""
CHANCE = 0.001
"""Below this probability no class is absent by chance; a run asks it of some dozens of classes and splits."""


@dataclass(frozen=True)
class Shown:
    """What the readable masks of one split show; arrays are by trainId."""

    of: int
    """masks that could be read"""
    images: NDArray[np.int64]
    """how many masks show the class"""
    pixels: NDArray[np.int64]


Census = Mapping[str, Mapping[str, Shown]]
"""dataset → split → what it shows."""


def census(frame: pd.DataFrame, taxonomies: Mapping[str, Taxonomy]) -> Census:
    """Count the classes of every split."""
    return {
        name: {split: _shown(frame, name, split, len(taxonomy.classes)) for split in SPLITS}
        for name, taxonomy in taxonomies.items()
    }


def _shown(frame: pd.DataFrame, dataset: str, split: str, classes: int) -> Shown:
    rows = frame.loc[(frame["dataset"] == dataset) & (frame["split"] == split), "class_pixels"].dropna().to_list()
    pixels = np.array(rows, np.int64).reshape(-1, classes)
    return Shown(len(rows), np.count_nonzero(pixels, axis=0), pixels.sum(axis=0))


def read_of(dataset: str) -> tuple[Split, ...]:
    """The splits that are trained on or scored: the source's test is nobody's; of several sources, train is all."""
    return {"source": SPLITS[:2], "target": SPLITS}.get(dataset, SPLITS[:1])


def class_table(counted: Census, taxonomies: Mapping[str, Taxonomy], rare_images: int) -> pd.DataFrame:
    """One row a dataset, split and class that is learned; `state` is the rule that the class breaks there, or null."""
    rows = []
    for name, taxonomy in taxonomies.items():
        for trainid in used_classes(name, taxonomies):
            learned = any(_train_images(counted, name, trainid, taxonomies))
            for split, state in _states(counted[name], trainid, learned, rare_images):
                state = state if split in read_of(name) else None
                shown = counted[name][split]
                images = int(shown.images[trainid])
                pixels = int(shown.pixels[trainid])
                row = {"dataset": name, "split": split, "class": taxonomy.names[trainid], "images": images}
                rows.append(row | {"of": shown.of, "pixels": pixels, "state": state})
    return pd.DataFrame(rows, columns=["dataset", "split", "class", "images", "of", "pixels", "state"])


def _states(
    splits: Mapping[str, Shown], trainid: int, learned: bool, rare_images: int
) -> Iterator[tuple[str, str | None]]:
    """Each split with the rule that the class breaks in it."""
    train = int(splits["train"].images[trainid])
    common = train >= COMMON * splits["train"].of
    elsewhere = sum(int(other.images[trainid]) for other in splits.values())
    others = sum(other.of for split, other in splits.items() if split != "train")
    for split, shown in splits.items():
        here, state = int(shown.images[trainid]), None
        if not shown.of:
            continue
        if split == "train" and not here:
            by_chance = learned or chance(elsewhere, others, shown.of) >= CHANCE
            state = "unused_class" if not elsewhere else "class_absent" if by_chance else "untrained_class"
        elif split == "train" and here < rare_images:
            state = "rare_class"
        elif not here and train:
            by_chance = not common or chance(train, splits["train"].of, shown.of) >= CHANCE
            state = "class_absent" if by_chance else "class_missing"
        yield split, state


def chance(shown: int, there: int, here: int) -> float:
    """How probable it is that all `shown` images of a class are among `there` images, and none among the `here` others.

    If the class is as frequent in both: Fisher's exact test (1922) with an empty cell.
    """
    return comb(there, shown) / comb(there + here, shown)


def used_classes(dataset: str, taxonomies: Mapping[str, Taxonomy]) -> list[int]:
    """TrainIds of the dataset's taxonomy that the model learns: of the source, those that the map does not ignore."""
    every = list(range(len(taxonomies[dataset].classes)))
    if dataset == "target":
        return every
    try:
        taught = _taught(dataset, taxonomies)
    except UserError:  # the rule unmapped_taxonomy says so
        return every
    return [trainid for trainid in every if taught[trainid]]


def _taught(dataset: str, taxonomies: Mapping[str, Taxonomy]) -> list[tuple[int, ...]]:
    """For each class of a source, the classes of the target that its pixels teach."""
    target, own = taxonomies["target"], taxonomies[dataset]
    joint = dataset != "source"
    table, several = target.joint_from(own) if joint else (target.map_from(own), dict[int, tuple[int, ...]]())
    names = range(len(own.classes))
    return [several.get(one, () if table[one] == target.ignore_index else (int(table[one]),)) for one in names]


def _train_images(counted: Census, dataset: str, trainid: int, taxonomies: Mapping[str, Taxonomy]) -> Iterator[int]:
    """How many train images teach the class, in this dataset and, for a class of the target, in the source."""
    yield int(counted[dataset]["train"].images[trainid])
    for source in sorted(counted.keys() - {"target"}) if dataset == "target" else ():
        try:
            taught = _taught(source, taxonomies)
        except UserError:
            continue
        yield from (int(counted[source]["train"].images[i]) for i, ours in enumerate(taught) if trainid in ours)
