"""Patterns of `format: folder`: the files that they match, and what is there where they match no image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from segraft.data.formats import SPLITS
from segraft.data.formats._tree import IMAGE_SUFFIXES, files
from segraft.params import Split


def splits_of(pattern: str) -> tuple[Split | None, ...]:
    """The splits that the pattern stands for; None: it does not say."""
    return SPLITS if "{split}" in pattern else (None,)


def matches(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Files that match, and the part of the pattern before its first wildcard folder."""
    folders = PurePosixPath(pattern).parts
    first = next((i for i, part in enumerate(folders) if re.search(r"[*?{]", part)), len(folders) - 1)
    fixed = "".join(f"{part}/" for part in folders[:first])
    expression = re.compile(_regex("/".join(folders)), re.IGNORECASE)  # a mask.PNG is to be found, and named
    yield from ((fixed + path, fixed) for path in files(root, fixed) if expression.fullmatch(fixed + path))


def every_match(root: Path, pattern: str) -> list[str]:
    """Files that match for any split."""
    filled = (pattern.replace("{split}", split or "") for split in splits_of(pattern))
    return [path for one in filled for path, _ in matches(root, one)]


def why_none(root: Path, pattern: str) -> str:
    """Why `folder.images` finds no image that is read, to be appended to a sentence; "" if it cannot be told."""
    for where, other in _others(pattern):
        images = [path for path in every_match(root, other) if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES]
        if images:
            return f"; {len(images)} image files {where}, for example {images[0]}: use {other}"
    unread = Counter(PurePosixPath(path).suffix for path in every_match(root, pattern))
    if not unread:
        return ""
    endings = ", ".join(suffix or "no suffix" for suffix, _ in unread.most_common(3))
    return f"; {unread.total()} files match but end in {endings}; read are {', '.join(IMAGE_SUFFIXES)}"


def _others(pattern: str) -> Iterator[tuple[str, str]]:
    """Patterns that may have been meant, and where they look."""
    head, slash, last = pattern.rpartition("/")
    if "{split}" not in pattern:
        yield "lie in a folder for each split", f"{head}{slash}{{split}}/{last}"
    if "**" not in pattern:
        yield "lie deeper", f"{head}{slash}**/{last}"
    if "{split}/" in pattern:
        yield "lie in no folder of a split", pattern.replace("{split}/", "")


def _regex(pattern: str) -> str:
    parts = {r"\*\*/": "(?:.+/)?", r"\*\*": ".*", r"\*": "[^/]*", r"\?": "[^/]", r"\{dir\}/": "(?:.+/)?"}
    parts |= {r"\{dir\}": ".*", r"\{stem\}": "[^/]+", r"\{name\}": "[^/]+"}
    return re.sub("|".join(map(re.escape, parts)), lambda match: parts[match.group()], re.escape(pattern))
