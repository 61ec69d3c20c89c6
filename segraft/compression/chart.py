"""The Pareto front as a self-contained SVG: latency across, mIoU up, area of a dot for the size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from segraft.evaluation.charts import ticks

if TYPE_CHECKING:
    from segraft.compression.search import Budget, Candidate

PLOT, HEIGHT, LEFT, GAP, TOP, BOTTOM, LINE = 430, 400, 60, 20, 30, 50, 18
LETTER = 7
"""Width of a letter, of the widest fonts that a browser takes for sans-serif; all in user units."""
HEADING = "what no other beats; grey: beaten, or refused by the gate"
STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.front{fill:none;stroke:#2060c0}.limit{stroke:#c03030;"
    "stroke-dasharray:4}.on{fill:#2060c0}.off{fill:#bbb}.best{stroke:#000;stroke-width:2}"
)


def draw(candidates: Sequence[Candidate], front: Sequence[Candidate], best: Candidate | None, budget: Budget) -> str:
    """An SVG document; dots on the front have a number that stands beside with their cost, the chosen one has a ring.

    The line joins what is the most accurate at its speed; what is on the front for its size alone lies below it.
    """
    across = ticks(0, max(c.latency_ms for c in candidates))
    low, high = (100 * f(c.miou for c in candidates) for f in (min, max))
    up = ticks(math.floor(low), high + 0.5)
    listed = [HEADING, *(f"{number}  {_told(c)}" for number, c in enumerate(front, 1))]
    right, beside = LEFT + PLOT, LEFT + PLOT + GAP
    width, height = beside + LETTER * max(map(len, listed)), max(HEIGHT, TOP + LINE * len(listed))

    def x(ms: float) -> float:
        return round(LEFT + PLOT * ms / across[-1], 1)

    def y(points: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (points - up[0]) / (up[-1] - up[0]), 1)

    parts = [f'<text x="{LEFT}" y="16">mIoU on val, percent; area of a dot: megabytes</text>']
    for mark in across:
        parts.append(f'<text x="{x(mark)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark:g}</text>')
    for mark in up:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(mark)}" y2="{y(mark)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(mark) + 4}" text-anchor="end">{mark:g}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">ms an image</text>')
    if budget.ms <= across[-1]:
        parts.append(f'<line class="limit" x1="{x(budget.ms)}" x2="{x(budget.ms)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    rising = [c for i, c in enumerate(front) if all(c.miou > faster.miou for faster in front[:i])]
    path = " ".join(f"{x(c.latency_ms)},{y(100 * c.miou)}" for c in rising)
    parts.append(f'<polyline class="front" points="{path}"/>')
    for c in candidates:
        look = ("on" if c in front else "off") + (" best" if c == best else "")
        place = f'cx="{x(c.latency_ms)}" cy="{y(100 * c.miou)}" r="{max(3.0, 1.5 * math.sqrt(c.size_mb)):.1f}"'
        parts.append(f'<circle class="{look}" {place}><title>{escape(_told(c))}</title></circle>')
        if c in front:
            number = front.index(c) + 1
            parts.append(f'<text x="{x(c.latency_ms) + 8}" y="{y(100 * c.miou) - 8}">{number}</text>')
    for line, text in enumerate(listed):
        parts.append(f'<text x="{beside}" y="{TOP + LINE * line}">{escape(text)}</text>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{STYLE}</style>\n{body}\n</svg>\n'


def _told(of: Candidate) -> str:
    return f"{of.runtime}, {of.form}: {of.latency_ms:.1f} ms, {of.size_mb:.1f} MB, {100 * of.miou:.2f}"
