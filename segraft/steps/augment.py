"""Step augment: the training set, as training will read it."""

from __future__ import annotations

from segraft.params import Augment, Data
from segraft.steps import In, Metrics, Out


def augment(
    data: Data,
    augment: Augment,
    source: In,
    target: In,
    taxonomies: In,
    manifest: In,
    packed_source: Out,
    packed_target: Out,
    sheet: Out,
) -> Metrics:
    """Map the labels to the target's classes, resize, simulate bad weather, paste rare objects, and pack into shards.

    Args:
        source: folder of the source dataset.
        target: folder of the target dataset.
        taxonomies: folder of taxonomy files.
        manifest: folder of the manifests that validate wrote.
        packed_source: packed source dataset.
        packed_target: packed target dataset.
        sheet: PNG of training crops and their labels.
    """
    from segraft.data.packed import PackedDataset
    from segraft.data.sheet import contact_sheet
    from segraft.data.sides import Given, pack_source, pack_target

    given = Given(data, augment, taxonomies, manifest)
    cards = {
        "source": pack_source(given, source, packed_source),
        "target": pack_target(given, source, target, packed_target),
    }
    packed = {"source": PackedDataset(packed_source), "target": PackedDataset(packed_target)}
    contact_sheet(packed, augment.seed, sheet)
    return {f"{name}_{split}": s.samples for name, card in cards.items() for split, s in card.splits.items()}
