"""Drift against a reference, and what is said without one."""

import json

import numpy as np
import pytest

from segraft.errors import UserError
from segraft.params import ServeMonitor
from segraft.serving.answers import Segmented
from segraft.serving.drift import SERVING, compare, read_reference, statistics, summarize
from segraft.serving.monitor import Monitor
from tests.serving.test_answers import CARD

NAMES = [c.name for c in CARD.classes]
SETTINGS = ServeMonitor(confidence_every=1, window=400, keep=0, keep_folder="")


def pictures(count, seed, brightness=100.0):
    """Noisy pictures of two classes, and their ids."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        level = rng.normal(brightness, 15)
        image = np.clip(rng.normal(level, 20, (64, 96, 3)), 0, 255).astype(np.uint8)
        ids = np.zeros((64, 96), np.uint8)
        ids[: rng.integers(5, 60)] = 1
        yield image, ids


def rows(count, seed, brightness=100.0):
    for image, ids in pictures(count, seed, brightness):
        yield statistics(image, np.bincount(ids.ravel(), minlength=4), NAMES)


@pytest.fixture(scope="module")
def reference():
    return summarize(rows(300, 0))


def test_the_same_distribution_is_stable_and_another_is_not(reference):
    same, darker = compare(reference, list(rows(300, 1))), compare(reference, list(rows(300, 2, 60)))
    assert {of["level"] for of in same.values()} == {"stable"}
    assert darker["brightness"]["level"] == "major" and darker["area.c1"]["level"] == "stable"
    assert darker["brightness"]["live_mean"] < darker["brightness"]["reference_mean"] - 20
    assert same["brightness"]["psi"] >= 0


def test_psi_is_that_of_its_definition(reference):
    live = [row["brightness"] for row in rows(200, 3, 90)]
    expected = reference.statistics["brightness"]
    share = np.bincount(np.searchsorted(expected.edges, live), minlength=10) / 200
    p, q = (np.asarray(share) * 200 + 0.5) / 205, (np.asarray(expected.shares) * 300 + 0.5) / 305
    found = compare(reference, [{"brightness": value} for value in live])["brightness"]["psi"]
    assert found == pytest.approx(((p - q) * np.log(p / q)).sum())


def test_a_few_images_are_no_drift(reference):
    for seed in range(20):
        found = compare(reference, list(rows(5, seed)))
        assert "major" not in {of["level"] for of in found.values()}


def test_a_class_that_is_hardly_ever_there_does_not_break_it(reference):
    found = compare(reference, list(rows(300, 4)))
    assert found["area.c3"]["psi"] == pytest.approx(0, abs=1e-6) and reference.statistics["area.c3"].edges == (0.0,)


def test_the_reference_travels_in_the_model_folder(tmp_path, reference):
    assert read_reference(tmp_path) is None
    (tmp_path / SERVING).write_text(json.dumps({"runtime": "torch"}))
    assert read_reference(tmp_path) is None
    (tmp_path / SERVING).write_text(json.dumps({"reference": reference.model_dump()}))
    assert read_reference(tmp_path) == reference
    for broken, message in (("{", r"serving.json: not valid JSON"), ("[1]", r"serving.json: reference")):
        (tmp_path / SERVING).write_text(broken)
        with pytest.raises(UserError, match=message):
            read_reference(tmp_path)


def test_the_monitor_remembers_a_window_and_sums_up(reference):
    monitor = Monitor(CARD, reference, SETTINGS)
    assert monitor.drift()["level"] == "unknown"
    for brightness in (100, 50):
        for image, ids in pictures(400, brightness, brightness):
            monitor.observe(Segmented(image, {"ids": ids}), 0.9, None)
    found = monitor.drift()
    assert found["images"] == 400 and found["level"] == "major" and found["statistics"]["brightness"]["images"] == 400
    json.dumps(found, allow_nan=False)
