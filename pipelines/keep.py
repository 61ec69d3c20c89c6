"""What runs on this machine leave behind: outputs of the newest good ones stay, for the cache to find; others go."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from segraft.steps import remove, write_json

KEEP = 5
"""Runs whose outputs are kept."""
RUNS, CACHE, GOOD = "runs", "cache", "good"
"""Folders of outputs, of kfp's cache entries, and of what each good run used."""


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """While it lasts no other process prunes the folder."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def ended_well(root: Path, run: str, keys: Collection[str]) -> None:
    """Remember which cache entries a run made or found."""
    write_json(root / GOOD / f"{run}.json", sorted(keys))


def prune(root: Path, keep: int) -> None:
    """Delete outputs that none of the newest `keep` good runs made or found; nothing while another process runs here.

    Args:
        root: holds runs/, cache/ and good/.
        keep: at least 1.
    """
    with (root / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        newest = sorted((root / GOOD).glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in newest[keep:]:
            file.unlink()
        keys = {key for file in newest[:keep] for key in json.loads(file.read_text(encoding="utf-8"))}
        entries = {file.stem: file for file in (root / CACHE).glob("*.json")}
        places = {place for key in keys & entries.keys() for place in _places(entries[key])}
        for key in entries.keys() - keys:
            entries[key].unlink()
        if (root / RUNS).is_dir():
            _clear(root / RUNS, places)
        for notes in (root / "notes").glob("*"):
            if not any(notes.iterdir()):
                notes.rmdir()


def _places(entry: Path) -> Iterator[Path]:
    """Where the artifacts of a cache entry lie on this machine."""
    waiting = [json.loads(entry.read_text(encoding="utf-8"))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and isinstance(value.get("uri"), str):
            yield Path(value["uri"])
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value


def _clear(folder: Path, places: Collection[Path]) -> None:
    """Remove what lies on the way to no place, task by task."""
    for child in folder.iterdir():
        inside = [place for place in places if place.is_relative_to(child)]
        if not inside:
            remove(child)
        elif not any(place.parent == child or place == child for place in inside):
            _clear(child, inside)
