"""What is written down while training: history, the machine's load, and a signal to stop."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

INTERVAL = 1.0


class Stop:
    """Turns the first SIGTERM or SIGINT into a wish; the second ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_wish() -> Iterator[Stop]:
    """Listen for SIGTERM and SIGINT (only the main thread can)."""
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop._handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def system_log(path: Path) -> Iterator[None]:
    """Write this process's CPU and memory, and the GPU's, to a new JSON-lines file once a second."""
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(path, done), name="system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _sample(path: Path, done: threading.Event) -> None:
    import psutil

    process = psutil.Process()
    process.cpu_percent()
    with path.open("w", encoding="utf-8") as file:
        while not done.wait(INTERVAL):
            file.write(json.dumps(_reading(process)) + "\n")
            file.flush()


def _reading(process: Any) -> dict[str, float]:
    import torch

    memory = process.memory_info().rss / 2**20
    reading = {"time": time.time(), "cpu_percent": process.cpu_percent(), "memory_mb": round(memory, 1)}
    if torch.cuda.is_available():
        reading["gpu_memory_mb"] = round(torch.cuda.memory_reserved() / 2**20, 1)
    return reading


def peak_memory_mb() -> float:
    """The process's largest resident size so far, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
