"""ADE20K scene parsing benchmark (Zhou et al. 2017), 150 classes; taxonomy `ade20k`.

The labels of test are not public.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import Listing
from segraft.data.formats._tree import join, pair
from segraft.params import Folder

LAYOUT = "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of ADE20K; every image stands alone."""
    return join(
        (
            pair(root, "train", ("images/training", (".jpg",)), ("annotations/training", ".png")),
            pair(root, "val", ("images/validation", (".jpg",)), ("annotations/validation", ".png")),
        )
    )
