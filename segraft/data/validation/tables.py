"""The tables that the rules look at: one row a file, sample, split, class, sequence, dataset or statistic.

Null means: does not apply, or could not be measured; no rule looks at a null.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from segraft.data.formats import SPLITS
from segraft.data.taxonomy import Taxonomy
from segraft.data.validation.classes import Census, class_table, read_of
from segraft.data.validation.drift import drift
from segraft.data.validation.files import USUAL_FORMAT, printable
from segraft.data.validation.hints import one_past
from segraft.data.validation.listings import Given, misplaced, more_samples, section_of
from segraft.data.validation.twins import NONE, Places, exact_twins, near_twins
from segraft.errors import UserError
from segraft.params import Validate

FEW = 10
"""A split of fewer images has no shares worth judging."""
MOST = 0.5
"""Share of a dataset's images or masks."""
NOT_THERE = "no such file"
"""What is found of a mask that is missing, unlike one that is a broken link."""
NEARLY_ALL = 0.9
"""Share of a dataset's masks that are missing: it is the place that is wrong."""
LARGE = 10_000_000
"""Pixels of an image for which a network needs many gigabytes and minutes; a frame of 4K video has 8.3 million."""


def build(facts: pa.Table, given: Mapping[str, Given], counted: Census, knobs: Validate) -> dict[str, pd.DataFrame]:
    """Every table, by name, in the order of the report."""
    frame = _judge_binary(facts.to_pandas())
    whole = datasets(frame, given)
    frame = _say_once(frame, whole)
    samples = pd.concat([frame, *_twins(facts, frame, knobs), channel_order(frame)], axis=1)
    samples["turned"] = np.where(_turned(frame), "; width and height are exchanged", "")
    # a night target agrees less than a clear source: each is compared with its own
    samples["agreement"] = frame["agreement"] / frame.groupby("dataset")["agreement"].transform("median")
    samples["shorter_side"] = frame[["height", "width"]].min(axis=1)
    samples["some_void"] = frame["void_share"].where(frame["void_share"] < 1)
    samples["shift"] = [
        None if np.isnan(x) else f"{x:+.0f} px across and {y:+.0f} px down"
        for x, y in zip(frame["move_x"].astype(float), frame["move_y"].astype(float), strict=True)
    ]
    taxonomies = {name: one.taxonomy for name, one in given.items()}
    found = {name: one for name, one in given.items() if name not in _named(whole, "misplaced")}
    classes = class_table(counted, taxonomies, knobs.rare_images)
    lost = _unknown(frame) | (frame["mask_kind"] == "binary_mask")
    misread = lost.groupby(frame["dataset"]).transform("mean") > MOST  # which classes these show, nobody can tell
    classes.loc[classes["dataset"].isin(frame.loc[misread, "dataset"]), "state"] = None
    return {
        "datasets": whole,
        "files": files(frame, found),
        "samples": samples,
        "splits": splits(samples, given),
        "classes": classes,
        "sequences": sequences(frame, given),
        "drift": drift(frame),
    }


def datasets(frame: pd.DataFrame, given: Mapping[str, Given]) -> pd.DataFrame:
    """One row a dataset: what is wrong with it as a whole."""
    rows = []
    for name, one in given.items():
        mine = frame[frame["dataset"] == name]
        codes = {code for row in mine["codes"].dropna() for code in row}
        unmapped = _unmapped(one.taxonomy, given["target"].taxonomy, joint=name.startswith("source/"))
        row = {"dataset": name, "section": section_of(name), "path": str(one.root), "unmapped": unmapped}
        row |= {"trouble": printable(one.trouble) if one.trouble else None, "one_based": _one_based(one, codes)}
        row |= {"grey": _grey(mine), "large": _large(mine)}
        rows.append(row | dict(zip(("misplaced", "misplaced_remedy"), _misplaced(name, one, mine), strict=True)))
    return pd.DataFrame(rows)


def _misplaced(name: str, one: Given, mine: pd.DataFrame) -> tuple[str | None, str | None]:
    missing = mine[mine["mask_fault_found"] == NOT_THERE]
    if len(missing) <= NEARLY_ALL * len(mine):
        return None, None
    found, remedy = misplaced(name, one, list(zip(missing["image"], missing["mask"], strict=True)))
    return printable(found), printable(remedy)


def _grey(mine: pd.DataFrame) -> str | None:
    grey = int((mine["image_kind"] == "grey_image").sum())
    return f"{grey} of {len(mine)} images have one channel" if grey > MOST * len(mine) else None


def _large(mine: pd.DataFrame) -> str | None:
    pixels = mine["height"] * mine["width"]
    large = int((pixels > LARGE).sum())
    if not large:
        return None
    most = mine.loc[pixels == pixels.max(), "image_size"].iloc[0]
    return f"{large} of {len(mine)} images have more than {LARGE // 10**6} megapixels, up to {most}"


def _unknown(frame: pd.DataFrame) -> pd.Series[bool]:
    """Masks with codes that the taxonomy does not know."""
    return frame["unknown"].map(lambda codes: codes is not None and len(codes) > 0).astype(bool)


def _named(whole: pd.DataFrame, column: str) -> set[str]:
    """The datasets of which the column says something."""
    return set(whole.loc[whole[column].notna(), "dataset"]) if len(whole) else set()


def _say_once(frame: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Without what a finding of the whole dataset, or of unknown codes, says already."""
    grey, lost = (frame["dataset"].isin(_named(whole, column)) for column in ("grey", "misplaced"))
    frame.loc[grey & (frame["image_kind"] == "grey_image"), "image_kind"] = None
    frame.loc[lost & (frame["mask_fault_found"] == NOT_THERE), "mask_fault"] = None
    frame.loc[_unknown(frame), "classes_shown"] = np.nan
    return frame


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
            row = {"dataset": name, "split": split, "samples": len(part), "more": more_samples(name, one, split)}
            twins, single = part["near_twin"].notna(), part["classes_shown"].dropna() == 1
            shares = {"near_twins": twins.mean(), "single_class": single.mean()} if len(part) >= FEW else {}
            rows.append(row | shares)
    return pd.DataFrame(rows, columns=["dataset", "split", "samples", "more", "near_twins", "single_class"])


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
    orphans = [
        (name, printable(path), printable(_lone(one, path)))
        for name, one in given.items()
        for path in one.listing.orphans
    ]
    parts.append(pd.DataFrame(orphans, columns=["dataset", "file", "found"]).assign(kind="orphan", sample=NONE))
    table = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    suffixes = table["file"].map(lambda file: PurePosixPath(file).suffix.lower())
    table["usual_format"] = suffixes.map(USUAL_FORMAT)
    table["format"] = table["format"].replace("MPO", "JPEG")
    table["same_name"] = _same_names(table, frame["mask"])
    missing = table["fault"] == "missing_file"
    table.loc[missing & table["same_name"].notna(), "found"] += "; there is " + table["same_name"]
    table.loc[(table["kind"] != "image"), "same_name"] = None
    return table


def _lone(one: Given, mask: str) -> str:
    unread = one.listing.unread.get(mask)
    return f"a mask whose image, {unread}, has a suffix that is not read" if unread else "a mask without an image"


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
    swapped = frame["mask_size"].str.replace(r"(\d+)×(\d+)", r"\2×\1", regex=True)
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
