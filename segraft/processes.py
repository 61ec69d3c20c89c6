"""How processes begin and end: a signal as an exit, children that do not outlive who started them, little garbage."""

from __future__ import annotations

import atexit
import ctypes
import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
BETWEEN_COLLECTIONS = 10_000
"""Objects; at Python's 700 a step that imports torch looks through what it has imported 900 times."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, which ends a pod, as SystemExit, so that `finally` is reached; the second one ends all at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only that one can listen
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def collect_rarely() -> None:
    """Garbage collection for a process that imports much, does its work and ends.

    What is still there at its end is left to the system, which frees it at once: Python would take 400,000 objects that
    torch brings apart one by one, for more than a CPU-second.
    """
    gc.set_threshold(BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)


def die_with_parent() -> None:
    """For `subprocess.Popen(preexec_fn=…)`: a parent killed with SIGKILL takes this process along (on Linux)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
