"""Pascal VOC 2007 to 2012 segmentation (Everingham et al. 2010), with SBD (Hariharan et al. 2011) if it is there.

The path is the folder that holds JPEGImages (VOCdevkit/VOC2012). With a folder SegmentationClassAug and its list
trainaug.txt, as `segraft fetch sbd` makes them and others hand them out, train is the 10,582 images of that list. The
labels of test are not public but for 2007's. Taxonomy `voc`.
"""

from __future__ import annotations

from pathlib import Path

from segraft.data.formats import Listing
from segraft.data.formats._tree import files, lines, listed, orphans
from segraft.params import Folder

LAYOUT = "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{split}.txt"
LISTS, IMAGE, MASK, AUGMENTED = (
    "ImageSets/Segmentation",
    "JPEGImages/{}.jpg",
    "SegmentationClass",
    "SegmentationClassAug",
)


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of VOC; every image stands alone."""
    augmented = lines(root, f"{LISTS}/trainaug.txt") if (root / AUGMENTED).is_dir() else []
    train, val, test = (lines(root, f"{LISTS}/{split}.txt") for split in ("train", "val", "test"))
    samples = listed("train", augmented or train, IMAGE, f"{AUGMENTED if augmented else MASK}/{{}}.png")
    samples += listed("val", val, IMAGE, f"{MASK}/{{}}.png")
    masked = set(files(root, MASK))
    samples += listed("test", (name for name in test if f"{name}.png" in masked), IMAGE, f"{MASK}/{{}}.png")
    folders = (MASK, AUGMENTED) if augmented else (MASK,)
    return Listing(tuple(samples), tuple(orphans(root, ("JPEGImages", ".jpg"), dict.fromkeys(folders, ".png"))))
