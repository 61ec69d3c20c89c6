import pytest
import torch
from torch.nn import functional

from segraft.training.losses import class_weights, cross_entropy


def example():
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 8, 8))
    masks[0, :4] = 255
    return torch.randn(2, 3, 8, 8, requires_grad=True), masks


def test_is_torch_s_mean_where_nothing_is_weighted():
    logits, masks = example()
    expected = functional.cross_entropy(logits, masks, ignore_index=255)
    assert torch.allclose(cross_entropy(logits, masks, None, 255), expected)


def test_ignored_pixels_get_no_gradient():
    logits, masks = example()
    cross_entropy(logits, masks, None, 255).backward()
    assert logits.grad[0, :, :4].abs().max() == 0 and logits.grad[0, :, 4:].abs().min() > 0


def test_all_ignored_is_zero_not_nan():
    logits, masks = example()
    loss = cross_entropy(logits, torch.full_like(masks, 255), None, 255)
    loss.backward()
    assert loss == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("kind", ["median_frequency", "inverse_sqrt"])
def test_weights_rise_with_rarity_average_one_and_are_bounded(kind):
    pixels = [600, 300, 90, 0, 1]
    weights = class_weights(pixels, kind)
    share = torch.tensor(pixels) / sum(pixels)
    assert weights[0] < weights[1] < weights[2] <= weights[4]
    assert (weights * share).sum() == pytest.approx(1.0, abs=1e-5)
    assert weights[4] / weights[0] <= 10.001 and weights[3] == 1.0


def test_the_two_kinds_differ_and_none_is_none():
    assert not torch.equal(class_weights([90, 10], "median_frequency"), class_weights([90, 10], "inverse_sqrt"))
    assert class_weights([90, 10], "none") is None


def test_a_weighted_class_counts_more():
    logits, masks = example()
    plain = cross_entropy(logits, masks, None, 255)
    heavy = cross_entropy(logits, masks, torch.tensor([1.0, 1.0, 5.0]), 255)
    assert heavy > plain
