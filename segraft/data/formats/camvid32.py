"""CamVid (Brostow et al. 2009), the original: 701 images of 720×960, masks in 32 colours.

Taxonomy `camvid` reads the colours as SegNet's 11 classes, taxonomy `camvid32` as the 31 that were drawn.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from segraft.data.formats import Listing
from segraft.data.formats._tree import pair
from segraft.data.formats.camvid import describe
from segraft.params import Folder, Split

LAYOUT = "701_StillsRaw_full/{sequence}_{frame}.png and LabeledApproved_full/{sequence}_{frame}_L.png"


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of CamVid; a group is a sequence, such as 0001TP."""
    found = pair(root, "train", ("701_StillsRaw_full", (".png",)), ("LabeledApproved_full", "_L.png"), describe)
    samples = tuple(replace(s, split=segnet_split(s.id)) for s in found.samples)
    return Listing(samples, found.orphans, "colors")


def segnet_split(name: str) -> Split:
    """The split of SegNet (367 train, 101 val, 233 test), which goes by sequence and frame."""
    sequence, _, rest = name.partition("_")
    frame = int(re.sub(r"\D", "", rest) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"
