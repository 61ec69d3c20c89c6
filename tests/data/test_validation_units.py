"""The parts of validate that need no dataset: reading files safely, near twins, ramps, parallel reading."""

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segraft.data.formats import Sample
from segraft.data.taxonomy import Taxonomy
from segraft.data.validation.classes import chance
from segraft.data.validation.correlation import correlation
from segraft.data.validation.facts import Source
from segraft.data.validation.files import Fault, printable, read_bytes, read_header
from segraft.data.validation.images import difference_hash, small
from segraft.data.validation.masks import MaskReader
from segraft.data.validation.probes import RAMPS, class_warmth, histogram, ramp_share
from segraft.data.validation.scan import WORTH, scan
from segraft.data.validation.twins import LOOK, NONE, Places, exact_twins, near_twins
from segraft.errors import UserError
from tests.data.blobs import TAXONOMY, make_blobs, scene
from tests.data.faults import bomb


def fault(*args) -> str:
    with pytest.raises(Fault) as caught:
        read_bytes(*args)
    return caught.value.rule


def test_paths_that_leave_the_root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "inside").write_text("x")
    (root / "circle").symlink_to("circle")
    (root / "folder").symlink_to("..")
    assert read_bytes(root, "inside", 10) == b"x"
    assert fault(root, "../secret", 10) == "outside_root"
    assert fault(root, "../root/inside", 10) == "outside_root"
    assert fault(root, "folder/secret", 10) == "outside_root"
    assert fault(root, "/etc/passwd", 10**6) == "outside_root"
    assert fault(root, "circle", 10) == "unreadable_file"
    assert fault(root, "inside", 0) == "oversized_file"


def test_a_pipe_and_a_device_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert fault(tmp_path, "pipe", 10) == "special_file"
    assert fault(Path("/dev"), "null", 10) == "special_file"


@pytest.mark.parametrize("side", [13_000, 30_000])
def test_a_bomb_is_refused_by_its_header(side):
    data = bomb(side, side)
    with pytest.raises(Fault) as caught:
        read_header(data, 10**6)
    assert caught.value.rule == "too_many_pixels"


def test_names_are_printable():
    assert printable("a\nb\udcff é.png") == "a\\nb\\udcff é.png"


def test_near_twins_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    count, bits = 400, 6
    hashes = rng.integers(0, 2**63, 40, dtype=np.uint64)[rng.integers(0, 40, count)]
    for _ in range(6):
        hashes ^= np.where(
            rng.random(count) < 0.5, np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64), 0
        ).astype(np.uint64)
    looks = rng.choice([50.0, 55.0, 90.0], (count, 1)) * np.ones((1, 6), np.float32)
    places = Places(rng.integers(0, 3, count), rng.random(count) < 0.3)
    found = near_twins(hashes, looks, places, bits)
    apart = np.bitwise_count(hashes[:, None] ^ hashes).astype(int)
    every = np.arange(count)
    legal = places.leak(every[:, None], every) & (np.abs(looks[:, None] - looks).max(-1) <= LOOK)
    apart[~legal] = 99
    expected = apart.min(axis=1)
    assert ((found != NONE) == (expected <= bits)).all() and (expected <= bits).sum() > 50
    assert all(apart[row, found[row]] == expected[row] for row in np.flatnonzero(found != NONE))


def test_near_twins_of_nothing():
    none = np.empty(0, np.int64)
    assert (
        len(near_twins(none.astype(np.uint64), np.empty((0, 6), np.float32), Places(none, none.astype(bool)), 4)) == 0
    )


def test_exact_twins_of_three_splits():
    places = Places(np.array([0, 0, 1, 2, 2]), np.array([False] * 5))
    leak, repeat = exact_twins(["a", "a", "a", None, "a"], places)
    assert leak.tolist() == [NONE, NONE, 0, NONE, 0]
    assert repeat.tolist() == [NONE, 0, NONE, NONE, NONE]


@pytest.mark.timeout(120)  # all pairs would be 2e8 comparisons, five times over
def test_near_twins_of_ten_thousand_images_take_seconds_not_minutes():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 20_000, dtype=np.uint64)
    places = Places(np.arange(20_000) % 3, np.zeros(20_000, bool))
    found = near_twins(hashes, rng.normal(100, 30, (20_000, 6)).astype(np.float32), places, 4)
    assert found.shape == (20_000,)


def test_noise_hardly_changes_the_difference_hash():
    image = Image.fromarray(scene(1)[0]).convert("L")
    noisy = np.clip(np.asarray(image).astype(int) + np.random.default_rng(0).integers(-2, 3, image.size[::-1]), 0, 255)
    other = np.asarray(Image.fromarray(scene(2)[0]).convert("L"))
    same = difference_hash(np.asarray(image)) ^ difference_hash(noisy.astype(np.uint8))
    assert same.bit_count() <= 4 < (difference_hash(np.asarray(image)) ^ difference_hash(other)).bit_count()


def test_ramps_tell_interpolated_masks_from_drawn_ones():
    drawn, bilinear, enlarged = [], [], []
    for seed in range(12):
        mask = Image.fromarray(scene(seed, (180, 240))[1])
        drawn.append(ramp_share(np.asarray(mask))[0])
        for size, shares in (((120, 90), bilinear), ((480, 360), enlarged)):
            shares.append(ramp_share(np.asarray(mask.resize(size, Image.Resampling.BILINEAR)))[0])
    assert max(drawn) < RAMPS < min(bilinear + enlarged)


def test_ramps_tell_a_thin_class_from_interpolation():
    mask = np.zeros((120, 160), np.uint8)
    for x in (40, 110):
        cv2.circle(mask, (x, 60), 30, 1, -1)
        cv2.circle(mask, (x, 60), 27, 2, -1)
    share, _, through = ramp_share(mask)
    assert share > RAMPS and through == 1
    several = np.asarray(Image.fromarray(2 * mask).resize((200, 150), Image.Resampling.BILINEAR))
    share, _, through = ramp_share(several)
    assert share > RAMPS and through > 1


@pytest.mark.parametrize("shape", [(96, 128), (180, 240), (191, 256)])
def test_correlation_is_that_of_opencv(shape):
    rng = np.random.default_rng(0)
    image = rng.random((*shape, 2), np.float32) + np.float32(1)
    template = image[7:-9, 3:-4] + rng.random((shape[0] - 16, shape[1] - 7, 2), np.float32)
    score, expected = correlation(image, template), cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED)
    assert np.allclose(score, expected, atol=1e-4) and expected[7, 3] == expected.max() > 0.5
    assert np.isfinite(correlation(np.ones_like(image), template)).all()


def test_chance_is_counted():
    """Of all ways to place two images of a class among four of train and three of val, those that leave val none."""
    places = list(itertools.combinations(range(7), 2))
    assert chance(2, 4, 3) == sum(max(place) < 4 for place in places) / len(places)
    assert chance(12, 12, 6) < 1e-4 < chance(4, 8, 4)


def test_histogram_is_exact():
    values = np.random.default_rng(0).integers(0, 256, (301, 217), np.uint8)
    assert (histogram(values) == np.bincount(values.ravel(), minlength=256)).all()
    wide = values.astype(np.uint16) * 3
    assert (histogram(wide) == np.bincount(wide.ravel())).all()
    assert histogram(np.full((4100, 4100), 7, np.uint8))[7] == 4100 * 4100 > 1 << 24


def read_all(blobs, workers, reader=None, count=2 * WORTH + 3):
    source = Source(blobs.root.resolve(), reader or MaskReader(Taxonomy.model_validate(TAXONOMY), "ids"), 10**6)
    names = itertools.islice(itertools.cycle(f"train/{index:02}" for index in range(12)), count)
    tasks = [("target", Sample(str(i), "train", f"images/{n}.png", f"masks/{n}.png", "")) for i, n in enumerate(names)]
    return scan({"target": source}, tasks, workers)


class Deadly(MaskReader):
    """A reader that takes its process with it, as a decoder with a memory error would."""

    def read(self, file):
        os._exit(1)


def test_two_processes_read_what_one_reads(tmp_path):
    blobs = make_blobs(tmp_path, val=0, test=0)
    assert read_all(blobs, 2).equals(read_all(blobs, 1))


def test_a_process_that_dies_names_its_files(tmp_path):
    blobs = make_blobs(tmp_path, val=0, test=0)
    with pytest.raises(UserError, match=r"images/train/00\.png.*validate\.workers"):
        read_all(blobs, 2, Deadly(Taxonomy.model_validate(TAXONOMY), "ids"))


def test_thin_layers_with_consecutive_ids_are_no_ramps():
    heights = [60, 20, 4, 20, 4, 20, 60]
    mask = np.repeat(np.repeat(np.arange(7, dtype=np.uint8), heights)[:, None], 256, 1)
    assert ramp_share(mask)[0] < 0.5
    small = cv2.resize(mask * 3, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST)
    assert ramp_share(cv2.resize(small, (256, 188), interpolation=cv2.INTER_LINEAR))[0] > 0.9


def test_things_on_an_even_ground_are_no_near_twins():
    rng = np.random.default_rng(0)
    hashes, looks = [], []
    for _ in range(60):
        image = rng.normal(120, 3, (256, 256))
        (y, x), (h, w) = rng.integers(0, 220, 2), rng.integers(14, 29, 2)
        image[y : y + h, x : x + w] = 40
        hashes.append(difference_hash(image.clip(0, 255).astype(np.uint8)))
        looks.append([image.mean(), image.std()] * 3)
    places = Places(np.arange(60) % 3, np.zeros(60, bool))
    found = near_twins(np.array(hashes, np.uint64), np.array(looks, np.float32), places, 4)
    assert (found == NONE).all()


@pytest.mark.parametrize("shape", [(2, 600), (5, 1920), (1080, 1920)])
def test_class_warmth_of_strips(shape):
    labels = np.zeros(shape, np.uint8)
    red = np.full((*shape, 3), (90, 0, 30), np.uint8)
    assert class_warmth(small(red), labels, 2) == pytest.approx([60, np.nan], nan_ok=True)
