"""Reading what a training step logged: training.json and history.jsonl (see docs/architecture.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segraft.params import parse_json, read_json

RUNS = ("pretrain", "finetune", "scratch")
POINTS = 200
"""Most points of a curve."""


@dataclass(frozen=True)
class Log:
    """One training run."""

    run: str
    training: dict[str, Any]
    """training.json"""
    history: list[dict[str, Any]]
    """the lines of history.jsonl; a run without steps has none"""

    def series(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of one scalar; more than `POINTS` are averaged down to that many."""
        points = np.array([(row["step"], row[key]) for row in self.history if row.get(key) is not None], float)
        if not len(points):
            return []
        parts = np.array_split(points, min(POINTS, len(points)))
        return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def read_logs(folder: Path) -> list[Log]:
    """The logs of pretrain, finetune and scratch, in this order, as far as they are there."""
    return [_read(folder / run) for run in RUNS if (folder / run / "training.json").is_file()]


def _read(folder: Path) -> Log:
    training, path = read_json(folder / "training.json"), folder / "history.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return Log(folder.name, training, [parse_json(line, f"{path}:{n}") for n, line in enumerate(lines, 1)])
