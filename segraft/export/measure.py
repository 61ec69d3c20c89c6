"""What each runtime gives on real images: speed, mIoU, and how often it says what PyTorch says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segraft.data.packed import Packed
from segraft.evaluation.confusion import ConfusionMatrix
from segraft.evaluation.scores import miou
from segraft.progress import progress
from segraft.serving.runtime import Runtime


@dataclass
class Tally:
    """What one runtime did so far."""

    matrix: ConfusionMatrix
    seconds: list[float] = field(default_factory=list)
    same: int = 0
    pixels: int = 0

    def add(self, sample: Packed, ids: NDArray[np.uint8], wanted: NDArray[np.uint8], seconds: float) -> None:
        """One image."""
        self.matrix.update(sample.mask, ids)
        self.seconds.append(seconds)
        self.same += int(np.count_nonzero(ids == wanted))
        self.pixels += ids.size

    @property
    def latency_ms(self) -> float:
        """Median."""
        return 1e3 * statistics.median(self.seconds)

    @property
    def agreement(self) -> float:
        """Share of pixels that got PyTorch's class."""
        return self.same / self.pixels

    @property
    def miou(self) -> float:
        """Mean IoU, 0…1; NaN without a labelled pixel."""
        return float(miou(self.matrix.matrix))


def measure(
    reference: Runtime, runtimes: Mapping[str, Runtime], samples: Sequence[Packed]
) -> tuple[Tally, dict[str, Tally]]:
    """Ask every runtime for every image, turn by turn, so that a busy moment of the machine hits all alike.

    Args:
        reference: what the others are to agree with.
        runtimes: by name; warm, that is, they have answered an image of the first one's size.
        samples: labelled images.

    Returns:
        The reference's tally and theirs.
    """
    classes = len(reference.card.classes)
    theirs = {name: Tally(ConfusionMatrix(classes)) for name in runtimes}
    ours = Tally(ConfusionMatrix(classes))
    for sample in progress(samples, "compare runtimes"):
        wanted, seconds = _timed(reference, sample)
        ours.add(sample, wanted, wanted, seconds)
        for name, runtime in runtimes.items():
            ids, seconds = _timed(runtime, sample)
            theirs[name].add(sample, ids, wanted, seconds)
    return ours, theirs


def _timed(runtime: Runtime, sample: Packed) -> tuple[NDArray[np.uint8], float]:
    started = time.perf_counter()
    ids = runtime.predict(sample.image[None]).ids[0]
    return ids, time.perf_counter() - started
