"""The loss that upsamples by itself: the same numbers with less work."""

import copy

import pytest
import torch
from torch import nn

from segraft.models import create_model
from segraft.training.fused import DeferredUpsampling, defer_upsampling, fused_cross_entropy
from segraft.training.losses import cross_entropy


def masks(classes=5, side=32):
    torch.manual_seed(1)
    labels = torch.randint(0, classes, (2, side, side))
    labels[0, :9] = 255
    return labels


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])])
@pytest.mark.parametrize("align", [True, False])
def test_loss_and_gradient_are_those_of_upsampling_first(weights, align):
    upsampling = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=align)
    torch.manual_seed(0)
    low = torch.randn(2, 5, 8, 8, requires_grad=True)
    apart = 3 * cross_entropy(upsampling(low), masks(), weights, 255)
    (wanted,) = torch.autograd.grad(apart, low)
    fused = 3 * fused_cross_entropy(low, masks(), weights, 255, upsampling)
    (gradient,) = torch.autograd.grad(fused, low)
    assert fused.item() == pytest.approx(apart.item(), rel=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)


def test_only_ignored_pixels_give_zero_and_no_gradient():
    low = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = fused_cross_entropy(low, torch.full((1, 8, 8), 255), None, 255, nn.UpsamplingBilinear2d(scale_factor=2))
    loss.backward()
    assert loss.item() == 0
    assert not low.grad.any()


@pytest.mark.parametrize("arch", ["deeplabv3plus", "deeplabv3"])
def test_a_model_leaves_its_upsampling_to_the_loss_only_while_it_trains(arch):
    model = create_model(arch, "resnet18", 3)
    whole = copy.deepcopy(model).eval()
    upsampling = defer_upsampling(model)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), whole(images))
        low = model.train()(images)
    assert low.shape[2] * int(upsampling.scale_factor) == 64
    assert model.state_dict().keys() == whole.state_dict().keys()


def test_a_head_without_upsampling_is_left_alone():
    model = create_model("unet", "resnet18", 3)
    assert defer_upsampling(model) is None
    assert not any(isinstance(module, DeferredUpsampling) for module in model.modules())
