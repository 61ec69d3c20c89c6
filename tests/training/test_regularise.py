import torch
from torch import nn

from segraft.training.regularise import StartingPoint


def drift(strength, names=("0.weight",), steps=50):
    """How far the weights of a layer that is pushed away end from where they were."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    start = model[0].weight.detach().clone()
    point = StartingPoint(model, strength, names)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model[0].weight.sum().backward()
        optimizer.step()
        point.pull(optimizer)
    return (model[0].weight - start).abs().max().item()


def test_the_pull_keeps_weights_near_their_start_and_finds_its_balance():
    free, pulled = drift(0.0), drift(1.0)
    assert free > 4.9 and abs(pulled - 0.9) < 0.02  # w - w0 = (1 - lr·α) / α for a gradient of 1


def test_it_pulls_what_came_from_the_pretrained_model_alone():
    assert drift(1.0, names=()) == drift(0.0)


def test_it_never_overshoots():
    assert drift(1e6) < 1e-6
