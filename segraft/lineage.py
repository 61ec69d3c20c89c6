"""Which versions of the data a run read, from dvc.lock; the file is only parsed, DVC itself is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segraft.errors import UserError
from segraft.params import read_yaml


@dataclass(frozen=True)
class Artifact:
    """A file or folder as dvc.lock has it."""

    path: str
    """relative to the folder of dvc.lock"""
    md5: str
    """DVC's own digest; ends in `.dir` for a folder"""


class Lock:
    """The stages of a dvc.lock; of a missing one, none.

    Raises:
        UserError: the file is not a dvc.lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_yaml(path) if path.exists() else {"stages": {}}
        if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
            raise UserError(f"{path}: not a dvc.lock: it has no stages; delete it and run `dvc repro`")
        self._stages: dict[str, dict[str, Any]] = content["stages"]
        odd = next((name for name, stage in self._stages.items() if not isinstance(stage, dict)), None)
        if odd is not None:
            raise UserError(f"{path}: not a dvc.lock: stage {odd} is no mapping; delete it and run `dvc repro`")

    def find(self, path: Path) -> Artifact | None:
        """The version of a path that some stage wrote or read."""
        wanted = path.resolve()
        every = (a for stage in self._stages for a in (*self.outs(stage), *self.deps(stage)))
        return next((a for a in every if (self.path.parent / a.path).resolve() == wanted), None)

    def read_by(self, stage: str, made_by: str) -> Artifact | None:
        """The first output of stage `made_by` that `stage` depends on."""
        made = set(self.outs(made_by))
        return next((a for a in self.deps(stage) if a in made), None)

    def deps(self, stage: str) -> list[Artifact]:
        """What a stage read."""
        return self._artifacts(stage, "deps")

    def outs(self, stage: str) -> list[Artifact]:
        """What a stage wrote."""
        return self._artifacts(stage, "outs")

    def _artifacts(self, stage: str, kind: str) -> list[Artifact]:
        entries = self._stages.get(stage, {}).get(kind, [])
        return [Artifact(entry["path"], entry["md5"]) for entry in entries if "md5" in entry]
