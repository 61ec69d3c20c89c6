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

from segraft.data.formats import SPLITS, Listing, Sample, bucket
from segraft.data.formats._tree import IMAGE_SUFFIXES, files, inside, lines, stem
from segraft.errors import UserError
from segraft.params import Folder, Split

LAYOUT = "what data.….folder says; see docs/own-data.md"
PLACEHOLDERS = {"images": {"split"}, "masks": {"split", "stem", "name", "dir"}, "split_files": {"split"}}


@dataclass(frozen=True)
class _Image:
    path: str
    split: Split | None
    folder: str
    """below the fixed part of the glob, "" or ending in a slash"""
    stem: str
    group: str


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of a folder of your own."""
    _check(folder)
    images = [image for split in _splits_of(folder.images) for image in _images(root, folder, split)]
    samples = [_sample(image, split, folder.masks) for image, split in _with_splits(root, folder, images)]
    masks = {sample.mask for sample in samples}
    samples = [sample for sample in samples if sample.image not in masks]
    known = masks | {image.path for image in images}
    if folder.split_files:  # they may leave images out, whose masks are no orphans
        known |= {_sample(image, split, folder.masks).mask for image in images for split in SPLITS}
    orphans = [mask for mask in _masks(root, folder.masks) if mask not in known]
    return Listing(tuple(samples), tuple(orphans), folder.encoding)


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


def _splits_of(pattern: str) -> tuple[Split | None, ...]:
    return SPLITS if "{split}" in pattern else (None,)


def _images(root: Path, folder: Folder, split: Split | None) -> Iterator[_Image]:
    for path, fixed in _glob(root, folder.images.replace("{split}", split or "")):
        name = stem(path, IMAGE_SUFFIXES)
        if name is not None:
            below, _, last = name.removeprefix(fixed).rpartition("/")
            below = f"{below}/" if below else ""
            yield _Image(path, split, below, last, _group(folder.group, below, last))


def _group(pattern: str | None, below: str, last: str) -> str:
    match = re.search(pattern, below + last) if pattern else None
    if match is None:
        return below.rstrip("/") or last
    return "_".join(match.groups("")) or match.group()


def _glob(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Files that match, and the part of the pattern before its first wildcard folder."""
    folders = PurePosixPath(pattern).parts
    first = next((i for i, part in enumerate(folders) if re.search(r"[*?{]", part)), len(folders) - 1)
    fixed = "".join(f"{part}/" for part in folders[:first])
    expression = re.compile(_regex("/".join(folders)), re.IGNORECASE)  # a mask.PNG is to be found, and named
    yield from ((fixed + path, fixed) for path in files(root, fixed) if expression.fullmatch(fixed + path))


def _regex(pattern: str) -> str:
    parts = {r"\*\*/": "(?:.+/)?", r"\*\*": ".*", r"\*": "[^/]*", r"\?": "[^/]", r"\{dir\}/": "(?:.+/)?"}
    parts |= {r"\{dir\}": ".*", r"\{stem\}": "[^/]+", r"\{name\}": "[^/]+"}
    return re.sub("|".join(map(re.escape, parts)), lambda match: parts[match.group()], re.escape(pattern))


def _masks(root: Path, pattern: str) -> Iterator[str]:
    for split in _splits_of(pattern):
        yield from (path for path, _ in _glob(root, pattern.replace("{split}", split or "")))


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
            raise UserError(
                f"{root / file}: {name} is {found[0].path} or {found[1].path}; write which, with its folder"
            )
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
    return Sample(name, split, image.path, re.sub("/+", "/", mask).lstrip("/"), image.group)
