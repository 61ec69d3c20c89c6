from contextlib import nullcontext

import pytest
import torch
from torch import nn

from segraft.errors import UserError
from segraft.models import create_model
from segraft.training.batchnorm import check_lone_image, freeze_statistics, norms, reestimate, to_group_norm


def network(encoder="resnet18"):
    torch.manual_seed(0)
    return create_model("unet", encoder, 3)


def images(seed, shift=0.0):
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) + shift


def test_frozen_statistics_stay_while_scale_and_shift_learn():
    model = network()
    freeze_statistics(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    model(images(0)).square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any("running" in name or "tracked" in name for name in moved)
    assert "encoder.bn1.weight" in moved and "encoder.conv1.weight" in moved


def test_reestimated_statistics_are_the_mean_over_the_batches_and_nothing_else_moves():
    model = network().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [images(1, shift=3.0), images(2, shift=3.0)]
    model.encoder.bn1.num_batches_tracked.fill_(1000)  # what it has seen before does not count
    reestimate(model, batches)
    with torch.no_grad():
        seen = torch.stack([model.encoder.conv1(batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(model.encoder.bn1.running_mean, seen, atol=1e-4)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all("running" in name or "tracked" in name for name in moved)
    assert not any(m.training for m in model.modules()) and model.encoder.bn1.momentum == 0.1


def test_reestimation_leaves_the_mode_as_it_was():
    model = network().train()
    reestimate(model, [images(1)])
    assert all(module.training for module in model.modules())


def test_reestimation_undoes_a_change_of_brightness():
    model = network().eval()
    reestimate(model, [images(1)])
    with torch.no_grad():
        expected = model(images(3))
        shifted = model(images(3, shift=2.0))
        reestimate(model, [images(1, shift=2.0)])
        adapted = model(images(3, shift=2.0))
    assert (adapted - expected).abs().mean() < 0.5 * (shifted - expected).abs().mean()


@pytest.mark.parametrize("arch", ["deeplabv3plus", "upernet"])
def test_a_lone_image_gives_statistics_where_it_has_a_variance(arch):
    torch.manual_seed(0)
    model = create_model(arch, "resnet18", 3).eval()
    seen = [images(1, shift=3.0), images(2, shift=3.0)[:1]]
    pooled = []

    def note(norm, inputs):
        if inputs[0][0, 0].numel() == 1:
            pooled.append(norm)

    for norm in norms(model):
        norm.register_forward_pre_hook(note)
    reestimate(model, seen)
    with torch.no_grad():
        first = torch.stack([model.encoder.conv1(batch).mean((0, 2, 3)) for batch in seen]).mean(0)
    assert torch.allclose(model.encoder.bn1.running_mean, first, atol=1e-4)
    assert pooled and {int(norm.num_batches_tracked) for norm in pooled} == {1}
    before = {name: tensor.clone() for name, tensor in pooled[0].state_dict().items()}
    reestimate(model, [seen[1]])
    assert all(torch.equal(tensor, before[name]) for name, tensor in pooled[0].state_dict().items())


@pytest.mark.parametrize(
    ("arch", "side", "refused"), [("deeplabv3plus", 64, True), ("unet", 64, False), ("unet", 32, True)]
)
def test_one_image_a_batch_is_refused_where_batchnorm_would_see_one_value(arch, side, refused):
    model = create_model(arch, "resnet18", 3)
    image = torch.zeros(1, 3, side, side)
    with pytest.raises(UserError, match="batch_size: 1: this network pools") if refused else nullcontext():
        check_lone_image(model, image)
    with pytest.raises(ValueError, match="more than 1 value") if refused else nullcontext():
        model.train()(image)
    freeze_statistics(model)
    check_lone_image(model, image)


def test_without_images_the_statistics_stay():
    model = network()
    before = model.encoder.bn1.running_var.clone()
    reestimate(model, [])
    assert torch.equal(model.encoder.bn1.running_var, before)


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_lite0"])
def test_group_norm_takes_the_place_names_scales_and_activations(encoder):
    model, original = network(encoder), network(encoder)
    to_group_norm(model)
    assert not norms(model) and sum(isinstance(m, nn.GroupNorm) for m in model.modules()) == len(norms(original))
    left_out = ("running_mean", "running_var", "num_batches_tracked")
    assert list(model.state_dict()) == [n for n in original.state_dict() if not n.endswith(left_out)]
    acts = [type(m.act) for m in original.modules() if hasattr(m, "act")]
    assert [type(m.act) for m in model.modules() if hasattr(m, "act")] == acts
    model.eval()
    with torch.no_grad():
        alone, together = model(images(0)[:1]), model(images(0))[:1]
    assert torch.allclose(alone, together, atol=1e-4), "an image's answer does not depend on its batch"
