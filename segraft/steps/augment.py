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
    from segraft.data.joint import beyond_first, mixed, open_source, shares
    from segraft.data.manifest import read_rows
    from segraft.data.packed import PackedDataset
    from segraft.data.packing import open_files, pack, pasted, simulated
    from segraft.data.sheet import contact_sheet
    from segraft.data.taxonomy import kin, load_taxonomy
    from segraft.data.unlabelled import unlabelled

    classes = data.target.taxonomy if augment.source_classes == "target" else data.source.taxonomy
    rows = read_rows(manifest, "source")
    sources = open_source(source, data.source, classes, taxonomies, rows, augment)
    mixable = open_source(source, data.source, data.target.taxonomy, taxonomies, rows, augment)
    target_files = open_files(
        target, data.target, data.target.taxonomy, taxonomies, read_rows(manifest, "target"), augment.size
    )
    further = {
        "source": mixed(mixable, augment.source_samples),
        "unlabelled": unlabelled(target_files, data.target, augment.unlabelled),
    }
    links = {name: kin(taxonomies, load_taxonomy(taxonomies, name)) for name in (classes, data.target.taxonomy)}
    cards = {
        "source": pack(
            sources["train"],
            packed_source,
            augment,
            simulated(sources["train"], augment),
            links[classes],
            beyond_first(sources, augment),
            shares(data.source, sources),
        ),
        "target": pack(
            target_files, packed_target, augment, pasted(target_files, augment), links[data.target.taxonomy], further
        ),
    }
    packed = {"source": PackedDataset(packed_source), "target": PackedDataset(packed_target)}
    contact_sheet(packed, augment.seed, sheet)
    return {f"{name}_{split}": s.samples for name, card in cards.items() for split, s in card.splits.items()}
