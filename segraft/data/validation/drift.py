"""How far the images of source and target differ: what a model trained on one meets in the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from segraft.data.validation.images import STATISTICS

FEWEST = 8
"""Images of a dataset for which its spread can be told."""
FLOOR = 1.0
"""Grey levels: the least spread that counts as one deviation."""
BINS = 24

COLUMNS = [
    "dataset",
    "statistic",
    "source",
    "target",
    "deviations",
    "low",
    "high",
    "source_histogram",
    "target_histogram",
]


def drift(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a statistic of `images.STATISTICS`: its mean in both datasets, and their distance in deviations.

    A deviation is the root of the mean of both variances (Cohen 1988, d). The histograms are shares of images in BINS
    equal steps from `low` to `high`.
    """
    role = frame["dataset"].map(lambda name: name.partition("/")[0])  # several sources are one
    values = {name: frame.loc[role == name, list(STATISTICS)].dropna() for name in ("source", "target")}
    if min(map(len, values.values())) < FEWEST:
        return pd.DataFrame(columns=COLUMNS)
    rows = [_row(name, *(part[name].to_numpy(float) for part in values.values())) for name in STATISTICS]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(name: str, source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> dict[str, Any]:
    spread = max(FLOOR, float(np.sqrt((source.var() + target.var()) / 2)))
    low, high = float(min(source.min(), target.min())), float(max(source.max(), target.max()))
    bars = [np.histogram(part, BINS, (low, high))[0] / len(part) for part in (source, target)]
    return {
        "dataset": "target",
        "statistic": name,
        "source": float(source.mean()),
        "target": float(target.mean()),
        "deviations": float(abs(target.mean() - source.mean()) / spread),
        "low": low,
        "high": high,
        "source_histogram": bars[0].round(4).tolist(),
        "target_histogram": bars[1].round(4).tolist(),
    }
