"""What validate.json says: counts, statistics of both datasets, drift, rules and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from segraft.data.formats import SPLITS
from segraft.data.validation.classes import Census
from segraft.data.validation.listings import Given, drawn
from segraft.data.validation.suite import Checked


def summarize(
    facts: pa.Table,
    given: Mapping[str, Given],
    counted: Census,
    drift: pd.DataFrame,
    checked: list[Checked],
) -> dict[str, Any]:
    """The content of validate.json, without its timings."""
    findings = [finding for one in checked for finding in one.findings]
    errors = sum(finding.severity == "error" for finding in findings)
    return {
        "errors": errors,
        "warnings": len(findings) - errors,
        "samples": facts.num_rows,
        "datasets": {name: _dataset(facts, name, one) for name, one in given.items()},
        "classes": {name: _classes(counted, name, one) for name, one in given.items()},
        "drift": drift.to_dict("records"),
        "rules": [
            {"rule": c.rule.name, "severity": c.rule.severity, "rows": c.rows, "findings": len(c.findings)}
            for c in checked
        ],
        "findings": [finding.as_json() for finding in findings],
    }


def _dataset(facts: pa.Table, name: str, given: Given) -> dict[str, Any]:
    import pyarrow.compute as pc

    mine = facts.filter(pc.field("dataset") == name)
    times = {key: Counter(mine[key].to_pylist()) for key in ("split", "image_size", "image_format", "mask_format")}
    mean, std = _pixels(mine)
    return {
        "path": str(given.root),
        "format": given.knobs.format,
        "taxonomy": given.taxonomy.name,
        "encoding": given.listing.encoding,
        "samples": {split: times["split"][split] for split in SPLITS},
        "splits": drawn(given),
        "bytes": pc.sum(mine["image_bytes"]).as_py() or 0,
        **{f"{key}s": {str(k): n for k, n in times[key].most_common(8) if k} for key in times if key != "split"},
        "mean": mean,
        "std": std,
    }


def _pixels(facts: pa.Table) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of all pixels of each channel, RGB, grey levels; empty if there are none."""
    rows = [row for row in facts.select(["height", "width", "mean", "std"]).to_pylist() if row["mean"]]
    if not rows:
        return [], []
    weight = np.array([row["height"] * row["width"] for row in rows], float)[:, None] / len(rows)
    means, stds = (np.array([row[key] for row in rows], float) for key in ("mean", "std"))
    mean = (weight * means).sum(0) / weight.sum()
    variance = (weight * (stds**2 + means**2)).sum(0) / weight.sum() - mean**2
    return mean.round(2).tolist(), np.sqrt(variance).round(2).tolist()


def _classes(counted: Census, name: str, given: Given) -> list[dict[str, Any]]:
    """A row a class: how many masks of each split show it, and with how many pixels."""
    return [
        {
            "class": one.name,
            "color": list(one.color),
            **{
                split: {"images": int(shown.images[trainid]), "pixels": int(shown.pixels[trainid])}
                for split, shown in counted[name].items()
            },
        }
        for trainid, one in enumerate(given.taxonomy.classes)
    ]
