"""Geometry of line charts: what the report's template needs to draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34
"""Margins of the plot area in the picture, user units."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    path: str
    """the d of an SVG path"""
    dots: tuple[tuple[float, float], ...]
    """where to mark points; none when there are many"""


@dataclass(frozen=True)
class Chart:
    """A line chart."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    """what a reader who does not see the picture is told"""


def line_chart(title: str, x_label: str, series: Mapping[str, Points], dots_up_to: int = 40) -> Chart | None:
    """A chart of all series that have points, or None if none has; y starts at 0."""
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    x_marks = ticks(0, max(x for points in series.values() for x, _ in points))
    y_marks = ticks(0, max(y for points in series.values() for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / x_marks[-1]
        up = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / y_marks[-1]
        return round(across, 1), round(up, 1)

    lines = [_line(name, [place(x, y) for x, y in points], dots_up_to) for name, points in series.items()]
    ends = ", ".join(f"{name} from {p[0][1]:.3g} to {p[-1][1]:.3g}" for name, p in series.items())
    return Chart(
        title,
        x_label,
        tuple(lines),
        tuple(Tick(place(x, 0)[0], f"{x:g}") for x in x_marks),
        tuple(Tick(place(0, y)[1], f"{y:g}") for y in y_marks),
        f"{title}: {ends}",
    )


def _line(name: str, places: Points, dots_up_to: int) -> Line:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    return Line(name, path, tuple(places) if len(places) <= dots_up_to else ())


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to the first that is not below `high`, about as many as asked for."""
    step = (high - low or 1) / about
    unit = 10.0 ** math.floor(math.log10(step))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= step * 0.999)
    count = math.ceil((high - low) / step - 1e-9) or 1
    return [round(low + i * step, 10) for i in range(count + 1)]
