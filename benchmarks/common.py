"""Shared by the benchmarks: files to read, interleaved timing, and the line that says what machine it was."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from segraft.data.streets.render import render
from segraft.machine import cores

SIZE = (360, 480)


def machine() -> str:
    """One line on the machine."""
    info = Path("/proc/cpuinfo").read_text()
    cpu = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    extras = [name for name in ("avx512f", "amx_bf16") if name in info]
    return f"{cores()} cores, {cpu}, {' '.join(extras)}"


def interleaved(
    work: dict[str, Callable[[], object]], rounds: int, before: dict[str, Callable[[], object]] | None = None
) -> dict[str, float]:
    """Median seconds of each, turn by turn so that a busy moment hits all alike; one unmeasured round first.

    `before` is called, unmeasured, ahead of each turn of the one it is named after.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, do in work.items():
            if before and name in before:
                before[name]()
            started = time.perf_counter()
            do()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def report(times: dict[str, float], peer: str, things: float, unit: str) -> None:
    """Print rates (`things` a measured call) and ratios to `peer`."""
    print(machine())
    for name, seconds in times.items():
        print(f"{name:<44}{things / seconds:10.1f} {unit}/s{times[peer] / seconds:9.2f} x {peer}")


def write_files(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """`count` street scenes of 360×480 as PNG, masks holding label ids: (image, mask) paths."""
    pairs = []
    for index in range(count):
        frame = render(1, (index,), SIZE)
        image, mask = folder / f"{index:04d}.png", folder / f"{index:04d}_mask.png"
        cv2.imwrite(str(image), frame.image[..., ::-1])
        cv2.imwrite(str(mask), frame.labels)
        pairs.append((image, mask))
    return pairs
