from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from segraft.data.packed import Packed
from segraft.evaluation.examples import WIDTH, WRONG, choose, colored, data_uri, encoded, errors


def test_chooses_the_ends_and_leaves_out_what_has_no_score():
    miou = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.3])
    assert choose(miou, 2) == {"best": [2, 4], "worst": [3, 5]}


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_no_image_is_shown_twice(images):
    chosen = choose(np.linspace(0, 1, images), 4)
    shown = chosen["best"] + chosen["worst"]
    assert sorted(shown) == list(range(images))


def test_errors_are_red_and_ignored_pixels_dark():
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    sample = Packed("a", "g", (), np.full((2, 2, 3), 100, np.uint8), mask)
    picture = errors(sample, np.array([[0, 0], [1, 0]], np.uint8), 255).astype(int)
    right, wrong, ignored = picture[0, 0], picture[0, 1], picture[1, 0]
    assert right.tolist() == picture[1, 1].tolist() == [114, 114, 114]
    assert wrong[0] > 2 * wrong[1] and abs(wrong - np.array(WRONG)).sum() < abs(right - np.array(WRONG)).sum()
    assert ignored.max() < 60


def test_flat_colours_survive_and_wide_pictures_shrink():
    mask = np.random.default_rng(0).integers(0, 3, (30, 2 * WIDTH), dtype=np.uint8)
    colors = [(255, 0, 0), (1, 2, 3), (9, 200, 7)]
    uri = data_uri(colored(mask, colors), "png")
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (15, WIDTH, 3)
    assert {tuple(map(int, p)) for p in picture.reshape(-1, 3)} == set(colors)


def test_ignored_pixels_are_black():
    assert colored(np.array([[255]], np.uint8), [(9, 9, 9)]).tolist() == [[[0, 0, 0]]]


def test_a_jpeg_is_one():
    assert encoded(np.zeros((8, 8, 3), np.uint8), "jpeg").startswith(b"\xff\xd8")
