"""What the adapters share: walk a tree without touching its files, and pair images with masks by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from segraft.data.formats import Listing, Sample
from segraft.data.taxonomy import Encoding
from segraft.errors import UserError
from segraft.params import Split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

Describe = Callable[[str], tuple[str, tuple[str, ...]]]
"""An image's path below the images' folder, without its ending → (group, tags)."""


def files(root: Path, folder: str) -> list[str]:
    """Every file below root/folder, relative to that folder, sorted; [] where there is no such folder.

    Hidden names are passed over. No file is stat'ed; a link to a folder is followed, but never round in a circle. Any
    other link is listed as a file, to nothing and to itself too: validate says what is wrong with it.
    """
    found: list[str] = []
    waiting: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while waiting:
        below, links = waiting.pop()
        for entry in _entries(root / folder / below):
            name = below + entry.name
            if not _is_folder(entry):
                found.append(name)
            elif not entry.is_symlink():
                waiting.append((f"{name}/", links))
            elif (real := os.path.realpath(entry.path)) not in links:
                waiting.append((f"{name}/", links | {real}))
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where we may not look
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def stem(path: str, endings: tuple[str, ...]) -> str | None:
    """`path` without the ending, in any case, that it has; None if it has none of them."""
    lower = path.lower()
    return next((path[: -len(ending)] for ending in endings if lower.endswith(ending.lower())), None)


def alone(name: str) -> tuple[str, tuple[str, ...]]:
    """For images that belong to no sequence."""
    return PurePosixPath(name).name, ()


def pair(
    root: Path,
    split: Split,
    images: tuple[str, tuple[str, ...]],
    masks: tuple[str, str],
    describe: Describe = alone,
) -> Listing:
    """Pair two folders, each given with the ending that its files have after the part of the path they share.

    A test split without a folder of masks is one whose labels are not public: it is left out.
    """
    (image_folder, image_endings), (mask_folder, mask_ending) = images, masks
    if split == "test" and not (root / mask_folder).is_dir():
        return Listing(())
    samples: list[Sample] = []
    for path in files(root, image_folder):
        name = stem(path, image_endings)
        if name is not None:
            group, tags = describe(name)
            mask = f"{mask_folder}/{name}{mask_ending}"
            samples.append(Sample(PurePosixPath(name).name, split, f"{image_folder}/{path}", mask, group, tags))
    expected = {sample.mask for sample in samples}
    there = (f"{mask_folder}/{path}" for path in files(root, mask_folder) if path.lower().endswith(mask_ending.lower()))
    return Listing(tuple(samples), tuple(mask for mask in there if mask not in expected))


def join(parts: Iterable[Listing], encoding: Encoding = "ids") -> Listing:
    """Several listings as one."""
    listings = list(parts)
    samples = tuple(sample for part in listings for sample in part.samples)
    return Listing(samples, tuple(orphan for part in listings for orphan in part.orphans), encoding)


def lines(root: Path, file: str) -> list[str]:
    """The lines of a split file; [] where there is no such file.

    Raises:
        UserError: a line is an absolute path or climbs out of the dataset.
    """
    try:
        text = (root / file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"{root / file}: not UTF-8 text (byte {error.start}); save the split file as UTF-8") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    for line in found:
        inside(f"{root / file}: {line}", line)
    return found


def inside(where: str, path: str) -> None:
    """Refuse a path or pattern that could leave the dataset's folder."""
    if path.startswith("/") or ".." in path.split("/"):
        raise UserError(f"{where}: leads out of the dataset's folder; name files below it, without '..'")


def listed(split: Split, ids: Iterable[str], image: str, mask: str) -> list[Sample]:
    """Samples named by a split file; `image` and `mask` are paths with {} for the name."""
    return [Sample(id, split, image.replace("{}", id), mask.replace("{}", id), id) for id in ids]


def orphans(root: Path, images: tuple[str, str], masks: Mapping[str, str]) -> list[str]:
    """Masks in the folders of `masks` (folder → ending) that have no image in the folder and ending of `images`."""
    folder, ending = images
    known = {stem(path, (ending,)) for path in files(root, folder)} | {None}
    return [f"{at}/{path}" for at, end in masks.items() for path in files(root, at) if stem(path, (end,)) not in known]
