"""Checkpoints that survive a kill: written beside, synced, named last; the newest whole one is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from segraft.checkpoint import sha256, write_tensors
from segraft.steps import hold, remove

Tensors = Mapping[str, Tensor]
KEEP = 2
NAME = 16
"""Hex digits of a fingerprint that name its folder."""
STATE, SUMS = "state.json", "sha256.json"
NO_MATTER = "checkpoint_every"
"""The knob that changes nothing in what comes out."""


def decisive(content: Any) -> str:
    """What decides a run's result, as JSON to make a fingerprint of: how often the run is saved does not.

    Args:
        content: a card's dump, or a part of one.
    """
    return json.dumps(_without(content), sort_keys=True)


def _without(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without(value) for key, value in content.items() if key != NO_MATTER}
    return content


class CheckpointStore:
    """The checkpoints of one run in `work/<fingerprint>/step_00000042/`.

    Checkpoints of a run with other params or data lie in a folder of another fingerprint; they are deleted. What else
    lies in `work`, such as fetched shards, stays.

    Args:
        work: folder that outlives a kill.
        fingerprint: hex digest of all that decides the run's result.

    Raises:
        UserError: another process is training here; the message names its pid.
    """

    def __init__(self, work: Path, fingerprint: str) -> None:
        self._lock = hold(work, "training")
        self._folder = work / fingerprint[:NAME]
        self._folder.mkdir(exist_ok=True)
        for other in work.glob("[0-9a-f]" * NAME):
            if other != self._folder:
                if any(other.glob("step_*")):
                    print(f"{other}: checkpoints of a run with other params or data: deleted; this one begins anew")
                remove(other)
        for stray in self._folder.glob("*.tmp"):
            remove(stray)

    def save(self, step: int, parts: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`; a failure (disk full, a kill) leaves the earlier ones as they were."""
        final = self._folder / f"step_{step:08d}"
        temporary = final.with_suffix(".tmp")
        temporary.mkdir()
        try:
            for name, tensors in parts.items():
                write_tensors(temporary / f"{name}.safetensors", tensors)
            (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
            sums = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            (temporary / SUMS).write_text(json.dumps(sums), encoding="utf-8")
            for path in [*temporary.iterdir(), temporary]:
                _sync(path)
            if final.exists():  # the same step again: an interrupted epoch's end
                remove(final)
            temporary.rename(final)
            _sync(self._folder)
        finally:
            remove(temporary)
        for old in self._steps()[KEEP:]:
            remove(old)

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The newest whole checkpoint, (parts, state); a damaged one is named and passed over."""
        for folder in self._steps():
            if damage := _damage(folder):
                print(f"checkpoint {folder} is damaged ({damage}); trying the one before it")
                continue
            parts = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
            return parts, json.loads((folder / STATE).read_text(encoding="utf-8"))
        return None

    def close(self, finished: bool) -> None:
        """Let go of the folder; a finished run's checkpoints are deleted."""
        if finished:
            remove(self._folder)
        self._lock.close()

    def _steps(self) -> list[Path]:
        return sorted(self._folder.glob("step_????????"), reverse=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage(folder: Path) -> str:
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{SUMS} is missing or unreadable"
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            return f"{name} is missing or changed"
    return ""
