"""What the planner asks the machine: how large a batch, and how fast, by real steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segraft.errors import UserError
from segraft.machine import CGROUP
from segraft.params import Training
from segraft.progress import progress
from segraft.training.loop import Run

FIRST_BATCH, LAST_BATCH = 2, 64
TIMED = 3
"""Steps of which the fastest counts, after one that warms up: other work on the machine only ever slows."""
GAIN = 0.1
"""By how much a doubled batch must speed things up for the search to go on, twice in a row."""
NEAR = 0.25
"""How much slower than the fastest a smaller batch may be: it has twice the steps for the same images."""
ROOM = 0.8
"""Share of the free memory that may be used."""


@dataclass(frozen=True)
class Trial:
    """A batch size as it ran."""

    batch: int
    images_per_second: float
    memory_mb: float
    """of the process, or on the GPU, after the steps"""


class NoStore:
    """Where a probe's checkpoints go: nowhere."""

    def save(self, step: int, parts: Any, state: Any) -> None:
        """Write nothing."""

    def load(self) -> None:
        """There is nothing."""

    def close(self, finished: bool) -> None:
        """Nothing to let go of."""


class Probe(Run):
    """A training run of a few steps of which only time, memory and loss are wanted."""

    def losses_at(self, factors: Sequence[float], what: str) -> list[float]:
        """The loss of one step after the other, its learning rates multiplied with the factor of each.

        It ends early when a loss is not a number.
        """
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        losses: list[float] = []
        for batch, factor in zip(
            self.loader.batches(0, len(factors)), progress(factors, what, unit="step"), strict=True
        ):
            for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak * factor
            self._step(batch)
            losses.append(float(self._losses.pop()))
            if not math.isfinite(losses[-1]):
                break
        return losses

    @torch.no_grad()
    def losses_untouched(self, steps: int, what: str) -> list[float]:
        """The losses of as many batches, nothing learned between them."""
        self.model.train()
        batches = progress(self.loader.batches(0, steps), what, total=steps, unit="step")
        return [float(self._labels_loss(batch)[0]) for batch in batches]


Make = Callable[[Training, int], Probe]
"""(knobs, steps) → a probe on a fresh copy of the network."""


def bare(training: Training, steps: int) -> Training:
    """The knobs of a probe: all layers learn at a constant rate, and nothing but the labels' loss is added."""
    update = {"epochs": 1, "steps_per_epoch": steps, "schedule": "constant", "warmup": "none", "warmup_steps": 0}
    update |= {"freeze": "none" if training.freeze == "gradual" else training.freeze, "ema": 0.0, "l2_sp": 0.0}
    update |= {"distill": training.distill.model_copy(update={"teacher": None})}
    update |= {"self_train": training.self_train.model_copy(update={"weight": 0.0})}
    return training.model_copy(update=update)


def try_batches(make: Make, training: Training, most: int, device: torch.device) -> list[Trial]:
    """Run steps at 2, 4, 8, … until memory ends, a larger batch no longer pays, or there are no more images.

    Args:
        make: makes a probe.
        training: the knobs.
        most: largest batch size to try, at least 2.
        device: where the probe runs.

    Raises:
        UserError: the smallest batch does not fit.
    """
    limit = ROOM * free_memory_mb(device) + _used_mb(device)
    base, trials = _used_mb(device), list[Trial]()
    sizes = [2**power for power in range(1, 20) if FIRST_BATCH <= 2**power <= max(FIRST_BATCH, min(most, LAST_BATCH))]
    for size in progress(sizes, "find the batch size", unit="size"):
        if trials and base + 2 * (trials[-1].memory_mb - base) > limit:
            break
        try:
            trials.append(_try(make(training.model_copy(update={"batch_size": size}), 1 + TIMED), size, device))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if not trials:
                raise UserError(
                    f"{size} crops a batch do not fit the memory of {device}: make augment.crop smaller, or take a "
                    "smaller encoder"
                ) from None
            break
        speeds = [trial.images_per_second for trial in trials]
        if len(speeds) > 2 and max(speeds[-2:]) < (1 + GAIN) * max(speeds[:-2]):
            break
    return trials


def _try(probe: Probe, size: int, device: torch.device) -> Trial:
    seconds = []
    for _ in range(1 + TIMED):
        started = time.perf_counter()
        probe.losses_at([1.0], f"batch {size}")
        seconds.append(time.perf_counter() - started)
    return Trial(size, round(size / min(seconds[1:]), 3), round(_used_mb(device), 1))


def best_batch(trials: Sequence[Trial], least: int) -> Trial:
    """The smallest batch of at least `least` images that is within a quarter of the fastest of these."""
    allowed = [trial for trial in trials if trial.batch >= least] or list(trials[-1:])
    fastest = max(trial.images_per_second for trial in allowed)
    return next(trial for trial in allowed if trial.images_per_second >= (1 - NEAR) * fastest)


def free_memory_mb(device: torch.device, cgroup: Path = CGROUP) -> float:
    """MiB that are free for this process: on the GPU, or in the machine and within its container's limit."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0] / 2**20)
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return max(0.0, free / 2**20)


def _used_mb(device: torch.device) -> float:
    """MiB that are held now: the last step's peak, for freed blocks are kept (`device.keep_freed_memory`)."""
    if device.type == "cuda":
        return float(torch.cuda.memory_reserved() / 2**20)
    import psutil

    return float(psutil.Process().memory_info().rss / 2**20)
