"""The report: one HTML page that stands on its own, for people who were not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from segraft.data.manifest import manifest_file
from segraft.data.packed import PackedDataset
from segraft.evaluation import charts, scores
from segraft.evaluation.confusion import Matrix
from segraft.evaluation.examples import Example, colored, data_uri, errors
from segraft.evaluation.history import Log
from segraft.evaluation.run import Scores, number
from segraft.evaluation.summary import MODELS, verdict
from segraft.pages import templates

TITLES = {"source": "Source as it is", "scratch": "From scratch", "transferred": "Transferred"}
BASELINES = {"over_scratch": "training from scratch", "over_source": "the source model as it is"}
MATRIX_CLASSES = 24
"""Most classes that the heat map has room for."""
CONFUSIONS = 8
GROUPS = 12
"""Most groups that are listed; with more, a group is no longer something that a reader knows by name."""


def render(
    summary: Mapping[str, Any],
    results: Mapping[str, Scores],
    shown: Sequence[Example],
    logs: Sequence[Log],
    dataset: Path,
    manifest: Path,
    checks: dict[str, Any],
) -> str:
    """The page.

    Args:
        summary: evaluate.json.
        results: model → its scores.
        shown: the images to show.
        logs: the training logs.
        dataset: the packed target dataset.
        manifest: folder of the manifests.
        checks: validate.json.
    """
    last = results["transferred"]
    packed = PackedDataset(dataset)
    page = templates(Path(__file__).parent)
    page.filters |= {"percent": percent, "utc": utc, "points": points}
    return page.get_template("report.html.jinja").render(
        summary=summary,
        headline=[
            (verdict(summary["gain"][key], summary["images"], name), summary["gain"][key])
            for key, name in BASELINES.items()
            if summary["gain"][key]
        ],
        models={model: TITLES[model] for model in MODELS if summary[model]},
        classes=_classes(packed, results),
        slices=_slices(summary, last),
        confusion=_heat_map(last.matrix, summary["classes"]),
        confusions=worst_confusions(last.matrix, summary["classes"]),
        examples=[_panels(example, last) for example in shown],
        charts=_charts(logs),
        logs=logs,
        params=_params(logs),
        data=[_describe(manifest, name, checks) for name in checks["datasets"]],
        findings=_findings(checks),
        taxonomy=packed.card.taxonomy,
    )


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent; a dash where it is not defined."""
    return "–" if value is None or np.isnan(value) else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """A difference of shares in signed percentage points."""
    return f"{100 * value:+.1f}".replace("-", "−")


def utc(seconds: float) -> str:
    """Epoch seconds as a date and time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _classes(packed: PackedDataset, results: Mapping[str, Scores]) -> list[dict[str, Any]]:
    shares = {name: _shares(card.class_pixels) for name, card in packed.card.splits.items()}
    iou = {model: [number(value) for value in scores.iou(result.matrix)] for model, result in results.items()}
    return [
        {
            "name": c.name,
            "color": _css(c.color),
            "train": shares["train"][i] if "train" in shares else None,
            "test": shares["test"][i],
            "iou": {model: values[i] for model, values in iou.items()},
        }
        for i, c in enumerate(packed.card.classes)
    ]


def _shares(pixels: Sequence[int]) -> list[float | None]:
    total = sum(pixels)
    return [n / total if total else None for n in pixels]


def _slices(summary: Mapping[str, Any], last: Scores) -> list[dict[str, Any]]:
    """A row for each tag, and for each group of several images where there are a few."""
    kinds: dict[str, list[tuple[str, ...]]] = {"slices": list(last.tags), "groups": [(group,) for group in last.groups]}
    rows = []
    for kind, labels in kinds.items():
        images = Counter(name for of_image in labels for name in of_image)
        names = [name for name in summary["transferred"][kind] if kind == "slices" or images[name] > 1]
        if kind == "groups" and not 1 < len(names) <= GROUPS:
            continue
        for name in names:
            rows.append({"name": name, "kind": kind, "images": images[name], "miou": _by_model(summary, kind, name)})
    return rows


def _by_model(summary: Mapping[str, Any], kind: str, name: str) -> dict[str, float | None]:
    return {model: summary[model][kind][name] for model in MODELS if summary[model]}


def _heat_map(matrix: Matrix, names: Sequence[str]) -> dict[str, Any]:
    labelled = matrix.sum(1)
    shown = sorted(i for i in np.argsort(-labelled, kind="stable")[:MATRIX_CLASSES] if labelled[i])
    shares = matrix[np.ix_(shown, shown)] / labelled[shown, None]
    return {
        "names": [names[i] for i in shown],
        "rows": shares.tolist(),
        "left_out": int((labelled > 0).sum()) - len(shown),
    }


def worst_confusions(matrix: Matrix, names: Sequence[str]) -> list[dict[str, Any]]:
    """The largest off-diagonal shares: which labels are most often taken for what."""
    labelled = np.maximum(matrix.sum(1, keepdims=True), 1)
    share = matrix / labelled
    np.fill_diagonal(share, 0)
    places = np.argsort(-share, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [tuple(map(int, np.unravel_index(place, share.shape))) for place in places]
    return [{"label": names[i], "predicted": names[j], "share": share[i, j]} for i, j in pairs if share[i, j] >= 0.01]


def _panels(example: Example, last: Scores) -> dict[str, Any]:
    """An example as captions and pictures."""
    colors, sample = [c.color for c in last.card.classes], example.sample
    final = list(example.predictions.values())[-1]
    panels: list[tuple[str, float | None, str]] = [
        ("Image", None, data_uri(sample.image, "jpeg")),
        ("Label", None, data_uri(colored(sample.mask, colors), "png")),
        ("Errors of the transferred model", None, data_uri(errors(sample, final, last.card.ignore_index), "jpeg")),
    ]
    panels += [
        (TITLES[model], example.miou[model], data_uri(colored(mask, colors), "png"))
        for model, mask in example.predictions.items()
    ]
    height, width = sample.mask.shape
    return {"kind": example.kind, "id": sample.id, "tags": sample.tags, "panels": panels, "size": (width, height)}


def _charts(logs: Sequence[Log]) -> list[charts.Chart]:
    drawn = [
        charts.line_chart("Training loss", "step", {log.run: log.series("loss") for log in logs}),
        charts.line_chart("Validation mIoU", "step", {log.run: log.series("val_miou") for log in logs}),
        charts.line_chart(
            "Planned learning rate",
            "step",
            {f"{log.run} {part}": line for log in logs for part, line in log.training.get("schedule", {}).items()},
        ),
    ]
    return [chart for chart in drawn if chart]


def _params(logs: Sequence[Log]) -> dict[str, list[Any]]:
    """Dotted key → its value in each run; the keys of all runs."""
    flat = [dict(_flatten(log.training.get("params", {}))) for log in logs]
    keys = sorted({key for values in flat for key in values})
    return {key: [values.get(key, "–") for values in flat] for key in keys}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        shown = str(value) if isinstance(value, list) else value  # the page compares values, and a list has no hash
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", shown)]
    return pairs


def _describe(manifest: Path, name: str, checks: Mapping[str, Any]) -> dict[str, Any]:
    """How many images of what sizes a dataset has, and its classes."""
    rows = _rows(manifest, name)
    pixels = sum(h * w for h, w in zip(rows["height"], rows["width"], strict=True))
    sizes = sorted(set(zip(rows["width"], rows["height"], strict=True)), key=lambda size: size[0] * size[1])
    return {
        "name": name,
        "splits": {split: rows["split"].count(split) for split in ("train", "val", "test")},
        "sizes": sizes if len(sizes) < 3 else [sizes[0], sizes[-1]],
        "several": len(sizes) > 2,
        "ignored": sum(rows["ignore_pixels"]) / pixels,
        "taxonomy": checks["datasets"][name]["taxonomy"],
        "classes": _class_shares(checks["classes"][name]),
    }


def _rows(manifest: Path, name: str) -> dict[str, list[Any]]:
    """Columns of a dataset's manifest; of source/camvid, the rows whose files are below camvid."""
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile  # read_table would import pandas, which takes longer than all of this

    role, _, folder = name.partition("/")
    with ParquetFile(manifest_file(manifest, role)) as file:
        table = file.read(columns=["image", "split", "height", "width", "ignore_pixels"])
    if folder:
        table = table.filter(pc.starts_with(table["image"], f"{folder}/"))
    rows: dict[str, list[Any]] = table.to_pydict()
    return rows


def _class_shares(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The classes of a dataset's own taxonomy by their share of its train pixels, most frequent first."""
    shares = _shares([c["train"]["pixels"] for c in classes])
    rows = [
        {"name": c["class"], "color": _css(c["color"]), "share": share, "images": c["train"]["images"]}
        for c, share in zip(classes, shares, strict=True)
    ]
    return sorted(rows, key=lambda row: -(row["share"] or 0))


def _css(color: Sequence[int]) -> str:
    return "rgb({} {} {})".format(*color)


def _findings(checks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry a rule of the validate step that was broken: its first finding, and how many more there are."""
    rules = Counter(finding["rule"] for finding in checks["findings"])
    first = {finding["rule"]: finding for finding in reversed(checks["findings"])}
    return [{**first[rule], "more": count - 1} for rule, count in rules.items()]
