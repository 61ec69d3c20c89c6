"""How processes end together: a signal as an exit, and children that do not outlive who started them."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


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


def die_with_parent() -> None:
    """For `subprocess.Popen(preexec_fn=…)`: a parent killed with SIGKILL takes this process along (on Linux)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
