"""What a training step on a CPU does otherwise: the same numbers with less work."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from segraft.device import autocast
from segraft.errors import UserError
from segraft.training.cpu import fit_convolutions, give_upsamplings_dense_gradients


def depthwise(channels=4, kernel=3, stride=1, dilation=1):
    torch.manual_seed(0)
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)


def fitted_to(conv):
    other = copy.deepcopy(conv)
    fit_convolutions(other)
    return other


def with_gradients(conv, images):
    images = images.detach().requires_grad_()
    out = conv(images)
    out.sin().sum().backward()
    return out, images.grad, conv.weight.grad


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dilation", [2, 6, 12])
def test_a_dilated_convolution_is_the_same_on_maps_that_it_overreaches(groups, dilation):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)
    images = torch.randn(2, 4, 6, 5)
    for ours, theirs in zip(with_gradients(fitted_to(plain), images), with_gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(14, 14), (9, 30), (28, 28)])
@pytest.mark.parametrize("dilation", [3, 6, 12, 24])
def test_a_dilated_depthwise_convolution_is_the_same_however_much_padding_it_sees(size, dilation):
    plain = depthwise(dilation=dilation)
    images = torch.randn(2, 4, *size).to(memory_format=torch.channels_last)
    for ours, theirs in zip(with_gradients(fitted_to(plain), images), with_gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_depthwise_convolution_that_sees_much_padding_does_not_compute_it():
    products = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            products.append(str(function))
            return function(*args, **(kwargs or {}))

    for dilation in (12, 2):
        products.clear()
        with Seen():
            fitted_to(depthwise(dilation=dilation))(torch.randn(1, 4, 14, 14))
        assert any("convolution" in name for name in products) == (dilation == 2)


@pytest.mark.parametrize(
    ("conv", "dtype"),
    [(depthwise(), torch.float32), (depthwise(dilation=2), torch.float32), (nn.Conv2d(4, 4, 3), torch.bfloat16)],
)
def test_depthwise_convolutions_stay_in_float32_under_autocast(conv, dtype):
    with torch.autocast("cpu", torch.bfloat16):
        assert fitted_to(conv)(torch.randn(1, 4, 16, 16)).dtype == dtype


def test_a_strided_convolution_is_left_as_it_is():
    conv = nn.Conv2d(2, 2, 3, padding=9, dilation=9, stride=2)
    images = torch.randn(1, 2, 6, 6)
    wanted = conv(images)
    fit_convolutions(conv)
    assert torch.equal(conv(images), wanted)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_an_upsampling_before_a_concatenation_gets_a_dense_gradient(mode, layout):
    gradients, dense = [], []
    for ours in (False, True):
        torch.manual_seed(0)
        low = torch.randn(2, 3, 4, 4).to(memory_format=layout).requires_grad_()
        high = torch.randn(2, 5, 8, 8).to(memory_format=layout)
        large = functional.interpolate(low, scale_factor=2, mode=mode)
        loss = (torch.cat([large, high], 1).sin() * torch.randn(2, 8, 8, 8).to(memory_format=layout)).sum()
        if ours:
            give_upsamplings_dense_gradients(loss)
        large.grad_fn.register_prehook(lambda slopes: dense.append(slopes[0].is_contiguous(memory_format=layout)))
        loss.backward()
        gradients.append(low.grad)
    assert dense == [False, True]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("amx", "avx512", "enabled"),
    [
        (True, True, {"auto": True, "bf16": True, "fp32": False}),
        (False, True, {"auto": False, "bf16": True, "fp32": False}),
        (False, False, {"auto": False, "bf16": None, "fp32": False}),
    ],
)
def test_bf16_is_chosen_where_it_is_faster_and_refused_where_it_is_none(amx, avx512, enabled, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    for precision, on in enabled.items():
        if on is None:
            with pytest.raises(UserError, match="precision: bf16: this cpu does not multiply bfloat16"):
                autocast(torch.device("cpu"), precision)
        else:
            with autocast(torch.device("cpu"), precision)():
                assert torch.is_autocast_enabled("cpu") == on
