"""Sealed folders: manifest.json lists every file with its size and sha256; the seal is the sha256 of that list.

The manifest alone finds damage. The seal, kept apart from the folder, also finds a replaced manifest, so nothing in the
folder has to be trusted, opened or imported before `verify` has passed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segraft.checkpoint import sha256
from segraft.errors import UserError

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 20
SHOWN = 10


def seal(folder: Path) -> str:
    """Write the manifest of a folder's files, whatever it was before; returns the seal, a hex sha256."""
    (folder / MANIFEST).unlink(missing_ok=True)
    problems = [f"{name}: {what}" for name, what in _scan(folder) if what]
    assert not problems, f"{folder}: cannot be sealed: {problems}"
    files = {name: _fingerprint(folder / name) for name, _ in sorted(_scan(folder))}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}, indent=1) + "\n", encoding="utf-8")
    return sha256(folder / MANIFEST)


def verify(folder: Path, expected: str | None = None) -> None:
    """Check that a folder holds exactly what was sealed: no file more, none less, each with the bytes it had.

    Links and special files are never followed or opened, and a file that is not in the manifest is never read.

    Args:
        folder: a sealed folder.
        expected: the seal that the manifest must have; None trusts the manifest, which finds damage but no forgery.

    Raises:
        UserError: it does not; the message names the files.
    """
    found = dict(_scan(folder)) if folder.is_dir() else {}
    if found.get(MANIFEST, "missing"):
        raise UserError(f"{folder}: not a sealed folder: {MANIFEST} is {found.get(MANIFEST, 'missing')}")
    if (folder / MANIFEST).stat().st_size > LARGEST_MANIFEST:
        raise UserError(f"{folder}/{MANIFEST}: larger than {LARGEST_MANIFEST} bytes: not a manifest")
    text = (folder / MANIFEST).read_bytes()
    if expected is not None and hashlib.sha256(text).hexdigest() != expected:
        raise UserError(f"{folder}/{MANIFEST}: replaced or damaged: its sha256 is not the one on record, {expected}")
    problems = list(_differences(folder, _listed(folder, text), found))
    if problems:
        shown = "; ".join(problems[:SHOWN]) + (f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else "")
        raise UserError(f"{folder}: not what was sealed: {shown}")


def _scan(folder: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, what is wrong with it) of everything below; names are relative, with forward slashes."""
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    if not children and prefix:
        yield prefix, "an empty folder"
    for entry in children:
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(Path(entry.path), f"{name}/")
        elif entry.is_symlink():
            yield name, "a symbolic link"
        else:
            yield name, "" if entry.is_file(follow_symlinks=False) else "not a regular file"


def _listed(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
        files = manifest["files"]
        known = manifest["format"] == 1 and all(set(entry) == {"size", "sha256"} for entry in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known = False
    if not known:
        raise UserError(f"{folder}/{MANIFEST}: not a manifest of format 1")
    return dict(files)


def _differences(folder: Path, listed: dict[str, Any], found: dict[str, str]) -> Iterator[str]:
    for name in sorted((found.keys() | listed.keys()) - {MANIFEST}):
        if name not in listed:
            yield f"{name}: extra{', ' if found[name] else ''}{found[name]}"
        elif name not in found:
            yield f"{name}: missing"
        elif found[name]:
            yield f"{name}: {found[name]}"
        elif (size := (folder / name).stat().st_size) != listed[name]["size"]:
            yield f"{name}: {size} bytes, sealed with {listed[name]['size']}"
        elif sha256(folder / name) != listed[name]["sha256"]:
            yield f"{name}: its sha256 differs"


def _fingerprint(path: Path) -> dict[str, int | str]:
    return {"size": path.stat().st_size, "sha256": sha256(path)}
