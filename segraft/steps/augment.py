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
    from segraft.data.packing import open_files, pack, pasted, simulated, spread
    from segraft.data.sheet import contact_sheet
    from segraft.data.taxonomy import kin, load_taxonomy
    from segraft.data.unlabelled import unlabelled

    classes = data.target.taxonomy if augment.source_classes == "target" else data.source.taxonomy
    source_files = open_files(source, data.source, classes, taxonomies, manifest / "source.parquet", augment)
    mixed_files = open_files(
        source, data.source, data.target.taxonomy, taxonomies, manifest / "source.parquet", augment
    )
    target_files = open_files(
        target, data.target, data.target.taxonomy, taxonomies, manifest / "target.parquet", augment
    )
    further = {
        "source": spread(mixed_files, augment.source_samples),
        "unlabelled": unlabelled(target_files, data.target, augment.unlabelled),
    }
    links = {name: kin(taxonomies, load_taxonomy(taxonomies, name)) for name in (classes, data.target.taxonomy)}
    cards = {
        "source": pack(source_files, packed_source, augment, simulated(source_files, augment), links[classes]),
        "target": pack(
            target_files, packed_target, augment, pasted(target_files, augment), links[data.target.taxonomy], further
        ),
    }
    packed = {"source": PackedDataset(packed_source), "target": PackedDataset(packed_target)}
    contact_sheet(packed, augment.seed, sheet)
    return {f"{name}_{split}": s.samples for name, card in cards.items() for split, s in card.splits.items()}
