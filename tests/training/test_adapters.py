import copy

import pytest
import torch

from segraft.errors import UserError
from segraft.models import create_model
from segraft.training.adapters import add_lora, merge_lora


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("segformer", "mit_b0", 3).eval()


IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def learn(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        optimizer.step()


def test_it_starts_from_the_model_learns_little_and_merges_into_a_plain_one(model):
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(IMAGES)
    count = sum(p.numel() for p in model.encoder.parameters())
    add_lora(model.encoder, 2)
    with torch.no_grad():
        assert torch.equal(model(IMAGES), before)
    learned = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    assert 0 < learned < 0.05 * count
    learn(model)
    with torch.no_grad():
        after = model(IMAGES)
    merge_lora(model)
    merged = model.state_dict()
    assert set(merged) == set(plain)
    with torch.no_grad():
        assert not torch.allclose(after, before) and torch.allclose(model(IMAGES), after, atol=1e-5)
    moved = {name for name in merged if name.startswith("encoder.") and not torch.equal(merged[name], plain[name])}
    linear = {f"encoder.{n}.weight" for n, m in model.encoder.named_modules() if isinstance(m, torch.nn.Linear)}
    assert moved and moved <= linear


def test_the_update_has_the_rank(model):
    name, before = next(
        (n, m.weight.detach().clone()) for n, m in model.encoder.named_modules() if isinstance(m, torch.nn.Linear)
    )
    add_lora(model.encoder, 2)
    learn(model)
    merge_lora(model)
    change = model.encoder.get_submodule(name).weight.detach() - before
    values = torch.linalg.svdvals(change)
    assert values[1] > 1e-9 and values[2] < 1e-3 * values[0]


def test_a_copy_learns_on_its_own(model):
    add_lora(model.encoder, 2)
    twin = copy.deepcopy(model)
    learn(model)
    with torch.no_grad():
        assert not torch.allclose(model(IMAGES), twin(IMAGES))
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(IMAGES), twin(IMAGES))


def test_a_convolutional_encoder_learns_the_linear_layers_that_it_has():
    encoder = create_model("upernet", "convnext_tiny", 3).encoder
    add_lora(encoder, 2)
    learning = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert learning and all("parametrizations.weight" in name for name in learning)


def test_an_encoder_without_linear_layers_is_refused():
    with pytest.raises(UserError, match="lora_rank: this encoder has no linear layers"):
        add_lora(create_model("unet", "resnet18", 3).encoder, 4)
