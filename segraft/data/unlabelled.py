"""The target's images without masks, packed for self-training: their masks hold ignore_index alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from segraft.data.formats import list_samples
from segraft.data.formats._tree import IMAGE_SUFFIXES, inside
from segraft.data.packed import Packed
from segraft.data.packing import Files
from segraft.data.reading import read_image, resize_pair
from segraft.errors import UserError
from segraft.params import Dataset

REST = "rest"


def unlabelled(files: Files, dataset: Dataset, wanted: str | None) -> list[Callable[[], Packed]]:
    """Makers of the samples of the split `unlabelled`.

    Args:
        files: the target's; an image that its manifest names is labelled, or is to be scored on, and is left out, as
            are all masks.
        dataset: the target's section.
        wanted: a glob below the dataset's folder; "rest": the train images beyond the label budget; None: none.

    Raises:
        UserError: there is no such image.
    """
    if wanted is None:
        return []
    if wanted == REST:
        every = list_samples(files.root, dataset.model_copy(update={"limit": None})).samples
        images = [sample.image for sample in every if sample.split == "train"]
    else:
        inside(f"augment.unlabelled: {wanted}", wanted)
        found = sorted(path for path in files.root.glob(wanted) if path.suffix.lower() in IMAGE_SUFFIXES)
        whole = list_samples(files.root, dataset.model_copy(update={"limit": None, "include": ("*",)}))
        masks = {sample.mask for sample in whole.samples} | set(whole.orphans)
        images = [path for path in (one.relative_to(files.root).as_posix() for one in found) if path not in masks]
    known = {row["image"] for row in files.rows}
    images = [image for image in images if image not in known]
    if not images:
        raise UserError(
            f"augment.unlabelled: {wanted}: no image of {files.root} besides those of train, val and test; give a glob "
            "such as unlabelled/**/*.png, or rest if data.target.limit leaves some out, or null"
        )
    return [partial(_read, files, image) for image in images]


def _read(files: Files, image: str) -> Packed:
    pixels = read_image(files.root / image)
    mask = np.full(pixels.shape[:2], files.classes.ignore_index, np.uint8)
    if files.size:
        pixels, mask = resize_pair(pixels, mask, files.size)
    return Packed(PurePosixPath(image).with_suffix("").as_posix(), PurePosixPath(image).parent.name, (), pixels, mask)
