"""Dataset layouts: one small adapter a file, each a function that lists samples.

An adapter only knows where files lie and what their names mean. It opens no image, and it lists what is wrong too (a
mask that is not there, a mask without its image): to judge is the validate step's work.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path

from segraft.data.taxonomy import Encoding
from segraft.errors import UserError
from segraft.params import Dataset, Folder, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image and its mask; paths are relative to the dataset's root, with forward slashes."""

    id: str
    """unique in the dataset, without split and suffix, for example aachen_000000_000019"""
    split: Split
    image: str
    mask: str
    """where the mask is, or would have to be"""
    group: str
    """the sequence, drive or city: what must not be cut by a split"""
    tags: tuple[str, ...] = ()
    """conditions, for example night, rain"""


@dataclass(frozen=True)
class Listing:
    """What an adapter found."""

    samples: tuple[Sample, ...]
    orphans: tuple[str, ...] = ()
    """masks for which there is no image, relative to the root"""
    encoding: Encoding = "ids"


Adapter = Callable[[Path, Folder], Listing]
"""(root, the `folder` knobs) → what is there; adapter X is `listing` in segraft/data/formats/X.py."""


def list_samples(root: Path, dataset: Dataset) -> Listing:
    """The samples of a dataset after include, holdout and limit, in a fixed order (split, then id).

    Raises:
        UserError: the folder does not look like the format; the message says what was expected where.
    """
    if dataset.format == "none":
        return Listing(())
    adapter: Adapter = importlib.import_module(f"segraft.data.formats.{dataset.format}").listing
    listing = adapter(root, dataset.folder)
    samples = [s for s in listing.samples if any(fnmatch(s.id, pattern) for pattern in dataset.include)]
    if not samples:
        found = f"{len(listing.samples)} images, none matching include={list(dataset.include)}"
        raise UserError(f"{root}: no samples of format {dataset.format} ({found})")
    samples.sort(key=lambda s: (SPLITS.index(s.split), s.id))
    if dataset.holdout:
        samples = _hold_out(samples, dataset.holdout)
    if dataset.limit is not None:
        samples = _limit(samples, dataset.limit)
    return replace(listing, samples=tuple(samples))


def _hold_out(samples: list[Sample], share: float) -> list[Sample]:
    """The end of each train sequence becomes val, so that no val frame lies between two train frames."""
    train = sorted((s for s in samples if s.split == "train"), key=lambda s: (s.group, s.id))
    kept: list[Sample] = []
    for _, group in groupby(train, key=lambda s: s.group):
        members = list(group)
        cut = len(members) - round(share * len(members))
        kept += members[:cut] + [replace(s, split="val") for s in members[cut:]]
    kept += [s for s in samples if s.split == "test"]
    return sorted(kept, key=lambda s: (SPLITS.index(s.split), s.id))


def _limit(samples: list[Sample], budget: int) -> list[Sample]:
    train = [s for s in samples if s.split == "train"]
    if budget >= len(train):
        return samples
    chosen = [train[i * len(train) // budget] for i in range(budget)]
    return chosen + [s for s in samples if s.split != "train"]
