"""What the Kubeflow UI shows of a step: scalars, a confusion matrix, a page and a summary.

A component's output that is no path of its step is rendered here, by its name: `metrics`, `confusion`, `page` (one
self-contained HTML file) and `summary` (Markdown).
"""

from __future__ import annotations

import base64
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segraft.steps import Metrics, write_json

Paths = Mapping[str, Path]
"""Path parameter of the step → where it is."""


def render(step: str, outputs: Mapping[str, Any], paths: Paths, metrics: Metrics) -> None:
    """Fill the outputs that show what a step did.

    Args:
        step: its name.
        outputs: name → artifact; those of other names are left alone.
        paths: the step's own inputs and outputs.
        metrics: what it returned.
    """
    if "metrics" in outputs:
        scalars(outputs["metrics"], metrics)
    if "confusion" in outputs:
        outputs["confusion"].log_confusion_matrix(*confusion(paths["plots"] / "confusion.csv"))
        write_json(Path(outputs["confusion"].path), outputs["confusion"].metadata)
    for name in ("page", "summary"):
        if name in outputs:
            Path(outputs[name].path).write_text(RENDERERS[step, name](paths, metrics), encoding="utf-8")


def scalars(output: Any, metrics: Metrics) -> None:
    """Fill a Metrics artifact, and its file too: kfp's local cache takes an artifact without one for lost."""
    for name, value in metrics.items():
        output.log_metric(name, value)
    write_json(Path(output.path), metrics)


def confusion(table: Path) -> tuple[list[str], list[list[int]]]:
    """Classes and matrix (label × prediction, percent of the label's pixels) of evaluate's confusion.csv."""
    with table.open(newline="", encoding="utf-8") as file:
        counts = Counter((row["actual"], row["predicted"]) for row in csv.DictReader(file))
    names = list(dict.fromkeys(name for pair in counts for name in pair))
    return names, [[counts[actual, predicted] for predicted in names] for actual in names]


def picture(png: Path) -> str:
    """A page that holds a picture."""
    data = base64.b64encode(png.read_bytes()).decode()
    return (
        f'<!doctype html><meta charset="utf-8"><img alt="" style="max-width:100%" src="data:image/png;base64,{data}">'
    )


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows))


def _validated(paths: Paths, metrics: Metrics) -> str:
    told = json.loads((paths["report"] / "validate.json").read_text(encoding="utf-8"))
    verdict = "The data passed." if told["passed"] else "The data did not pass."
    return f"{verdict}\n\n{table(('', ''), [(name, f'{value:g}') for name, value in metrics.items()])}\n"


def _evaluated(paths: Paths, _: Metrics) -> str:
    scores = json.loads(paths["scores"].read_text(encoding="utf-8"))
    labels = {"source": "source as it is", "scratch": "from scratch", "transferred": "transferred"}
    rows = [
        (label, _percent(of["miou"]), " – ".join(map(_percent, of["miou_interval"])), _percent(of["pixel_accuracy"]))
        for label, of in ((label, scores[model]) for model, label in labels.items())
        if of
    ]
    title = f"On the {scores['split']} split, {scores['images']} images"
    return f"### {title}\n\n{table(('', 'mIoU', '95 % interval', 'pixel accuracy'), rows)}\n"


def _registered(paths: Paths, _: Metrics) -> str:
    outcome = json.loads(paths["registered"].read_text(encoding="utf-8"))
    if not outcome["tracked"]:
        return f"Not registered: {outcome['why']}\n"
    aliases = ", ".join(outcome["aliases"])
    return f"**{outcome['name']}** version {outcome['version']} ({aliases}): {outcome['why']}\n"


def _percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


RENDERERS: dict[tuple[str, str], Callable[[Paths, Metrics], str]] = {
    ("validate", "page"): lambda paths, _: (paths["report"] / "index.html").read_text(encoding="utf-8"),
    ("validate", "summary"): _validated,
    ("augment", "page"): lambda paths, _: picture(paths["sheet"]),
    ("evaluate", "summary"): _evaluated,
    ("register", "summary"): _registered,
}
"""(step, output) → its text."""
