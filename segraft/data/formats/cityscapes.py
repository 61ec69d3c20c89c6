"""Cityscapes (Cordts et al. 2016), fine annotations; the procedural streets are written in this layout too.

The city is a condition there (night, rain …), and becomes tags. The official test cities are left out: their public
masks are dummies. `leftImg8bit` of a split is paired with `gtFine` by name; taxonomy `cityscapes`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from segraft.data.formats import SPLITS, Listing
from segraft.data.formats._tree import join, pair
from segraft.params import Folder

LAYOUT = "leftImg8bit/{split}/{city}/*_leftImg8bit.png and gtFine/{split}/{city}/*_gtFine_labelIds.png"
HIDDEN = {"berlin", "bielefeld", "bonn", "leverkusen", "mainz", "munich"}
CONDITIONS: dict[str, tuple[str, ...]] = {city: (city,) for city in ("clear", "dusk", "night", "rain", "fog", "snow")}
CONDITIONS |= dict.fromkeys(("night-rain", "nightrain"), ("night", "rain"))


def listing(root: Path, folder: Folder) -> Listing:
    """Samples of Cityscapes; a group is a recording, such as aachen_000000."""
    parts = [
        pair(
            root,
            split,
            (f"leftImg8bit/{split}", ("_leftImg8bit.png",)),
            (f"gtFine/{split}", "_gtFine_labelIds.png"),
            _describe,
        )
        for split in SPLITS
    ]
    return join(_without_hidden(part) for part in parts)


def _describe(name: str) -> tuple[str, tuple[str, ...]]:
    city, _, file = name.rpartition("/")
    return file.rpartition("_")[0], CONDITIONS.get(city, ())


def _without_hidden(part: Listing) -> Listing:
    return replace(
        part,
        samples=tuple(s for s in part.samples if _city(s.image) not in HIDDEN),
        orphans=tuple(mask for mask in part.orphans if _city(mask) not in HIDDEN),
    )


def _city(path: str) -> str:
    return PurePosixPath(path).parent.name
