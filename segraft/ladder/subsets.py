"""Label budgets: nested subsets of a packed dataset's train images, drawn sequence by sequence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segraft.data.mixing import PASTED
from segraft.data.packed import CARD, Packed, PackedDataset, ShardWriter, SplitCard
from segraft.steps import beside

SHARD_MB = 64


def order(groups: Sequence[str], seed: int) -> list[int]:
    """Indices of the images in the order in which they get their labels: budgets are prefixes of it, and so nested.

    Whole sequences come one after the other, for images of one sequence are alike, and a budget of a few images spread
    over all sequences would be worth more than one who labels a few sequences gets. Both the sequences and the images
    within each are shuffled.

    Args:
        groups: the sequence of each image.
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    images: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        images.setdefault(group, []).append(i)
    return [int(i) for name in rng.permutation(sorted(images)) for i in rng.permutation(images[name])]


def budget(images: int, share: float) -> int:
    """How many of the images have labels: at least one."""
    return max(1, round(share * images))


def pack_subset(target: Path, share: float, seed: int, folder: Path) -> Path:
    """A packed dataset in which a share of the train images has labels; the others are among the unlabelled.

    Copies with pasted objects are left out: they show labels of two images, of which one may have none here.

    Args:
        target: the packed target.
        share: of its train images.
        seed: which.
        folder: where to write; left as it is if it is there.
    """
    if folder.exists():
        return folder
    packed = PackedDataset(target)
    train = packed.split("train")
    groups = {i: sample.group for i, sample in enumerate(train) if PASTED not in sample.tags}
    own = list(groups)
    chosen = [own[i] for i in order(list(groups.values()), seed)]
    count = budget(len(own), share)
    labelled, rest = sorted(chosen[:count]), sorted(chosen[count:])
    splits = dict(packed.card.splits)
    with beside(folder) as made:
        made.mkdir()
        for name in set(splits) - {"train", "unlabelled"}:
            for shard in splits[name].shards:
                (made / shard.file).symlink_to((target / shard.file).absolute())
        splits["train"] = _write(made, "train", packed, (train[i] for i in labelled))
        bare = (replace(s, mask=np.full_like(s.mask, packed.card.ignore_index)) for s in (train[i] for i in rest))
        splits["unlabelled"] = _write(made, "unlabelled", packed, (*bare, *packed.split("unlabelled")))
        card = packed.card.model_copy(update={"splits": splits})
        (made / CARD).write_text(json.dumps(card.model_dump()), encoding="utf-8")
    return folder


def _write(folder: Path, split: str, packed: PackedDataset, samples: Iterable[Packed]) -> SplitCard:
    writer = ShardWriter(folder, split, len(packed.card.classes), packed.card.codec, SHARD_MB)
    for sample in samples:
        writer.add(sample)
    return writer.close()
