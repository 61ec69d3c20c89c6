"""BDD100K semantic segmentation (Yu et al. 2020), 10k images in Cityscapes' trainIds; taxonomy `cityscapes`.

Every image is from a drive of its own. The labels of test are not public. Weather and time of day are in another
download of the dataset and are not read.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import SPLITS, Listing
from segraft.data.formats._tree import join, pair
from segraft.params import Folder

LAYOUT = "images/10k/{split}/*.jpg and labels/sem_seg/masks/{split}/*.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of BDD100K."""
    parts = (
        pair(root, split, (f"images/10k/{split}", (".jpg",)), (f"labels/sem_seg/masks/{split}", ".png"))
        for split in SPLITS
    )
    return join(parts, "trainIds")
