"""The ladder on paper: a plot as SVG and PNG, and one HTML page that stands on its own."""

from __future__ import annotations

import io
from pathlib import Path

from markupsafe import Markup

from segraft.ladder.table import Outcome
from segraft.pages import templates
from segraft.steps import write_json

SIZE, DPI = (8.0, 4.6), 150


def write(outcome: Outcome, folder: Path) -> None:
    """Write ladder.json, ladder.svg, ladder.png and ladder.html.

    Args:
        outcome: what to tell.
        folder: a new folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ladder.json", {"headline": outcome.headline(), **outcome.as_json()})
    pictures = {kind: plot(outcome, kind) for kind in ("svg", "png")}
    for kind, content in pictures.items():
        (folder / f"ladder.{kind}").write_bytes(content)
    (folder / "ladder.html").write_text(_page(outcome, pictures["svg"].decode()), encoding="utf-8")


def told(outcome: Outcome) -> list[str]:
    """The table and the headline as lines of text."""
    lines = []
    for row in outcome.rows:
        low, high = (100 * end for end in row.score.interval)
        score = f"{100 * row.score.mean:5.1f} % ({low:.1f} to {high:.1f})"
        lines.append(f"{row.rung:<14}{row.labels:>6} labels  {score}  {row.verdict or ''}")
    return [*lines, outcome.headline()]


def plot(outcome: Outcome, kind: str) -> bytes:
    """MIoU against labelled images, a line a rung, with 95 % intervals; the same outcome gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "segraft", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for place, rung in enumerate(dict.fromkeys(row.rung for row in outcome.rows)):
            rows = [row for row in outcome.rows if row.rung == rung]
            x = [row.labels * 1.012**place for row in rows]  # a little apart, so that intervals can be told apart
            y = [100 * row.score.mean for row in rows]
            errors = [[100 * abs(row.score.interval[end] - row.score.mean) for row in rows] for end in (0, 1)]
            axes.errorbar(x, y, errors, marker="o", markersize=4, linewidth=1.4, capsize=2, label=rung)
        marks = sorted({row.labels for row in outcome.rows})
        if marks[0]:  # 0 where source alone was run
            axes.set_xscale("log")
        axes.set_xticks(marks, [str(mark) for mark in marks])
        axes.minorticks_off()
        axes.set_xlabel("labelled images")
        axes.set_ylabel("mIoU on test, percent")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def _page(outcome: Outcome, svg: str) -> str:
    page = templates(Path(__file__).parent, Path(__file__).parents[1] / "evaluation")
    page.filters |= {
        "percent": lambda value: f"{100 * value:.1f}",
        "points": lambda value: f"{100 * value:+.1f}",
        "mega": lambda value: f"{value / 1e6:,.1f}",
    }
    drawing = Markup(svg[svg.index("<svg") :])  # our own, made just now
    return page.get_template("ladder.html.jinja").render(outcome=outcome, svg=drawing, headline=outcome.headline())
