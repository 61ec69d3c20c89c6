"""The report as one HTML file that loads nothing: findings with pictures, classes, drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from segraft.data.formats import SPLITS
from segraft.data.validation.facts import Source
from segraft.data.validation.pictures import pictures
from segraft.data.validation.suite import Checked, Finding
from segraft.pages import templates

PICTURED, PICTURED_OF_A_RULE = 60, 8
"""Findings with pictures, in all and of one rule."""
LISTED = 200
"""Findings of one rule that the page lists; validate.json holds them all."""


def render(told: Mapping[str, Any], checked: Sequence[Checked], facts: pa.Table, sources: Mapping[str, Source]) -> str:
    """The page.

    Args:
        told: the content of validate.json.
        checked: the rules and their findings.
        facts: one row a sample.
        sources: how to read the samples' files again, for the pictures.
    """
    environment = templates(Path(__file__).parent)
    environment.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    broken = sorted((one for one in checked if one.findings), key=lambda one: one.rule.severity)
    return environment.get_template("page.html.jinja").render(
        told=told,
        groups=list(_groups(broken, facts, sources)),
        bars={name: _bars(rows) for name, rows in told["classes"].items()},
        curves=[_curves(row) for row in told["drift"]],
        splits=SPLITS,
    )


def _groups(broken: Sequence[Checked], facts: pa.Table, sources: Mapping[str, Source]) -> Iterator[dict[str, Any]]:
    left = PICTURED
    for one in broken:
        count = min(left, PICTURED_OF_A_RULE) if one.rule.picture else 0
        left -= min(count, len(one.findings))
        shown, rest = one.findings[:count], one.findings[count:LISTED]
        yield {
            "rule": one.rule,
            "count": len(one.findings),
            "pictured": [(finding, _pictures(finding, one, facts, sources)) for finding in shown],
            "rest": rest,
            "unlisted": max(0, len(one.findings) - max(LISTED, count)),
        }


def _pictures(
    finding: Finding, checked: Checked, facts: pa.Table, sources: Mapping[str, Source]
) -> list[tuple[str, str]]:
    rows = [row for row in (finding.sample, finding.twin) if row is not None]
    both = checked.rule.picture == "pair"
    return [picture for row in rows for picture in pictures(facts, row, sources[facts["dataset"][row].as_py()], both)]


def _bars(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each class's share of the labelled pixels of each split, percent, and how long its bar is."""
    totals = {split: sum(row[split]["pixels"] for row in rows) for split in SPLITS}
    shares = [{s: 100 * row[s]["pixels"] / totals[s] if totals[s] else None for s in SPLITS} for row in rows]
    longest = max((share for one in shares for share in one.values() if share), default=1.0)
    return [
        {
            "class": row["class"],
            "color": "#{:02x}{:02x}{:02x}".format(*row["color"]),
            "splits": {s: (one[s], 100 * (one[s] or 0) / longest, row[s]["images"]) for s in SPLITS},
        }
        for row, one in zip(rows, shares, strict=True)
    ]


def _curves(row: Mapping[str, Any]) -> dict[str, Any]:
    """The histograms of a statistic as areas of 100 × 40 units."""
    top = max(*row["source_histogram"], *row["target_histogram"])
    areas = {
        name: _area([40 - 38 * value / top for value in row[f"{name}_histogram"]]) for name in ("source", "target")
    }
    return {**row, "areas": areas}


def _area(heights: Sequence[float]) -> str:
    """The d of an SVG path: steps of equal width down to the given heights."""
    step = 100 / len(heights)
    return "M0 40" + "".join(f"V{y:.1f}H{(i + 1) * step:.2f}" for i, y in enumerate(heights)) + "V40Z"
