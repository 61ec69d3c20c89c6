import numpy as np
import pytest

from segraft.data.mixing import copy_paste
from segraft.data.transforms import IGNORE, _color_matrix, random_crop, rare_classes
from segraft.params import Online

STILL = Online(flip=0, rotate=0, scale=(1, 1), color=0, noise=0, blur=0, rare_crop=0)


def scene(height=60, width=80):
    """An image whose colour tells its mask: red is 1, black is 0."""
    mask = np.zeros((height, width), np.uint8)
    mask[20:40, 10:30] = 1
    return np.stack([mask * 200, np.zeros_like(mask), np.zeros_like(mask)], -1), mask


def crop(seed=0, size=(32, 32), rare=(), **changes):
    image, mask = scene()
    return random_crop(image, mask, size, STILL.model_copy(update=changes), rare, np.random.default_rng(seed))


def agree(image, mask):
    """Share of pixels in which image and mask tell the same; borders may be a pixel apart."""
    inside = mask != IGNORE
    return ((image[..., 0] > 100) == (mask == 1))[inside].mean()


def test_a_still_crop_is_a_window_of_the_image():
    _, mask = scene()
    cut, cut_mask = crop(seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(mask, (32, 32))
    assert (windows == cut_mask).all((-1, -2)).any() and agree(cut, cut_mask) == 1.0


@pytest.mark.parametrize("changes", [{"flip": 1.0}, {"rotate": 30.0}, {"scale": (0.5, 2.0)}])
def test_mask_moves_with_the_image(changes):
    moved = [crop(seed, **changes) for seed in range(20)]
    assert min(agree(image, mask) for image, mask in moved) > 0.93
    assert any(not np.array_equal(mask, crop(seed)[1]) for seed, (_, mask) in enumerate(moved))


def linear_part(seed, **changes):
    """(2, 2) of the map from a crop's (x, y) to the image's, read from an image whose colours are its coordinates."""
    rows, columns = np.indices((256, 256), np.uint8)
    image = np.stack([columns, rows, rows], -1)
    changed, rng = STILL.model_copy(update=changes), np.random.default_rng(seed)
    cut, mask = random_crop(image, np.zeros((256, 256), np.uint8), (48, 48), changed, (), rng)
    inside = mask != IGNORE
    y, x = np.nonzero(inside)
    fit, *_ = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], 1), cut[inside][:, :2].astype(float), rcond=None)
    return fit[:2].T


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
def test_a_crop_is_turned_by_no_more_than_the_knob_and_scaled_by_the_zoom_without_shear(flip, zoom):
    maps = [linear_part(seed, flip=flip, rotate=30.0, scale=(zoom, zoom)) for seed in range(40)]
    for found in maps:
        assert found.T @ found == pytest.approx(np.eye(2) / zoom**2, abs=0.03 / zoom**2)
        assert np.sign(np.linalg.det(found)) == (-1 if flip else 1)
    angles = np.rad2deg([np.arctan2(-found[0, 1], found[1, 1]) for found in maps])
    assert np.abs(angles).max() < 30.5 and angles.min() < -15 and angles.max() > 15


def test_zooms_are_drawn_evenly_on_a_logarithmic_scale():
    zooms = [abs(np.linalg.det(linear_part(seed, scale=(0.5, 2.0)))) ** -0.5 for seed in range(100)]
    assert 0.49 < min(zooms) < 0.6 and 1.7 < max(zooms) < 2.04 and np.log(zooms).mean() == pytest.approx(0, abs=0.1)


def test_crops_are_cut_from_everywhere():
    image = np.stack(np.meshgrid(np.arange(256), np.arange(256)) * 2, -1)[..., :3].astype(np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    cuts = (random_crop(image, mask, (32, 32), STILL, (), np.random.default_rng(seed))[0] for seed in range(200))
    corners = np.array([cut[0, 0, :2] for cut in cuts])
    assert (corners.min(0) < 8).all() and (corners.max(0) > 216).all()
    assert corners.mean(0) == pytest.approx([112, 112], abs=20)


def test_flip_mirrors():
    image, mask = scene()
    whole = random_crop(image, mask, (60, 80), STILL.model_copy(update={"flip": 1}), (), np.random.default_rng(0))
    assert np.array_equal(whole[1], mask[:, ::-1]) and np.array_equal(whole[0], image[:, ::-1])


def test_outside_the_image_is_ignored_not_a_class():
    _, mask = crop(size=(96, 96))
    assert (mask == IGNORE).sum() == 96 * 96 - 60 * 80


@pytest.mark.parametrize("changes", [{"color": 0.5}, {"noise": 20.0}, {"blur": 1.0}])
def test_photometric_changes_leave_the_mask_alone(changes):
    image, mask = crop(seed=5, **changes)
    still, still_mask = crop(seed=5)
    assert np.array_equal(mask, still_mask) and not np.array_equal(image, still)


def test_colour_strength_zero_is_identity_and_strength_shows():
    image, mask = scene()
    grey = np.full_like(image, 128)
    changes = STILL.model_copy(update={"color": 0.4})
    values = [random_crop(grey, mask, (32, 32), changes, (), np.random.default_rng(s))[0].mean() for s in range(20)]
    assert np.ptp(values) > 30


LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
CHROMA = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def test_colour_turns_and_fades_the_hue_and_moves_brightness_and_contrast_apart():
    turns = []
    for seed in range(50):
        matrix = _color_matrix(0.8, np.random.default_rng(seed))
        brightness, contrast, saturation = 1 + 0.8 * np.random.default_rng(seed).uniform(-1, 1, 3)
        linear, offset = matrix[:, :3], matrix[:, 3]
        assert linear @ np.full(3, 128) + offset == pytest.approx(np.full(3, 128 * brightness)), "grey stays grey"
        assert LUMA @ linear == pytest.approx(brightness * contrast * LUMA), "hue and saturation leave it"
        red = np.array([200.0, 40.0, 60.0])
        before, after = (complex(*CHROMA @ color) for color in (red, linear @ red / (brightness * contrast)))
        assert abs(after) == pytest.approx(saturation * abs(before), rel=1e-6)
        turns.append(np.angle(after / before))
    assert max(np.abs(turns)) < 0.8 * 0.35 + 1e-6 and min(turns) < -0.1 and max(turns) > 0.1


def test_rare_crops_show_the_rare_class():
    def shown(**changes):
        return np.mean([(crop(seed, size=(16, 16), rare=[1], **changes)[1] == 1).any() for seed in range(60)])

    assert shown(rare_crop=1.0) == 1.0 > shown(rare_crop=0.0)


def test_rare_crop_without_the_class_in_the_image_still_crops():
    assert crop(rare=[7], rare_crop=1.0)[1].shape == (32, 32)


def test_rare_classes_are_the_rarest_third_that_occurs():
    assert rare_classes([100, 5, 0, 50, 7, 900, 60]) == [1, 4]


def test_copy_paste_brings_pixels_and_labels_together():
    image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    guest, guest_mask = scene()
    mixed, mixed_mask = copy_paste(image, mask, guest, guest_mask, [1], np.random.default_rng(0))
    assert (mixed_mask == 1).sum() > 100 and agree(mixed, mixed_mask) > 0.97
    assert not image.any() and not mask.any(), "the host is not changed in place"
    untouched, same = copy_paste(image, mask, guest, guest_mask, [5], np.random.default_rng(0))
    assert np.array_equal(untouched, image) and np.array_equal(same, mask)


def test_copy_paste_leaves_no_rim_where_an_object_is_cut_by_its_photograph():
    flat = np.full((64, 64, 3), 200, np.uint8)
    mask, guest_mask = np.zeros((64, 64), np.uint8), np.ones((64, 64), np.uint8)
    for seed in range(20):
        mixed, _ = copy_paste(flat, mask, flat, guest_mask, [1], np.random.default_rng(seed))
        assert (mixed == 200).all()
