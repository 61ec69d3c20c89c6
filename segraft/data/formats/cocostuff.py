"""COCO-Stuff 164k (Caesar et al. 2018): COCO 2017 with stuffthingmaps, 171 classes; taxonomy `cocostuff`.

The masks may also lie in a folder `annotations`. The labels of test are not public.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import Listing
from segraft.data.formats._tree import join, pair
from segraft.params import Folder

LAYOUT = "images/{train2017,val2017}/*.jpg and stuffthingmaps/{train2017,val2017}/*.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of COCO-Stuff; every image stands alone."""
    masks = "stuffthingmaps" if (root / "stuffthingmaps").is_dir() else "annotations"
    return join(
        (
            pair(root, "train", ("images/train2017", (".jpg",)), (f"{masks}/train2017", ".png")),
            pair(root, "val", ("images/val2017", (".jpg",)), (f"{masks}/val2017", ".png")),
        )
    )
