"""One trial of a search: the finetune step in a process of its own, watched through its checkpoints.

The step knows nothing of being watched: at the end of each epoch its checkpoint says the mIoU on val so far, and
SIGTERM makes it stop after the next step. It does not outlive who watches it, however that one ends. A trial that was
killed goes on from there, for it is known by its changes.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segraft.errors import UserError
from segraft.processes import die_with_parent
from segraft.steps import remove

Report = Callable[[int, float], bool]
"""(epoch, mIoU on val) → whether the trial is to go on."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""How a step ends that a signal stopped, its checkpoint written."""
POLL = 0.5
"""Seconds between two looks at the checkpoints."""


@dataclass(frozen=True)
class Bench:
    """What all trials share."""

    params: Path
    """params.yaml"""
    overrides: tuple[str, ...]
    dataset: Path
    pretrained: Path
    folder: Path
    """where trials keep their work and their logs"""


def run_trial(bench: Bench, changes: Sequence[str], report: Report) -> dict[str, Any] | None:
    """Train with some of finetune's knobs changed.

    Args:
        bench: what is shared.
        changes: KEY=VALUE of the section finetune.
        report: is told of each epoch once, also of those before a kill.

    Returns:
        training.json of the run; None if `report` gave it up.

    Raises:
        UserError: the training failed; its log is named.
    """
    place = bench.folder / hashlib.sha256(json.dumps(sorted(changes)).encode()).hexdigest()[:16]
    done = place / "log" / "training.json"
    place.mkdir(parents=True, exist_ok=True)
    if done.exists():  # of a call that ended before anyone took note: there is nothing to save by giving it up
        for epoch, miou in enumerate(_epochs(place), 1):
            report(epoch, miou)
    elif not _watched(bench, place, changes, report):
        remove(place / "work")
        return None
    training: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
    remove(place / "weights")
    return training


def _watched(bench: Bench, place: Path, changes: Sequence[str], report: Report) -> bool:
    """Whether the step ran to its end."""
    paths = {"dataset": bench.dataset, "pretrained": bench.pretrained, "work": place / "work"}
    paths |= {"weights": place / "weights", "log": place / "log"}
    command = [sys.executable, "-m", "segraft", "finetune", "--params", str(bench.params)]
    for override in (*bench.overrides, *(f"finetune.{change}" for change in changes)):
        command += ["-S", override]
    for name, path in paths.items():
        command += [f"--{name}", str(path)]
    with (place / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=die_with_parent)
        try:
            wanted = _follow(process, place, report)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            status = process.wait()
    if wanted and status in STOPPED:  # whoever told the step to stop means the search: it goes on from here, too
        raise SystemExit(status)
    if wanted and status:
        raise UserError(f"trial {' '.join(changes)}: {_last_line(place / 'output.txt')} ({place / 'output.txt'})")
    return wanted


def _follow(process: subprocess.Popen[bytes], place: Path, report: Report) -> bool:
    told = 0
    while True:
        ended = process.poll() is not None
        epochs = _epochs(place)
        for epoch in range(told, len(epochs)):
            if not report(epoch + 1, epochs[epoch]):
                return False
        told = max(told, len(epochs))
        if ended:
            return True
        time.sleep(POLL)


def _epochs(place: Path) -> list[float]:
    """The mIoU on val of each epoch so far, from the log of an ended run or the newest checkpoint."""
    log = place / "log" / "history.jsonl"
    try:
        if log.exists():
            history = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        else:
            states = sorted(place.glob("work/*/step_????????/state.json"))
            history = json.loads(states[-1].read_text(encoding="utf-8"))["history"] if states else []
    except (FileNotFoundError, json.JSONDecodeError):  # it was replaced while we looked
        return []
    return [row["val_miou"] for row in history if "val_miou" in row]


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
