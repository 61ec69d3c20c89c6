"""What the list of a dataset's files alone tells: where masks were looked for in vain, how splits came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segraft.data.formats import SPLITS, Listing, content
from segraft.data.formats.folder import draws_splits, other_masks
from segraft.data.taxonomy import Taxonomy
from segraft.params import Dataset, Split


@dataclass(frozen=True)
class Given:
    """One dataset, before its files were read."""

    root: Path
    knobs: Dataset
    taxonomy: Taxonomy
    listing: Listing
    trouble: str | None
    """why it could not be listed"""

    @property
    def draws(self) -> bool:
        """Whether splits are drawn from the names of the images' groups."""
        return self.knobs.format == "folder" and draws_splits(self.knobs.folder)


def section_of(name: str) -> str:
    """Where params.yaml says what dataset `name` is."""
    role, _, folder = name.partition("/")
    return f"data.{role}.sets ({folder})" if folder else f"data.{role}"


def misplaced(name: str, one: Given, missing: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """(found, remedy) for a dataset of which nearly no mask is where it would have to be.

    Args:
        name: the dataset.
        one: what was listed of it.
        missing: image and mask of each sample without its mask.
    """
    knobs, (image, mask) = one.knobs, missing[0]
    own = knobs.format == "folder"
    where = f"at folder.masks = {knobs.folder.masks}" if own else f"where format {knobs.format} has it"
    count, every = len(missing), len(one.listing.samples)
    lost = f"no image has its mask {where}" if count == every else f"{count} of {every} images have no mask {where}"
    found = f"{lost} (for example {image} → {mask}); {_there(one, mask)}"
    if not own:
        return found, f"put the masks there, or change {section_of(name)}.format"
    other = other_masks(one.root, knobs.folder)
    return found, f"change {section_of(name)}.folder.masks" + (f", for example to {other}" if other else "")


def _there(one: Given, mask: str) -> str:
    """What is in the folder of a mask that is not there."""
    folder = PurePosixPath(mask).parent
    while not (one.root / folder).is_dir():
        folder = folder.parent
    if str(folder) != str(PurePosixPath(mask).parent):
        return f"there is no such folder, only {content(one.root / folder) or 'nothing'} in {one.root / folder}"
    images = {sample.image for sample in one.listing.samples}
    files = sorted(path.name for path in (one.root / folder).iterdir() if str(folder / path.name) not in images)
    return f"files there look like {files[0]}" if files else "there are no other files"


def drawn(one: Given) -> str:
    """How the splits came about, in words."""
    cut = f"; holdout {one.knobs.holdout:g} cuts val out of train" if one.knobs.holdout else ""
    if not one.draws:
        return f"as the dataset gives them{cut}"
    groups = {split: {s.group for s in one.listing.samples if s.split == split} for split in SPLITS}
    count = len(set().union(*groups.values()))
    if count == len(one.listing.samples):
        return f"drawn for each image by itself{cut}"
    split = ", ".join(f"{len(names)} {split}" for split, names in groups.items())
    return f"drawn by {_unit(one)}: {count} group{'s' * (count > 1)}, {split}{cut}"


def _unit(one: Given) -> str:
    return "folder" if one.knobs.folder.group is None else "folder.group"


def more_samples(name: str, one: Given, split: Split) -> str:
    """What to do about a split of too few samples."""
    section, samples, knobs = section_of(name), one.listing.samples, one.knobs
    if split == "train" and knobs.limit == sum(sample.split == split for sample in samples):
        return f"raise {section}.limit, the label budget"
    if one.draws:
        return _draw_otherwise(section, one)
    if split == "train":
        return "add images to train"
    if split == "val":
        return f"raise {section}.holdout" if knobs.holdout else f"set {section}.holdout to 0.1: val is cut from train"
    if knobs.holdout:
        return "add a labelled test split: holdout takes the given val for it, and none is given"
    return f"add one, or set {section}.holdout to 0.1: the given val becomes test, and a new val is cut from train"


def _draw_otherwise(section: str, one: Given) -> str:
    groups = len({sample.group for sample in one.listing.samples})
    if groups == len(one.listing.samples):
        return f"splits are drawn by name, and there are only {groups} images; add some, or give the splits in folders"
    return (
        f"splits are drawn by {_unit(one)}, and there {'are' if groups > 1 else 'is'} only {groups}; unless these are "
        f'videos, patients or the like, set {section}.folder.group: ".+", which draws each image by itself'
    )
