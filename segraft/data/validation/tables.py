"""The tables that the rules look at: one row a file, sample, split, class, sequence, dataset or statistic.

Null means: does not apply, or could not be measured; no rule looks at a null.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from segraft.data.formats import SPLITS, Listing
from segraft.data.taxonomy import Taxonomy
from segraft.data.validation.classes import Census, class_table, read_of
from segraft.data.validation.drift import drift
from segraft.data.validation.files import USUAL_FORMAT
from segraft.data.validation.hints import one_past
from segraft.data.validation.twins import NONE, Places, exact_twins, near_twins
from segraft.errors import UserError
from segraft.params import Dataset, Validate

FEW = 10
"""A split of fewer images has no shares worth judging."""
MOST = 0.5
"""Share of a dataset's masks."""


@dataclass(frozen=True)
class Given:
    """One dataset, before its files were read."""

    root: Path
    knobs: Dataset
    taxonomy: Taxonomy
    listing: Listing
    trouble: str | None
    """why it could not be listed"""


def build(facts: pa.Table, given: Mapping[str, Given], counted: Census, knobs: Validate) -> dict[str, pd.DataFrame]:
    """Every table, by name, in the order of the report."""
    frame = _judge_binary(facts.to_pandas())
    samples = pd.concat([frame, *_twins(facts, frame, knobs), channel_order(frame)], axis=1)
    samples["turned"] = np.where(_turned(frame), "; height and width are exchanged", "")
    # a night target agrees less than a clear source: each is compared with its own
    samples["agreement"] = frame["agreement"] / frame.groupby("dataset")["agreement"].transform("median")
    samples["shorter_side"] = frame[["height", "width"]].min(axis=1)
    samples["some_void"] = frame["void_share"].where(frame["void_share"] < 1)
    samples["shift"] = [
        None if np.isnan(x) else f"{x:+.0f} px across and {y:+.0f} px down"
        for x, y in zip(frame["move_x"].astype(float), frame["move_y"].astype(float), strict=True)
    ]
    taxonomies = {name: one.taxonomy for name, one in given.items()}
    return {
        "datasets": datasets(frame, given),
        "files": files(frame, given),
        "samples": samples,
        "splits": splits(samples, given),
        "classes": class_table(counted, taxonomies, knobs.rare_images),
        "sequences": sequences(frame, given),
        "drift": drift(frame),
    }


def datasets(frame: pd.DataFrame, given: Mapping[str, Given]) -> pd.DataFrame:
    """One row a dataset: what is wrong with it as a whole."""
    rows = []
    for name, one in given.items():
        codes = {code for row in frame.loc[frame["dataset"] == name, "codes"].dropna() for code in row}
        unmapped = _unmapped(one.taxonomy, given["target"].taxonomy, joint=name.startswith("source/"))
        row = {"dataset": name, "path": str(one.root), "trouble": one.trouble, "unmapped": unmapped}
        rows.append(row | {"one_based": _one_based(one, codes)})
    return pd.DataFrame(rows)


def _judge_binary(frame: pd.DataFrame) -> pd.DataFrame:
    """One mask of background and void may be right; where most are so, 255 was written for the foreground."""
    binary = frame["mask_kind"] == "binary_mask"
    most = binary.groupby(frame["dataset"]).transform("mean") >= MOST
    wrong, lone = binary & most, binary & ~most & frame["void_share"].notna()
    frame.loc[lone, "mask_kind"] = "background_and_void"
    frame.loc[wrong, ["void_share", "classes_shown"]] = np.nan  # one finding is enough
    return frame


def _unmapped(source: Taxonomy, target: Taxonomy, joint: bool) -> str | None:
    try:
        target.joint_from(source) if joint else target.map_from(source)
    except UserError as error:
        return str(error)
    return None


def _one_based(one: Given, codes: set[int]) -> str | None:
    """Whether masks that count classes from 1 happen to hold only ids that the taxonomy knows."""
    last = one_past(one.taxonomy)
    if one.listing.encoding != "ids" or last not in one.taxonomy.void.ids or 0 in codes:
        return None
    return f"ids 1 to {last}, and 0 in no mask" if codes >= set(range(1, last + 1)) else None


def splits(samples: pd.DataFrame, given: Mapping[str, Given]) -> pd.DataFrame:
    """One row a split that is read: how many samples, and which share of them is doubtful."""
    rows = []
    for name, one in given.items():
        for split in read_of(name) if one.trouble is None else ():
            part = samples[(samples["dataset"] == name) & (samples["split"] == split)]
            row = {"dataset": name, "split": split, "samples": len(part)}
            twins, single = part["near_twin"].notna(), part["classes_shown"].dropna() == 1
            shares = {"near_twins": twins.mean(), "single_class": single.mean()} if len(part) >= FEW else {}
            rows.append(row | shares)
    return pd.DataFrame(rows, columns=["dataset", "split", "samples", "near_twins", "single_class"])


def sequences(frame: pd.DataFrame, given: Mapping[str, Given]) -> pd.DataFrame:
    """One row a sequence: over how many splits it is spread, where `holdout` did not ask for it."""
    # images that stand alone may have one name in every split; they are no sequence
    names = frame["image"].map(lambda image: PurePosixPath(image).stem)
    several = names.groupby([frame["dataset"], frame["group"]]).nunique() > 1
    counts = (
        frame.groupby(["dataset", "group"])["split"]
        .value_counts()
        .unstack(fill_value=0)
        .reindex(columns=SPLITS, fill_value=0)[several]
    )
    asked = counts.index.isin([name for name, one in given.items() if one.knobs.holdout], level="dataset")
    spread = (counts > 0).sum(axis=1) - (asked & (counts["train"] > 0) & (counts["val"] > 0))
    where = [_where(row) for row in counts.to_numpy().tolist()]
    table = counts.index.to_frame(index=False).rename(columns={"group": "sequence"})
    return table.assign(splits=spread.to_numpy(), where=where)


def _where(counts: list[int]) -> str:
    return ", ".join(f"{count} images in {split}" for split, count in zip(SPLITS, counts, strict=True) if count)


def files(frame: pd.DataFrame, given: Mapping[str, Given]) -> pd.DataFrame:
    """One row a file: images, masks, and masks without an image."""
    parts = []
    for kind in ("image", "mask"):
        columns = [kind, f"{kind}_fault", f"{kind}_fault_found", f"{kind}_format"]
        part = frame[["dataset", *columns]].set_axis(["dataset", "file", "fault", "found", "format"], axis=1)
        parts.append(part.assign(kind=kind, sample=np.arange(len(frame))))
    orphans = [(name, path) for name, one in given.items() for path in one.listing.orphans]
    parts.append(pd.DataFrame(orphans, columns=["dataset", "file"]).assign(kind="orphan", sample=NONE))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    suffixes = table["file"].map(lambda file: PurePosixPath(file).suffix.lower())
    table["usual_format"] = suffixes.map(USUAL_FORMAT)
    table["format"] = table["format"].replace("MPO", "JPEG")
    table["same_name"] = _same_names(table, frame["mask"])
    missing = table["fault"] == "missing_file"
    table.loc[missing & table["same_name"].notna(), "found"] += "; there is " + table["same_name"]
    table.loc[(table["kind"] != "image"), "same_name"] = None
    return table


def _same_names(table: pd.DataFrame, masks: pd.Series[str]) -> pd.Series[str]:
    """Another file of the kind whose name differs only in case, in Unicode form or in its suffix; null: none.

    Images whose masks go by the whole name, suffix and all, may differ in it.
    """
    image = table["kind"] == "image"
    partner = table["file"].where(~image, masks.reindex(table["sample"]).to_numpy())
    keys = [table["dataset"], image, table["file"].map(_folded), partner.map(_folded)]
    names = table.groupby(keys, sort=False)["file"]
    first, last = names.transform("first"), names.transform("last")
    return last.where(last != table["file"], first.where(first != table["file"]))


def _folded(file: str) -> str:
    return unicodedata.normalize("NFC", str(PurePosixPath(file).with_suffix(""))).casefold()


def _turned(frame: pd.DataFrame) -> pd.Series[bool]:
    swapped = frame["mask_size"].str.replace(r"(\d+)x(\d+)", r"\2x\1", regex=True)
    return (swapped == frame["image_size"]) & (frame["mask_size"] != frame["image_size"])


def _twins(facts: pa.Table, frame: pd.DataFrame, knobs: Validate) -> list[pd.DataFrame]:
    """Columns X_row (position of the other sample) and X (its name) for X in leak, repeat, near_twin and same_mask."""
    rank = frame["split"].map({split: i for i, split in enumerate(SPLITS)}).to_numpy()
    places = Places(rank, (frame["dataset"] != "target").to_numpy(bool))
    leak, repeat = exact_twins(facts["pixels_sha256"].to_pylist(), places)
    in_other_split, same_mask = exact_twins(facts["labels_sha256"].to_pylist(), places)
    same_mask = np.where(same_mask == NONE, in_other_split, same_mask)
    near = np.full(len(frame), NONE)
    known = np.flatnonzero(facts["dhash"].is_valid().to_numpy())
    if len(known):
        hashes = facts["dhash"].drop_null().to_numpy().astype(np.uint64)
        looks = np.stack([np.concatenate(pair) for pair in zip(frame["mean"][known], frame["std"][known], strict=True)])
        some = Places(rank[known], places.source[known])
        twin = near_twins(hashes, looks.astype(np.float32), some, knobs.near_duplicate_bits)
        near[known] = np.where(twin == NONE, NONE, known[twin])
    near[leak != NONE] = NONE
    same_mask[(repeat != NONE) | (leak != NONE) | (near != NONE)] = NONE
    names = (frame["dataset"] + ": " + frame["image"]).to_numpy(object)
    found = {"leak": leak, "repeat": repeat, "near_twin": near, "same_mask": same_mask}
    return [
        pd.DataFrame({f"{name}_row": rows, name: np.where(rows == NONE, None, names[rows]) if len(rows) else rows})
        for name, rows in found.items()
    ]


def channel_order(frame: pd.DataFrame) -> pd.Series[float]:
    """How well an image's colours fit its classes, against red and blue exchanged: 1 as usual, -1 if exchanged.

    A log-likelihood ratio over the classes of an image, in units of the dataset's median; null where the dataset's
    colours are too grey, or its images too few, to tell.
    """
    order = pd.Series(np.nan, index=frame.index, name="channel_order")
    for _, part in frame[frame["class_warmth"].notna()].groupby("dataset"):
        warmth = np.stack(part["class_warmth"].to_list()).astype(float)
        usual = _median(warmth)
        spread = 1.4826 * _median(np.abs(warmth - usual)) + 2
        as_is, exchanged = (np.minimum(((warmth * sign - usual) / spread) ** 2, 16) for sign in (1, -1))
        ratio = np.nansum(exchanged - as_is, axis=1)
        if len(part) >= 8 and np.median(ratio) > 24:
            order[part.index] = ratio / np.median(ratio)
    return order


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column without NaN; NaN for a column that has nothing else."""
    known = ~np.isnan(values).all(axis=0)
    medians = np.full(values.shape[1], np.nan)
    medians[known] = np.nanmedian(values[:, known], axis=0)
    return medians
