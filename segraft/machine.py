"""How much of the machine is ours."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = CGROUP) -> int:
    """CPU cores that this process may use, at least 1: those it is bound to, and no more than its container's limit.

    A pod that is limited to two CPUs sees all of its node's; with a thread for each of them it would only be throttled.

    Args:
        cgroup: where the kernel tells the limit (version 2 or 1).
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(bound, math.ceil(quota))) if quota else bound


def _quota(cgroup: Path) -> float:
    """CPUs' worth of time a second; 0 for no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            share, period = (cgroup / "cpu.max").read_text().split()
        else:
            share, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(0.0, int(share) / int(period))
    except (OSError, ValueError):  # no cgroup, or "max"
        return 0.0
