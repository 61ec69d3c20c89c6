"""ACDC (Sakaridis et al. 2021): Cityscapes' classes in fog, at night, in rain and in snow; taxonomy `cityscapes`.

Masks are `_gt_labelTrainIds`, or `_gt_labelIds` if there is none of those. The labels of test are not public.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import SPLITS, Listing
from segraft.data.formats._tree import files, join, pair
from segraft.data.taxonomy import Encoding
from segraft.params import Folder

LAYOUT = "rgb_anon/{condition}/{split}/{sequence}/*_rgb_anon.png and gt/{condition}/{split}/…/*_gt_labelTrainIds.png"
TRAIN_IDS, IDS = "_gt_labelTrainIds.png", "_gt_labelIds.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of ACDC; a group is a recording, such as GOPR0475."""
    encoding: Encoding = "trainIds"
    masks = files(root, "gt")
    if any(mask.endswith(IDS) for mask in masks) and not any(mask.endswith(TRAIN_IDS) for mask in masks):
        encoding = "ids"
    ending = TRAIN_IDS if encoding == "trainIds" else IDS
    return join((_part(root, condition, ending) for condition in ("fog", "night", "rain", "snow")), encoding)


def _part(root: Path, condition: str, ending: str) -> Listing:
    def describe(name: str) -> tuple[str, tuple[str, ...]]:
        return name.partition("/")[0], (condition,)

    return join(
        pair(
            root,
            split,
            (f"rgb_anon/{condition}/{split}", ("_rgb_anon.png",)),
            (f"gt/{condition}/{split}", ending),
            describe,
        )
        for split in SPLITS
    )
