"""Oxford-IIIT Pet (Parkhi et al. 2012), trimaps; taxonomy `pets`. It has no val: set `holdout`."""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import Listing
from segraft.data.formats._tree import lines, listed, orphans
from segraft.params import Folder

LAYOUT = "images/*.jpg, annotations/trimaps/*.png and annotations/{trainval,test}.txt"
IMAGE, MASK = "images/{}.jpg", "annotations/trimaps/{}.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of the pets; every image stands alone."""
    samples = listed("train", _names(root, "trainval"), IMAGE, MASK) + listed("test", _names(root, "test"), IMAGE, MASK)
    return Listing(tuple(samples), tuple(orphans(root, ("images", ".jpg"), {"annotations/trimaps": ".png"})))


def _names(root: Path, split: str) -> list[str]:
    """Each line is a name, then species and breed."""
    return [line.split()[0] for line in lines(root, f"annotations/{split}.txt")]
