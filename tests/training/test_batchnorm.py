import pytest
import torch
from torch import nn

from segraft.models import create_model
from segraft.training.batchnorm import freeze_statistics, norms, reestimate, to_group_norm


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
    reestimate(model, batches)
    with torch.no_grad():
        seen = torch.stack([model.encoder.conv1(batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(model.encoder.bn1.running_mean, seen, atol=1e-4)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all("running" in name or "tracked" in name for name in moved)
    assert not any(m.training for m in model.modules()) and model.encoder.bn1.momentum == 0.1


def test_reestimation_undoes_a_change_of_brightness():
    model = network().eval()
    reestimate(model, [images(1)])
    with torch.no_grad():
        expected = model(images(3))
        shifted = model(images(3, shift=2.0))
        reestimate(model, [images(1, shift=2.0)])
        adapted = model(images(3, shift=2.0))
    assert (adapted - expected).abs().mean() < 0.5 * (shifted - expected).abs().mean()


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
