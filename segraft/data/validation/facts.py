"""One sample → one row of facts. Both files are read once, and nothing but the row outlives the call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.data.formats import Sample
from segraft.data.manifest import schema as manifest_schema
from segraft.data.validation.files import Fault, File, open_file, printable
from segraft.data.validation.images import STATISTICS, describe, read_image, small
from segraft.data.validation.masks import MaskReader
from segraft.data.validation.probes import agreement, class_warmth

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Source:
    """Where one dataset's files lie and how they are read."""

    root: Path
    """resolved"""
    masks: MaskReader
    max_pixels: int

    def open(self, relative: str) -> File:
        """A file that may be decoded; a Fault if it may not."""
        return open_file(self.root, relative, self.max_pixels)


def schema() -> pa.Schema:
    """The columns of the facts: those of the manifest, then what the rules look at; null: could not be measured."""
    import pyarrow as pa

    text = ["image_fault", "mask_fault", "image_kind", "mask_kind", "mask_format", "labels_sha256"]
    text += ["image_fault_found", "mask_fault_found", "image_found", "mask_found", "unknown_found", "unknown_remedy"]
    text += ["image_size", "mask_size"]
    numbers = ["spread", *STATISTICS, "void_share", "ramp_share", "thin_share", "agreement"]
    columns = [(name, pa.string()) for name in text] + [(name, pa.float32()) for name in numbers]
    columns += [(name, pa.int32()) for name in ("classes_shown", "move_x", "move_y")]
    columns += [("codes", pa.list_(pa.int32())), ("unknown", pa.list_(pa.int64()))]
    columns += [("class_warmth", pa.list_(pa.float32()))]
    return pa.schema([("dataset", pa.string()), *manifest_schema(), *columns])


def read_sample(source: Source, dataset: str, sample: Sample) -> dict[str, Any]:
    """The row of one sample; whatever is wrong with its files is recorded in it, never raised."""
    names = {key: printable(value) for key, value in vars(sample).items() if key != "tags"}
    row: dict[str, Any] = {"dataset": dataset, "tags": sample.tags, **names}
    labels = copy = None
    try:
        image = source.open(sample.image)
        row |= _file("image", image)
        pixels, facts = read_image(image)
        row |= facts
        if pixels is not None:
            copy = small(pixels)
            row |= describe(pixels, copy)
    except Fault as fault:
        row |= {"image_fault": fault.rule, "image_fault_found": fault.found}
    try:
        mask = source.open(sample.mask)
        row |= _file("mask", mask)
        labels, facts = source.masks.read(mask)
        row |= facts
    except Fault as fault:
        row |= {"mask_fault": fault.rule, "mask_fault_found": fault.found}
    if copy is not None and labels is not None and row["image_size"] == row["mask_size"]:
        if row["spread"] > 1 and row["void_share"] < 0.5:  # else too few edges to agree
            row |= agreement(copy, labels)
        row["class_warmth"] = class_warmth(copy, labels, len(source.masks.taxonomy.classes))
    return row


def _file(kind: str, file: File) -> dict[str, Any]:
    return {
        f"{kind}_format": file.header.format,
        f"{kind}_mode": file.header.image.mode,
        f"{kind}_bytes": len(file.data),
        f"{kind}_sha256": hashlib.sha256(file.data).hexdigest(),
    }
