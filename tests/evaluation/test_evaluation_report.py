from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from segraft.evaluation.plots import PERCENT, confusion_rows
from segraft.evaluation.report import percent, points, worst_confusions
from segraft.evaluation.summary import verdict


@pytest.mark.parametrize(
    ("miou", "interval", "images", "words"),
    [
        (0.123, [0.1, 0.15], 5, "Transfer gained 12.3 points of mIoU over scratch"),
        (-0.02, [-0.03, -0.01], 80, "Transfer lost 2.0 points of mIoU against scratch"),
        (0.02, [-0.01, 0.05], 80, "No clear difference between transfer and scratch"),
        (0.004, [0.004, 0.004], 1, "Too few images (1) to tell transfer from scratch"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(miou, interval, images, words):
    assert verdict({"miou": miou, "interval": interval}, images, "scratch") == words


def test_numbers_for_people():
    assert (percent(0.12345), percent(None), percent(float("nan")), percent(1, 0)) == ("12.3", "–", "–", "100")
    assert (points(0.031), points(-0.031)) == ("+3.1", "−3.1")


def test_confusion_rows_are_percent_of_each_labelled_class():
    rows = confusion_rows(np.array([[1, 1, 1], [0, 0, 0], [5, 0, 995]]), ["a", "b", "c"])
    assert len(rows) == 2 * PERCENT
    assert [rows.count(("a", p)) for p in "abc"] == [34, 33, 33]
    assert sum(actual == "b" for actual, _ in rows) == 0
    assert rows.count(("c", "c")) in (99, 100)


def test_worst_confusions_are_shares_of_the_label():
    matrix = np.array([[90, 10, 0], [1, 1, 0], [0, 0, 0]])
    found = worst_confusions(matrix, ["a", "b", "c"])
    assert [(c["label"], c["predicted"], c["share"]) for c in found] == [("b", "a", 0.5), ("a", "b", 0.1)]


class Page(HTMLParser):
    """What a page holds: tags with attributes, and whether they close in order."""

    VOID = ("meta", "link", "img", "line", "circle", "path", "br", "text/")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(report):
    page = Page(report)
    assert page.open == []
    loads = [value for _, name, value in page.attributes if name in ("src", "href", "data", "action", "poster")]
    assert all(value.startswith(("#", "data:")) for value in loads)
    assert not re.search(r"https?://|@import|url\(", report)


def test_every_link_in_the_page_leads_somewhere(report):
    page = Page(report)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for _, name, v in page.attributes if name == "href" and v.startswith("#")} <= set(ids)


def test_names_from_outside_are_text(report):
    assert "<script" not in report
    for text in ("sky &lt;b&gt;&amp;", "rain &lt;i&gt;", "&lt;img&gt;", "&lt;script&gt;alert(1)&lt;/script&gt;"):
        assert text in report


def test_says_what_a_reader_asks_for(report):
    for text in (
        "From scratch",
        "Source as it is",
        "95 % interval",
        "1 of 2 tensors kept",
        "adamw",
        "and 1 more of this kind",
    ):
        assert text in report
