"""Tables and pictures for `dvc plots`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segraft.evaluation import scores
from segraft.evaluation.confusion import Matrix
from segraft.evaluation.examples import WIDTH, Example, Pixels, colored, encoded, errors
from segraft.evaluation.history import Log
from segraft.evaluation.run import Scores

PERCENT = 100


def write_plots(folder: Path, results: Mapping[str, Scores], logs: Sequence[Log], shown: Sequence[Example]) -> None:
    """Write confusion.csv, iou.csv, loss/ and validation/ (a file a run) and examples/ into a new folder."""
    last = list(results.values())[-1]
    names = [c.name for c in last.card.classes]
    folder.mkdir(parents=True)
    _write_csv(folder / "confusion.csv", ("actual", "predicted"), confusion_rows(last.matrix, names))
    iou = {model: scores.iou(result.matrix) for model, result in results.items()}
    rows = [(name, *(_cell(of_class[i]) for of_class in iou.values())) for i, name in enumerate(names)]
    _write_csv(folder / "iou.csv", ("class", *iou), rows)
    for log in logs:
        _write_csv(folder / "loss" / f"{log.run}.csv", ("step", "loss"), log.series("loss"))
        _write_csv(folder / "validation" / f"{log.run}.csv", ("step", "miou"), log.series("val_miou"))
    (folder / "examples").mkdir()
    for place, example in enumerate(shown):
        path = folder / "examples" / f"{example.kind}-{place:02d}.jpg"
        path.write_bytes(encoded(sheet(example, last), "jpeg", limit=2 * WIDTH))


def confusion_rows(matrix: Matrix, names: Sequence[str]) -> list[tuple[str, str]]:
    """A (label, prediction) row for each percent of a class's labelled pixels: DVC's template counts rows.

    The shares are rounded so that they add up to 100 (largest remainder).
    """
    rows: list[tuple[str, str]] = []
    for name, pixels in zip(names, matrix, strict=True):
        if pixels.any():
            share = pixels * PERCENT / pixels.sum()
            count = np.floor(share).astype(int)
            rest = np.argsort(count - share, kind="stable")[: PERCENT - count.sum()]
            count[rest] += 1
            rows += [(name, predicted) for predicted, n in zip(names, count, strict=True) for _ in range(n)]
    return rows


def sheet(example: Example, scores_: Scores) -> Pixels:
    """(2h, 2w, 3) RGB: image and label above, prediction and its errors below."""
    colors = [c.color for c in scores_.card.classes]
    prediction = list(example.predictions.values())[-1]
    wrong = errors(example.sample, prediction, scores_.card.ignore_index)
    above = np.hstack([example.sample.image, colored(example.sample.mask, colors)])
    return np.vstack([above, np.hstack([colored(prediction, colors), wrong])])


def _cell(value: float) -> Any:
    return "" if np.isnan(value) else round(float(value), 6)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
