import numpy as np
import pytest

from segraft.data.mixing import copy_paste
from segraft.data.transforms import IGNORE, random_crop, rare_classes
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
