"""The two packed datasets, the source's and the target's, from validated files; the source's also in parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segraft.data.joint import beyond_first, mixed, open_source, shares
from segraft.data.manifest import read_rows
from segraft.data.packed import CARD, DatasetCard, PackedDataset, Shard, SplitCard
from segraft.data.packing import open_files, pack, pasted, simulated
from segraft.data.taxonomy import kin, load_taxonomy
from segraft.data.unlabelled import unlabelled
from segraft.params import Augment, Data
from segraft.steps import write_json


@dataclass(frozen=True)
class Given:
    """What both sides are made by."""

    data: Data
    augment: Augment
    taxonomies: Path
    """folder of taxonomy files"""
    manifest: Path
    """folder of the manifests"""

    def links(self, classes: str) -> dict[str, tuple[tuple[str, str], ...]]:
        """Other taxonomies, and how their classes go with those of `classes`."""
        return kin(self.taxonomies, load_taxonomy(self.taxonomies, classes))


def pack_source(given: Given, source: Path, folder: Path, part: tuple[int, int] = (0, 1)) -> DatasetCard:
    """Pack the source, or the k-th of n parts of each split of it, into `folder`."""
    classes = given.data.target.taxonomy if given.augment.source_classes == "target" else given.data.source.taxonomy
    rows = read_rows(given.manifest, "source")
    opened = open_source(source, given.data.source, classes, given.taxonomies, rows, given.augment)
    return pack(
        opened["train"],
        folder,
        given.augment,
        simulated(opened["train"], given.augment),
        given.links(classes),
        beyond_first(opened, given.augment),
        shares(given.data.source, opened),
        part,
    )


def pack_target(given: Given, source: Path, target: Path, folder: Path) -> DatasetCard:
    """Pack the target, the source's part of mixed batches, and images without labels into `folder`."""
    data, augment, classes = given.data, given.augment, given.data.target.taxonomy
    rows = read_rows(given.manifest, "source")
    sources = open_source(source, data.source, classes, given.taxonomies, rows, augment)
    rows = read_rows(given.manifest, "target")
    files = open_files(target, data.target, classes, given.taxonomies, rows, augment.size)
    further = {
        "source": mixed(sources, augment.source_samples),
        "unlabelled": unlabelled(files, data.target, augment.unlabelled),
    }
    return pack(files, folder, augment, pasted(files, augment), given.links(classes), further)


def join(parts: Sequence[Path], folder: Path) -> DatasetCard:
    """One packed dataset of its n parts: the same samples in the same order; shards are linked where that is possible.

    Args:
        parts: folders that `pack_source` wrote with part (0, n) … (n - 1, n), in this order.
        folder: the dataset to write.
    """
    cards = [PackedDataset(part).card for part in parts]
    alike = [card.model_dump(exclude={"splits"}) for card in cards]
    assert all(one == alike[0] for one in alike), "parts of one dataset"
    folder.mkdir(parents=True)
    splits = {}
    for split in cards[0].splits:
        held = [card.splits[split] for card in cards]
        splits[split] = SplitCard(
            shards=tuple(_linked(split, parts, held, folder)),
            samples=sum(one.samples for one in held),
            class_pixels=tuple(map(sum, zip(*(one.class_pixels for one in held), strict=True))),
            shown_pixels=tuple(map(sum, zip(*(one.shown_pixels for one in held), strict=True))),
        )
    card = cards[0].model_copy(update={"splits": splits})
    write_json(folder / CARD, card.model_dump())
    return card


def _linked(split: str, parts: Sequence[Path], held: Sequence[SplitCard], folder: Path) -> Iterator[Shard]:
    shards = [(part / shard.file, shard) for part, card in zip(parts, held, strict=True) for shard in card.shards]
    for number, (path, shard) in enumerate(shards):
        file = f"{split}-{number:05d}.arrow"
        try:
            os.link(path, folder / file)
        except OSError:  # on another file system, or one without links
            shutil.copyfile(path, folder / file)
        yield shard.model_copy(update={"file": file})
