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
    from segraft.data.streets.write import plan, write_scenes

    pairs = ((source, streets.source), (target, streets.target))
    plans = [plan(root, wanted, streets.seed, number, streets.size) for number, (root, wanted) in enumerate(pairs)]
    for root, _ in pairs:
        root.mkdir(parents=True)
    write_scenes([scene for scenes in plans for scene in scenes], "streets")
    return {"source_images": len(plans[0]), "target_images": len(plans[1])}
