"""Your own images and masks: the knobs under `folder` in params.yaml say where they lie.

In `masks`, {stem} is the image's name without suffix, {name} with it, {dir} its folder below the fixed part of `images`
and {split} its split. The split is the one in `images`, or the one of the split file that names the image, or it is
drawn from the name of the image's group: 70 % train, 15 % val, 15 % test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segraft.data.formats import SPLITS, Listing, Sample, bucket, content
from segraft.data.formats._patterns import every_match, matches, splits_of, why_none
from segraft.data.formats._tree import IMAGE_SUFFIXES, files, inside, lines, stem
from segraft.errors import UserError
from segraft.params import Folder, Split

PLACEHOLDERS = {"images": {"split"}, "masks": {"split", "stem", "name", "dir"}, "split_files": {"split"}}
TRIED = 100
"""Images on which a pattern for their masks is tried."""


@dataclass(frozen=True)
class _Image:
    path: str
    split: Split | None
    folder: str
    """below the fixed part of the glob, "" or ending in a slash"""
    stem: str
    group: str
    read: bool
    """whether its suffix is that of an image"""


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of a folder of your own."""
    _check(folder)
    every = list(_files(root, folder))
    images = [image for image in every if image.read]
    samples = [_sample(image, split, folder.masks) for image, split in _with_splits(root, folder, images)]
    masks = {sample.mask for sample in samples}
    samples = [sample for sample in samples if sample.image not in masks]
    if not samples:
        raise UserError(_nothing(root, folder, images))
    known = masks | {image.path for image in images}
    if folder.split_files:  # they may leave images out, whose masks are no orphans
        known |= _masks_of(images, folder).keys()
    orphans = [mask for mask in every_match(root, folder.masks) if mask not in known]
    unread = _masks_of([image for image in every if not image.read], folder)
    return Listing(tuple(samples), tuple(orphans), folder.encoding, unread)


def draws_splits(folder: Folder) -> bool:
    """Whether the split of an image is drawn from its group, as nothing names it."""
    return "{split}" not in folder.images and not folder.split_files


def other_masks(root: Path, folder: Folder) -> str | None:
    """A pattern in place of `folder.masks` that leads most images to a file; None: there is none that is alike."""
    images = list(_with_splits(root, folder, [image for image in _files(root, folder) if image.read]))
    there = {path for path in files(root, "") if stem(path, IMAGE_SUFFIXES)} - {image.path for image, _ in images}
    image, split = max(images, key=lambda pair: len(pair[0].stem))  # no part of another's name
    expected = PurePosixPath(_sample(image, split, folder.masks).mask).parent
    some = images[:: max(1, len(images) // TRIED)]
    for path in sorted(there, key=lambda path: (PurePosixPath(path).parent != expected, path)):
        if image.stem in PurePosixPath(path).name:
            pattern = _as_pattern(path, image, split)
            if len({_sample(*pair, pattern).mask for pair in some} & there) > len(some) / 2:
                return pattern
    return None


def _as_pattern(mask: str, image: _Image, split: Split) -> str:
    folder, _, name = f"/{mask}".rpartition("/")
    folder = f"{folder}/"
    if image.folder:
        folder = folder.replace(f"/{image.folder}", "/{dir}/")
    return (folder.replace(f"/{split}/", "/{split}/") + name.replace(image.stem, "{stem}", 1)).lstrip("/")


def _nothing(root: Path, folder: Folder, images: list[_Image]) -> str:
    why = f"; {len(images)} images match, but each is a mask or in no split file" if images else ""
    why = why or why_none(root, folder.images)
    return f"{root}: no images of format folder; expected {folder.images} (folder.images); found {content(root)}{why}"


def _masks_of(images: list[_Image], folder: Folder) -> dict[str, str]:
    """Where a mask of each image would be, in any split → the image."""
    return {_sample(image, split, folder.masks).mask: image.path for image in images for split in SPLITS}


def _check(folder: Folder) -> None:
    for knob, known in PLACEHOLDERS.items():
        pattern = getattr(folder, knob) or ""
        inside(f"folder.{knob}: {pattern}", pattern)
        unknown = set(re.findall(r"{(.*?)}", pattern)) - known
        if unknown:
            raise UserError(f"folder.{knob}: {pattern}: unknown {sorted(unknown)}; known here: {sorted(known)}")
    if not re.search(r"{(stem|name)}", folder.masks):
        raise UserError(f"folder.masks: {folder.masks}: needs {{stem}} or {{name}}, or all images share one mask")
    try:
        re.compile(folder.group or "")
    except re.error as error:
        raise UserError(f"folder.group: {folder.group}: not a regular expression: {error}") from None
    if folder.split_files and "{split}" in folder.images:
        raise UserError("folder: {split} in images and split_files both name the splits; set split_files: null")


def _files(root: Path, folder: Folder) -> Iterator[_Image]:
    """Every file that matches `folder.images`, read or not."""
    for split in splits_of(folder.images):
        for path, fixed in matches(root, folder.images.replace("{split}", split or "")):
            name = PurePosixPath(path)
            below, _, last = name.with_suffix("").as_posix().removeprefix(fixed).rpartition("/")
            below = f"{below}/" if below else ""
            group = _group(folder.group, below, last)
            yield _Image(path, split, below, last, group, name.suffix.lower() in IMAGE_SUFFIXES)


def _group(pattern: str | None, below: str, last: str) -> str:
    match = re.search(pattern, below + last) if pattern else None
    if match is None:
        return below.rstrip("/") or last
    return "_".join(match.groups("")) or match.group()


def _with_splits(root: Path, folder: Folder, images: list[_Image]) -> Iterator[tuple[_Image, Split]]:
    if not folder.split_files:
        yield from ((image, image.split or _drawn(image.group)) for image in images)
        return
    lists = {split: folder.split_files.replace("{split}", split) for split in SPLITS}
    if not any(os.path.lexists(root / file) for file in lists.values()):
        there = ", ".join(lists.values())
        raise UserError(
            f"folder.split_files: {folder.split_files}: none of {there} is in {root}; name text files that are, or null"
        )
    by_name: dict[str, list[_Image]] = {}
    for image in images:
        for name in {image.stem, image.folder + image.stem, image.folder + PurePosixPath(image.path).name}:
            by_name.setdefault(name, []).append(image)
    for split, file in lists.items():
        yield from ((image, split) for image in _named(root, file, by_name))


def _named(root: Path, file: str, by_name: dict[str, list[_Image]]) -> list[_Image]:
    wanted = lines(root, file)
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise UserError(
            f"{root / file}: {len(missing)} names match no image of folder.images: {', '.join(missing[:5])}"
        )
    for name in wanted:
        if len(found := by_name[name]) > 1:
            raise UserError(f"{root / file}: {name} is {found[0].path} or {found[1].path}; name its folder, too")
    return list(dict.fromkeys(by_name[name][0] for name in wanted))


def _drawn(group: str) -> Split:
    place = bucket(group)
    return "train" if place < 0.7 else "val" if place < 0.85 else "test"


def _sample(image: _Image, split: Split, masks: str) -> Sample:
    parts = {
        "split": split,
        "stem": image.stem,
        "name": PurePosixPath(image.path).name,
        "dir": image.folder.rstrip("/"),
    }
    mask = re.sub(r"{(\w+)}", lambda match: parts[match.group(1)], masks)
    name = (image.folder + image.stem).replace("/", "_")
    return Sample(name, split, image.path, PurePosixPath(mask.lstrip("/")).as_posix(), image.group)
