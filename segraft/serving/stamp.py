"""Which model answers: its name, its version, and what its files are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segraft.checkpoint import sha256


@dataclass(frozen=True)
class Stamp:
    """Which model answers: the header X-Segraft-Model of every response.

    Attributes:
        name: of the model.
        version: registered version, or "" for a folder of its own.
        sha256: of the model folder.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version or 'unregistered'};sha256={self.sha256}"


def folder_sha256(folder: Path) -> str:
    """Hex digest over the names and contents of all files of a model folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
