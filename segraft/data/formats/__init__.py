"""Dataset layouts: one small adapter a file, each a function that lists samples.

An adapter only knows where files lie and what their names mean. It opens no image, and it lists what is wrong too (a
mask that is not there, a mask without its image): to judge is the validate step's work.

Splits are the dataset's own. A `test` whose labels are not public is left out; what `holdout` makes of that is said in
`_hold_out`, and in docs/own-data.md for users.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path, PurePosixPath

from segraft.data.taxonomy import Encoding
from segraft.errors import UserError
from segraft.params import Dataset, Folder, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image and its mask; paths are relative to the dataset's root, with forward slashes."""

    id: str
    """unique in the dataset, without split and suffix unless these alone tell two apart: aachen_000000_000019"""
    split: Split
    image: str
    mask: str
    """where the mask is, or would have to be"""
    group: str
    """the sequence or drive, what must not be cut by a split; an image that stands alone is its own group"""
    tags: tuple[str, ...] = ()
    """conditions, for example night, rain"""


@dataclass(frozen=True)
class Listing:
    """What an adapter found."""

    samples: tuple[Sample, ...]
    orphans: tuple[str, ...] = ()
    """masks for which there is no image, relative to the root"""
    encoding: Encoding = "ids"
    unread: Mapping[str, str] = field(default_factory=dict)
    """mask → the file that would be its image, but for a suffix that is not read"""


Adapter = Callable[[Path, Folder], Listing]
"""(root, the `folder` knobs) → what is there; adapter X is `listing` in segraft/data/formats/X.py."""


def list_samples(root: Path, dataset: Dataset) -> Listing:
    """The samples of a dataset after include, holdout and limit, in a fixed order (split, then id).

    Raises:
        UserError: the folder does not look like the format; the message says what was expected where.
    """
    if dataset.format == "none":
        return Listing(())
    adapter = importlib.import_module(f"segraft.data.formats.{dataset.format}")
    try:
        listing: Listing = adapter.listing(root, dataset.folder)
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror}; fix the link, or its permissions") from None
    if not listing.samples:
        raise UserError(
            f"{root}: no images of format {dataset.format}; expected {adapter.LAYOUT}; found {content(root)}"
        )
    samples = [s for s in _with_unique_ids(listing.samples) if any(fnmatchcase(s.id, p) for p in dataset.include)]
    if not samples:
        example = min(s.id for s in listing.samples)
        raise UserError(
            f"{root}: {len(listing.samples)} images, but include={list(dataset.include)} matches none; "
            f"it is matched against ids such as {example}"
        )
    if dataset.holdout:
        samples = _hold_out(samples, dataset.holdout)
    samples.sort(key=lambda s: (SPLITS.index(s.split), s.id))
    if dataset.limit is not None:
        samples = _limit(samples, dataset.limit)
    return replace(listing, samples=tuple(samples))


def content(root: Path) -> str:
    """What lies directly in a folder, in words."""
    return ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "no folder"


def bucket(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone: the same on every machine, in every version of a dataset."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:7]) / (1 << 56)


def _with_unique_ids(samples: Iterable[Sample]) -> list[Sample]:
    """Ids that clash get their split, then their suffix, then a number: one id, one sample, whatever the files."""
    found = sorted(samples, key=lambda s: (s.split, s.image))
    for clearer in (lambda s: f"{s.id}@{s.split}", lambda s: s.id + PurePosixPath(s.image).suffix):
        times = Counter(s.id for s in found)
        found = [replace(s, id=clearer(s)) if times[s.id] > 1 else s for s in found]
    seen: Counter[str] = Counter()
    for index, sample in enumerate(found):
        seen[sample.id] += 1
        if seen[sample.id] > 1:
            found[index] = replace(sample, id=f"{sample.id}#{seen[sample.id]}")
    return found


def _hold_out(samples: list[Sample], share: float) -> list[Sample]:
    """The end of each sequence becomes val, so that no val frame lies between two train frames.

    Of images that stand alone, each has the chance `share`, drawn from its name. Where nothing is `test`, the val that
    was given becomes it (nothing is then chosen on what is reported); else it joins train before the cut.
    """
    if not any(s.split == "test" for s in samples):
        samples = [replace(s, split="test") if s.split == "val" else s for s in samples]
    kept = [s for s in samples if s.split == "test"]
    pool = sorted((s for s in samples if s.split != "test"), key=lambda s: (s.group, _natural(s.id)))
    for name, group in groupby(pool, key=lambda s: s.group):
        members = list(group)
        cut = len(members) - int(share * len(members) + bucket(f"holdout {name}"))
        kept += [replace(s, split="train" if place < cut else "val") for place, s in enumerate(members)]
    return kept


def _natural(name: str) -> list[str | int]:
    """Sorts frame_9 before frame_10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]


def _limit(samples: list[Sample], budget: int) -> list[Sample]:
    train = [s for s in samples if s.split == "train"]
    if budget >= len(train):
        return samples
    chosen = [train[i * len(train) // budget] for i in range(budget)]
    return chosen + [s for s in samples if s.split != "train"]
