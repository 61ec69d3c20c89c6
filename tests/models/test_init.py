"""Initialisation: what each scheme promises of the weights."""

import pytest
import torch
from torch import nn

from segraft.errors import UserError
from segraft.models import ENCODERS, create_model
from segraft.models.encoders import build_encoder
from segraft.models.init import SCHEMES, initialise


def deviation(scheme):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(64, 128, 3))
    initialise(layer, scheme, zero_last_norm=False)
    assert not layer[0].bias.any()
    return layer[0].weight.detach().std().item()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("xavier_uniform", (2 / (64 * 9 + 128 * 9)) ** 0.5),
        ("xavier_normal", (2 / (64 * 9 + 128 * 9)) ** 0.5),
        ("he_uniform", (2 / (64 * 9)) ** 0.5),
        ("he_normal", (2 / (64 * 9)) ** 0.5),
    ],
)
def test_a_scheme_has_its_variance(scheme, expected):
    assert deviation(scheme) == pytest.approx(expected, rel=0.02)


def test_uniform_is_bounded_and_normal_is_not():
    torch.manual_seed(0)
    layers = {name: nn.Sequential(nn.Linear(200, 200)) for name in ("he_uniform", "he_normal")}
    for name, layer in layers.items():
        initialise(layer, name, zero_last_norm=False)
    bound = (6 / 200) ** 0.5
    assert layers["he_uniform"][0].weight.abs().max() <= bound < layers["he_normal"][0].weight.abs().max()


def test_orthogonal_rows_are_orthonormal():
    layer = nn.Sequential(nn.Conv2d(16, 32, 3))
    initialise(layer, "orthogonal", zero_last_norm=False)
    rows = layer[0].weight.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(32), atol=1e-5)


def test_library_changes_nothing():
    model = create_model("unet", "resnet18", 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialise(model, "library", zero_last_norm=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_draws_by_seed_and_leaves_numbers_finite(scheme):
    model = create_model("swiftnet", "mobilenet_v3_small", 2).eval()
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        initialise(model, scheme, zero_last_norm=False)
        draws.append(model.encoder.features[0][0].weight.clone())
    assert torch.equal(*draws) and model(torch.randn(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50", "efficientnet_lite0", "mobilenet_v2"])
def test_zeroed_residual_blocks_start_as_their_shortcut(encoder):
    model = build_encoder(ENCODERS[encoder], 32).eval()
    initialise(model, "library", zero_last_norm=True)
    seen = []

    def compare(module, inputs, output):
        seen.append(torch.equal(output, inputs[0]) or torch.equal(output, inputs[0].relu()))

    kinds = ("BasicBlock", "Bottleneck", "DarkBlock", "InvertedResidual", "DepthwiseSeparableConv")
    blocks = [m for m in model.modules() if type(m).__name__ in kinds]
    plain = [
        b
        for b in blocks
        if getattr(b, "use_res_connect", getattr(b, "has_skip", True)) and not getattr(b, "downsample", None)
    ]
    for block in plain:
        block.register_forward_hook(compare)
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    assert len(seen) >= 4 and all(seen)


def test_a_network_without_residual_blocks_is_refused():
    with pytest.raises(UserError, match=r"model.zero_last_norm: this encoder has no residual block"):
        initialise(build_encoder(ENCODERS["alexnet"], 32), "library", zero_last_norm=True)
