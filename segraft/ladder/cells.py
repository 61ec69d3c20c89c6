"""Cells: one rung, one label budget, one seed. Each result is kept under a fingerprint of all that decides it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segraft import __version__
from segraft.checkpoint import read_card, sha256, teacher_sha256
from segraft.data.packed import CARD, PackedDataset
from segraft.evaluation.run import score
from segraft.evaluation.scores import Counts, iou_of_counts, mean
from segraft.ladder.rungs import SOURCELESS, TOTAL, UNTRAINED, compute, settings
from segraft.ladder.subsets import pack_subset
from segraft.params import Finetune, Params, Pretrain, RungName
from segraft.progress import progress
from segraft.steps import remove, run, write_json

BARE = ("encoder", "encoder_total")
"""Rungs that start from model.weights in the encoder alone."""


@dataclass(frozen=True)
class Data:
    """What all cells share."""

    params: Params
    target: Path
    """packed target"""
    pretrained: Path
    """model folder: the source model"""
    source_pixels: int
    """that pretraining has seen"""
    folder: Path
    """where subsets, work and results are kept"""


@dataclass(frozen=True)
class Cell:
    """One training and its score."""

    rung: RungName
    share: float
    seed: int


@dataclass(frozen=True)
class Result:
    """What a cell came to."""

    rung: RungName
    share: float
    seed: int
    labels: int
    """labelled train images"""
    counts: Counts
    """(N, 3, C) of the test images"""
    target_pixels: int
    """pixels' worth of training on the target"""
    total_pixels: int
    """the same, with the pretraining on the source where the rung has it"""
    seconds: float

    @property
    def miou(self) -> float:
        """Mean IoU of the test split."""
        return float(mean(iou_of_counts(self.counts.sum(0))))


def cells(params: Params) -> list[Cell]:
    """Every cell, the label budgets that show most first; a rung without training has one cell."""
    ladder = params.ladder
    found = [
        Cell(rung, share, seed)
        for share in sorted(set(ladder.labels), reverse=True)
        for seed in dict.fromkeys(ladder.seeds)
        for rung in dict.fromkeys(ladder.rungs)
        if rung not in UNTRAINED
    ]
    return [Cell(rung, 1.0, ladder.seeds[0]) for rung in dict.fromkeys(ladder.rungs) if rung in UNTRAINED] + found


def climb(data: Data) -> list[Result]:
    """Every cell's result: kept ones are read, missing ones are trained.

    Cells that lack what they are to learn from (unlabelled images, source images) are left out.

    Raises:
        UserError: rungs of equal compute are not possible with these knobs, or the data do not fit the model.
    """
    wanted = cells(data.params)
    for cell in wanted:
        settings(cell.rung, data.params.finetune, cell.seed)
    results = []
    for cell in progress(wanted, "ladder", unit="cell"):  # a comprehension would leave the bar open on an error
        if result := _result(cell, data):
            results.append(result)
    return results


def _result(cell: Cell, data: Data) -> Result | None:
    name = f"{cell.share:g}-{cell.seed}".replace(".", "_")
    origin = sha256(data.target / CARD)[:12]
    dataset = pack_subset(data.target, cell.share, cell.seed, data.folder / "subsets" / f"{origin}-{name}")
    training = _training(cell, data)
    if lacking := _lacking(training, PackedDataset(dataset)):
        print(f"{cell.rung} at {cell.share:.0%}: left out: {lacking}")
        return None
    path = data.folder / "cells" / f"{fingerprint(cell, training, dataset, data)}.json"
    if not path.exists():
        write_json(path, _measure(cell, training, dataset, data, data.folder / "work" / path.stem))
    kept = json.loads(path.read_text(encoding="utf-8"))
    area = PackedDataset(data.target).card.crop
    spent = 0 if cell.rung in UNTRAINED else compute(training, area)
    total = spent + (0 if cell.rung in SOURCELESS else data.source_pixels)
    labels = 0 if cell.rung in UNTRAINED else len(PackedDataset(dataset).split("train"))
    counts = np.array(kept["counts"], np.int64)
    return Result(cell.rung, cell.share, cell.seed, labels, counts, spent, total, kept["seconds"])


def _lacking(training: Finetune, dataset: PackedDataset) -> str:
    """What a training needs and the dataset does not have."""
    if training.self_train.weight and not len(dataset.split("unlabelled")):
        return "all images are labelled"
    if training.source_share and not len(dataset.split("source")):
        return "no source images are packed with the target; set augment.source_samples"
    return ""


def _training(cell: Cell, data: Data) -> Finetune:
    """The cell's settings; a rung of `TOTAL` has the pretraining's compute on top, in whole epochs, rounded."""
    training = settings(cell.rung, data.params.finetune, cell.seed)
    if cell.rung not in TOTAL:
        return training
    epoch = compute(training, PackedDataset(data.target).card.crop) / training.epochs
    return training.model_copy(update={"epochs": training.epochs + round(data.source_pixels / epoch)})


def fingerprint(cell: Cell, training: Finetune, dataset: Path, data: Data) -> str:
    """Digest of all that decides a cell's result."""
    from segraft.training.transfer import links

    params, card, source = data.params, PackedDataset(dataset).card, read_card(data.pretrained)
    content: dict[str, Any] = {
        "rung": cell.rung,
        "segraft": __version__,
        "model": params.model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "scratch": params.scratch.model_dump(mode="json"),
        "evaluate": params.evaluate.model_dump(mode="json", exclude={"threads", "examples"}),
        "dataset": card.fingerprint,
        "pretrained": source.weights_sha256,
        "teacher": teacher_sha256(training.distill.teacher),
        "links": links(source, card).tolist(),
        "start": _untrained(training, params).model_dump(mode="json") if cell.rung in BARE else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def _measure(cell: Cell, training: Finetune, dataset: Path, data: Data, work: Path) -> dict[str, Any]:
    """Train and score; a killed training goes on from its checkpoint in `work`."""
    seconds, model = 0.0, data.pretrained
    if cell.rung not in UNTRAINED:
        model = work / "weights"
        seconds = _train(cell, training, dataset, data, work)
    how = data.params.evaluate
    found = score(model, dataset, "test", how.batch_size, how.threads, how)
    remove(work)
    return {
        "rung": cell.rung,
        "share": cell.share,
        "seed": cell.seed,
        "seconds": seconds,
        "counts": found.counts.tolist(),
    }


def _train(cell: Cell, training: Finetune, dataset: Path, data: Data, work: Path) -> float:
    params = data.params
    paths = {"dataset": dataset, "work": work / "work", "weights": work / "weights", "log": work / "log"}
    if cell.rung in ("scratch", "scratch_total"):
        once = params.scratch.model_copy(update={"budget": "finetune"})
        sections = {"model": params.model, "pretrain": params.pretrain, "finetune": training, "scratch": once}
        return run("scratch", sections, paths)["seconds"]
    start = _without_source(training, dataset, data, work) if cell.rung in BARE else data.pretrained
    return run("finetune", {"model": params.model, "finetune": training}, paths | {"pretrained": start})["seconds"]


def _without_source(training: Finetune, dataset: Path, data: Data, work: Path) -> Path:
    """A model folder with model.weights in the encoder and chance elsewhere."""
    place = work / "start"
    paths = {"dataset": dataset, "work": place / "work", "weights": place / "weights", "log": place / "log"}
    run("pretrain", {"model": data.params.model, "pretrain": _untrained(training, data.params)}, paths)
    return place / "weights"


def _untrained(training: Finetune, params: Params) -> Pretrain:
    """No step of pretraining, in the cell's seed: another seed is another decoder."""
    before = params.pretrain
    return before.model_copy(
        update={
            "epochs": 0,
            "seed": training.seed,
            "batch_norm": "group" if training.batch_norm == "group" else "train",
            "source_share": 0.0,
            "self_train": before.self_train.model_copy(update={"weight": 0.0}),
            "distill": before.distill.model_copy(update={"teacher": None}),
        }
    )


def source_pixels(pretrained: Path, source: Path) -> int:
    """Pixels that the source model was trained on: steps × batch × crop, from its own card; 0 if it does not say."""
    provenance = read_card(pretrained).provenance
    if not (steps := int(provenance.get("steps", 0))):
        return 0
    return steps * int(provenance["training"]["batch_size"]) * math.prod(PackedDataset(source).card.crop)


def by_rung(results: list[Result]) -> Iterator[tuple[RungName, list[Result]]]:
    """Rung → its results, in the order of the results."""
    for rung in dict.fromkeys(result.rung for result in results):
        yield rung, [result for result in results if result.rung == rung]
