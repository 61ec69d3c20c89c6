"""Step streets: the embedded procedural source and target."""

from __future__ import annotations

from segraft.params import Streets
from segraft.steps import Metrics, Out


def streets(streets: Streets, source: Out, target: Out) -> Metrics:
    """Generate street scenes in Cityscapes' folder layout: a large clear-day source, a small night-and-rain target.

    Args:
        source: folder of the source dataset.
        target: folder of the target dataset.
    """
