"""What is made of ids and logits, checked against the definitions."""

import io
import json
import tracemalloc
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.serving import answers, polygons
from segraft.serving.answers import Segmented, answer, areas, count_pixels, palette_png, run_lengths
from segraft.serving.asks import Options
from segraft.serving.errors import Refused
from segraft.serving.fields import allocate, argmax, confidence, entropy, fill, top
from segraft.serving.polygons import geojson

COLORS = [(128, 64, 128), (107, 142, 35), (70, 130, 180), (0, 0, 142)]
CARD = ModelCard(
    arch="unet",
    encoder="resnet18",
    taxonomy="t",
    classes=tuple(ClassCard(name=f"c{i}", color=color) for i, color in enumerate(COLORS)),
    preprocessing=Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)),
)
SIDES = st.integers(1, 17)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3)))


def softmax(logits):
    exp = np.exp(logits.astype(np.float64) - logits.max(0))
    return exp / exp.sum(0)


@pytest.fixture
def logits():
    return (4 * np.random.default_rng(0).standard_normal((4, 130, 33))).astype(np.float32)


def test_the_maps_are_those_of_their_definitions(logits):
    p = softmax(logits)
    np.testing.assert_array_equal(argmax(logits), logits.argmax(0))
    np.testing.assert_allclose(confidence(logits), p.max(0), rtol=1e-5)
    np.testing.assert_allclose(entropy(logits), -(p * np.log(p)).sum(0) / np.log(4), atol=1e-5)
    ids, probabilities = top(logits, 3)
    np.testing.assert_allclose(probabilities, -np.sort(-p, 0)[:3], rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(p, ids.astype(int), 0), probabilities, rtol=1e-4)


def test_extreme_logits_stay_finite():
    logits = np.array([[[1e30, -1e30, 0]], [[-1e30, -1e30, 0]]], np.float32)
    assert np.isfinite(confidence(logits)).all() and np.isfinite(entropy(logits)).all()
    np.testing.assert_allclose(entropy(logits)[0], [0, 1, 1])


def test_maps_are_filled_block_by_block(logits):
    whole = allocate(["confidence", "topk", "logits", "sample"], 4, 2, (130, 33))
    pieces = allocate(["confidence", "topk", "logits", "sample"], 4, 2, (130, 33))
    fill(whole, (0, 0), logits)
    for y, x in ((0, 0), (0, 19), (70, 0), (70, 19)):
        fill(pieces, (y, x), logits[:, y : (70, 130)[y > 0], x : (19, 33)[x > 0]])
    assert set(whole) == {"confidence", "topk", "topk_probability", "logits", "sample"}
    np.testing.assert_array_equal(whole["sample"], whole["confidence"][::4, ::4])
    for name in whole:
        np.testing.assert_array_equal(whole[name], pieces[name])


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_the_palette_png_holds_ids_and_colors(ids):
    image = Image.open(io.BytesIO(palette_png(ids, CARD)))
    np.testing.assert_array_equal(np.asarray(image), ids)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(COLORS, np.uint8)[ids])


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_run_lengths_decode_to_the_mask(ids):
    found = read(run_lengths(ids, CARD))
    decoded = np.full(ids.shape, 255, np.uint8)
    for segmentation in found["segmentations"]:
        counts = segmentation["counts"]
        assert sum(counts) == ids.size and all(count > 0 for count in counts[1:]), (
            "COCO's form: no empty run but the first"
        )
        flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
        decoded[flat.reshape(ids.shape, order="F")] = segmentation["id"]
    np.testing.assert_array_equal(decoded, ids)


def raster(found: dict, shape: tuple[int, int]) -> np.ndarray:
    """Even-odd filling of GeoJSON polygons whose edges lie between pixels."""
    drawn = np.full(shape, 255, np.uint8)
    for feature in found["features"]:
        crossings = np.zeros(shape, int)
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            for (x, y), (x2, y2) in pairwise(ring):
                assert x == x2 or y == y2
                if x == x2:
                    crossings[min(y, y2) : max(y, y2), x:] += 1
        inside = crossings % 2 == 1
        assert inside.sum() == feature["properties"]["pixels"] and (drawn[inside] == 255).all()
        drawn[inside] = feature["properties"]["id"]
    return drawn


def read(found: dict) -> dict:
    """As a client reads it."""
    return json.loads(orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_polygons_cover_exactly_the_pixels_of_the_mask(ids):
    found = geojson(ids, CARD.classes, simplify=0, min_area=0)
    np.testing.assert_array_equal(raster(read(found), ids.shape), ids)


def test_polygons_can_be_simplified_and_small_ones_left_out():
    yy, xx = np.mgrid[:200, :200]
    ids = ((yy - 100) ** 2 + (xx - 100) ** 2 < 80**2).astype(np.uint8)
    ids[5, 5] = 2
    exact, rough = (geojson(ids, CARD.classes, simplify, 0) for simplify in (0, 2))
    assert [f["properties"]["class"] for f in exact["features"]] == ["c0", "c1", "c2"]
    assert len(exact["features"][0]["geometry"]["coordinates"]) == 3, "an outline and two holes"
    points = [len(found["features"][1]["geometry"]["coordinates"][0]) for found in (exact, rough)]
    assert points[1] < points[0] / 5
    assert [f["properties"]["id"] for f in geojson(ids, CARD.classes, 0, 2)["features"]] == [0, 1]


def test_too_many_polygons_are_refused():
    ids = (np.indices((300, 300)).sum(0) % 2).astype(np.uint8)
    with pytest.raises(Refused, match="min_area") as caught:
        geojson(ids, CARD.classes, 0, 0)
    assert caught.value.status == 413


def test_rows_and_columns_are_worked_on_in_parts(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 4, (40, 50), np.uint8)
    whole = read(geojson(ids, CARD.classes, 0, 0)), read(run_lengths(ids, CARD))
    monkeypatch.setattr(polygons, "ROWS", 7)
    monkeypatch.setattr(answers, "COLUMNS", 7)
    assert (read(geojson(ids, CARD.classes, 0, 0)), read(run_lengths(ids, CARD))) == whole


def test_polygons_and_run_lengths_take_less_than_a_byte_a_pixel_while_they_are_made():
    blocks = np.random.default_rng(0).integers(0, 4, (10, 10), np.uint8)
    ids = blocks.repeat(500, 0).repeat(500, 1)
    for make in (lambda: geojson(ids, CARD.classes, 0, 0), lambda: run_lengths(ids, CARD)):
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < ids.size, f"{peak / ids.size:.1f} bytes a pixel"


@pytest.mark.parametrize("output", ["polygons", "rle"])
def test_noise_is_refused_before_it_fills_the_memory(output):
    noise = np.random.default_rng(0).integers(0, 4, (3000, 3000), np.uint8)
    tracemalloc.start()
    with pytest.raises(Refused, match=f"{output}: .*ask for mask") as caught:
        answer(output, Segmented(np.empty((0, 0, 3), np.uint8), {"ids": noise}), CARD, Options())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 413 and peak < 200 << 20


def test_areas_and_overlay():
    ids = np.array([[0, 1], [1, 3]], np.uint8).repeat(16, 0).repeat(16, 1)
    found = areas(ids, CARD)
    assert [c["share"] for c in found["classes"]] == [0.25, 0.5, 0, 0.25] and found["pixels"] == 1024
    image = np.full((32, 32, 3), 200, np.uint8)
    (made,) = answer("overlay", Segmented(image, {"ids": ids}), CARD, Options(alpha=0.25))
    drawn = np.asarray(Image.open(io.BytesIO(made.value)))
    np.testing.assert_allclose(drawn[0, 0], 0.25 * np.array(COLORS[0]) + 150, atol=1)


def test_every_pixel_of_a_large_image_is_counted():
    ids = np.zeros((4097, 4100), np.uint8)
    ids[-1, -1] = 1
    assert count_pixels(ids, 2).tolist() == [ids.size - 1, 1]


def test_no_client_waits_longer_than_a_day():
    with pytest.raises(ValueError, match="timeout_ms"):
        Options(timeout_ms=10**400)
