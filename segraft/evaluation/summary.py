"""The content of evaluate.json: every model's scores side by side, and what the transfer was worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segraft.evaluation.intervals import LEAST, interval, resampled_miou
from segraft.evaluation.run import Scores
from segraft.steps import Metrics

MODELS = ("source", "scratch", "transferred")
"""The source model as it is, the same network trained on the target alone, and the transferred one."""


def summarize(results: Mapping[str, Scores]) -> dict[str, Any]:
    """evaluate.json; a model that was not scored is None, and so is the gain over it."""
    transferred = results["transferred"]
    baselines = [model for model in MODELS if model != "transferred"]
    return {
        "split": transferred.split,
        "images": len(transferred.ids),
        "dataset": transferred.dataset,
        "classes": [c.name for c in transferred.card.classes],
        "gain": {f"over_{m}": gain(transferred, results[m]) if m in results else None for m in baselines},
        **{model: results[model].as_json() if model in results else None for model in MODELS},
    }


def gain(of: Scores, over: Scores) -> dict[str, Any]:
    """Difference of two models' mIoU and its paired bootstrap interval: both see the same resampled images."""
    assert of.ids == over.ids and of.dataset == over.dataset
    low, high = interval(resampled_miou(of.counts) - resampled_miou(over.counts))
    return {"miou": of.miou - over.miou, "interval": [low, high]}


def metrics(summary: Mapping[str, Any]) -> Metrics:
    """The headline of a summary as flat numbers; what was not scored is left out."""
    flat: Metrics = {}
    for model in MODELS:
        if summary[model]:
            flat |= {f"{model}_{score}": summary[model][score] for score in ("miou", "pixel_accuracy", "dice")}
    return flat | {f"gain_{over}": value["miou"] for over, value in summary["gain"].items() if value}


def verdict(gain: Mapping[str, Any], images: int, over: str) -> str:
    """A gain in words, for example: Transfer gained 3.2 points of mIoU over training from scratch."""
    low, high = gain["interval"]
    if images < LEAST:
        return f"Too few images ({images}) to tell transfer from {over}"
    if low <= 0 <= high:
        return f"No clear difference between transfer and {over}"
    change = "gained" if low > 0 else "lost"
    return f"Transfer {change} {100 * abs(gain['miou']):.1f} points of mIoU {'over' if low > 0 else 'against'} {over}"
