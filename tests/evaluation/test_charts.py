from __future__ import annotations

import re

import pytest

from segraft.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, ticks
from segraft.evaluation.history import POINTS, Log


@pytest.mark.parametrize("high", [1e-6, 0.37, 1, 3.2, 99, 12345])
def test_ticks_are_round_few_and_reach_the_end(high):
    marks = ticks(0, high)
    assert marks[0] == 0 and marks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(marks) <= 7
    assert all(len(f"{mark / marks[1]:g}") <= 3 for mark in marks)
    assert f"{marks[1]:e}"[:5] in ("1.000", "2.000", "2.500", "5.000")


def test_curves_stay_inside_and_keep_their_direction():
    chart = line_chart("Loss", "step", {"a": [(1, 5.0), (50, 0.5)], "b": [(10, 3.0)], "none": []})
    assert [line.name for line in chart.lines] == ["a", "b"]
    (x0, y0), (x1, y1) = chart.lines[0].dots
    assert x0 < x1 and y0 < y1  # a falling loss falls on the screen, where y grows downwards
    for x, y in [dot for line in chart.lines for dot in line.dots]:
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM
    assert re.fullmatch(r"M[\d. ]+L[\d. ]+", chart.lines[0].path)
    assert "a from 5 to 0.5" in chart.summary


def test_nothing_to_draw():
    assert line_chart("Loss", "step", {"a": []}) is None


def test_all_zero_is_drawn():
    assert line_chart("Loss", "step", {"a": [(0, 0.0), (0, 0.0)]}).lines


def test_long_series_are_averaged_down():
    log = Log("a", {}, [{"step": i, "loss": float(i % 2), "val_miou": None} for i in range(1, 10 * POINTS + 1)])
    series = log.series("loss")
    assert len(series) == POINTS and series[-1] == (10 * POINTS, 0.5)
    assert log.series("val_miou") == []


def test_the_planned_schedule_has_a_line_for_each_part_of_each_run_in_the_run_s_colour():
    from segraft.evaluation.report import _charts

    plan = {"encoder": [[0, 0.0], [10, 0.001], [19, 0.0]], "decoder and head": [[0, 0.0], [10, 0.002], [19, 0.0]]}
    (chart,) = _charts([Log("finetune", {"schedule": plan}, []), Log("scratch", {}, [])])
    assert chart.title == "Planned learning rate"
    assert [line.name for line in chart.lines] == ["finetune encoder", "finetune decoder and head"]
    assert chart.lines[0].path != chart.lines[1].path and "finetune encoder from 0 to 0" in chart.summary
