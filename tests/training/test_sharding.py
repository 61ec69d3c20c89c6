"""Weights that are spread over processes are trained as whole ones are, and meet them in checkpoints."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from segraft.errors import UserError
from segraft.models import create_model
from segraft.training import STRATEGY
from segraft.training.distributed import World
from segraft.training.layers import running_order
from segraft.training.sharding import SHARE, _size, blocks, gathered, shard, spread, whole
from tests.training.conftest import pack
from tests.training.processes import EXACT, ROOT, TOLERANCE, farthest, killed, losses, step, torchrun, weights

FSDP = {STRATEGY: "fsdp"}

STEPS = """
import copy, functools, sys, torch
from torch import nn
from segraft.models import create_model
from segraft.training.adapters import add_lora
from segraft.training.distributed import World
from segraft.training.layers import freeze

torch.manual_seed(0)
torch.set_num_threads(1)
world = World(torch.device("cpu"))
assert world.sharded

def compare(arch, encoder, prepare, optimizer):
    model = create_model(arch, encoder, 3).double()
    for module in model.modules():  # chance is each process's own
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    prepare(model.get_submodule("encoder"))
    alone = copy.deepcopy(model)
    trained = [{"params": [p for p in net.parameters() if p.requires_grad]} for net in (model, alone)]
    world.spread([model], trained[:1])
    mine = sum(parameter.to_local().numel() for parameter in model.parameters())
    assert mine < 0.6 * sum(parameter.numel() for parameter in alone.parameters())
    forward = world.parallel(model)
    optimizers = [optimizer([group], lr=0.001) for group in trained]
    mine = slice(2 * world.rank, 2 * world.rank + 2)
    for number in range(3):
        images, masks = torch.randn(4, 3, 64, 64).double(), torch.randint(0, 3, (4, 64, 64))
        nets = ((model.train(), forward(images[mine]), masks[mine]), (alone.train(), alone(images), masks))
        for (net, logits, labels), optimizer in zip(nets, optimizers):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
    one, two = ({n: getattr(t, "full_tensor", lambda t=t: t)() for n, t in net.state_dict().items()}
                for net in (model, alone))
    worst = max(float((one[n] - two[n]).abs().max()) for n in one if one[n].is_floating_point())
    print("worst", arch, encoder, worst, flush=True)
    assert worst < float(sys.argv[1])

fused = functools.partial(torch.optim.AdamW, fused=True)
compare("unet", "efficientnet_lite0", lambda encoder: None, fused)
compare("unet", "resnet18", freeze, fused)
# AdamW would make steps of the rounding of gradients that are 0, as those of a transformer's keys' biases are.
compare("segformer", "mit_b0", lambda encoder: add_lora(encoder, 2), torch.optim.SGD)
world.close()
"""


@pytest.mark.slow
def test_in_float64_the_steps_of_spread_weights_are_those_of_whole_ones(tmp_path):
    """BatchNorm of torch and of timm, clipped gradients, a frozen encoder, low-rank updates."""
    (tmp_path / "steps.py").write_text(STEPS)
    done = torchrun(2, str(tmp_path / "steps.py"), str(EXACT), PYTHONPATH=str(ROOT), **FSDP)
    assert done.returncode == 0 and done.stdout.count("worst") == 6, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_gives_the_weights_of_one_process(alone, tmp_path, discs):
    """With averaged weights and clipped gradients, as params.yaml has them."""
    done = torchrun(2, "-m", "--", *step(tmp_path, discs), **FSDP)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-4)
    assert farthest(weights(alone), weights(tmp_path)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fsdp", None), ("ddp", "fsdp")])
def test_a_checkpoint_goes_on_with_another_strategy_or_number_of_processes(alone, tmp_path, discs, before, after):
    done = killed(tmp_path, discs, signal.SIGTERM, 7, **{STRATEGY: before})
    assert done.returncode != 0 and not (tmp_path / "model").exists()
    if after:
        finish = torchrun(2, "-m", "--", *step(tmp_path, discs), **{STRATEGY: after})
    else:
        finish = subprocess.run(
            [sys.executable, "-m", *step(tmp_path, discs)], cwd=ROOT, capture_output=True, text=True
        )
    assert finish.returncode == 0, finish.stderr
    assert "resuming at step 10 of 15" in finish.stdout
    assert farthest(weights(alone), weights(tmp_path)) < TOLERANCE


@pytest.mark.slow
def test_teachers_and_unlabelled_images_are_shared_as_labels_are(alone, tmp_path):
    """Distillation and self-training: chance is a sample's own, so that processes draw what one would have drawn."""
    dataset = pack(tmp_path / "discs", further={"unlabelled": (300, 6)})
    more = [f"pretrain.distill.teacher={alone / 'model'}", "pretrain.distill.kind=feature", "pretrain.l2_sp=0.1"]
    more += ["pretrain.self_train={weight: 1.0, start: 1, threshold: 0.6, mix: 0.5, mask: 0.3, patch: 8, tolerance: 1}"]
    one = [sys.executable, "-m", *step(tmp_path / "one", dataset, *more)]
    subprocess.run(one, cwd=ROOT, check=True)
    for strategy in ("ddp", "fsdp"):
        folder = tmp_path / strategy
        done = torchrun(2, "-m", "--", *step(folder, dataset, *more), **{STRATEGY: strategy})
        assert done.returncode == 0, done.stderr
        assert losses(folder) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
        assert farthest(weights(tmp_path / "one"), weights(folder)) < TOLERANCE
    assert losses(folder)[-1] != pytest.approx(losses(alone)[-1], abs=1e-2), "the teacher and the images add something"


@pytest.mark.slow
def test_gradual_thawing_of_spread_weights_is_refused(tmp_path, discs):
    done = torchrun(2, "-m", "--", *step(tmp_path, discs, "pretrain.freeze=gradual"), **FSDP)
    assert done.returncode != 0 and "freeze: gradual: SEGRAFT_STRATEGY=fsdp cannot thaw weights" in done.stderr


def test_an_unknown_strategy_is_one_clear_error(monkeypatch):
    monkeypatch.setenv(STRATEGY, "zero")
    with pytest.raises(UserError, match="SEGRAFT_STRATEGY: zero: must be ddp or fsdp"):
        World(torch.device("cpu"))


@pytest.mark.parametrize(("arch", "encoder"), [("unet", "resnet18"), ("segformer", "mit_b0"), ("fpn", "mobilenet_v2")])
def test_blocks_are_called_are_small_and_share_nothing(arch, encoder):
    model = create_model(arch, encoder, 3)
    found, called = blocks(model), set(running_order(model))
    parameters = [id(p) for block in found for p in block.parameters()]
    assert set(found) <= called and len(parameters) == len(set(parameters)) > 0
    assert sum(map(_size, found)) > 0.9 * _size(model), "next to nothing is left to be gathered for the whole pass"
    large = [block for block in found if _size(block) > SHARE * _size(model)]
    assert not any(_size(part) for block in large for part in block.modules() if part is not block and part in called)
    assert model.training


def test_what_is_spread_is_gathered_again(tmp_path):
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = create_model("unet", "resnet18", 2).eval()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        images = torch.randn(1, 3, 64, 64)
        answer = model(images).detach()
        shard(model, init_device_mesh("cpu", (1,)))
        assert all(hasattr(p, "full_tensor") for p in model.parameters())
        now = whole(model.state_dict())
        assert all(torch.equal(before[name], now[name]) for name in before)
        model.load_state_dict(spread({name: t + 1 for name, t in before.items()}, model.state_dict()))
        model.load_state_dict(spread(before, model.state_dict()))
        with gathered(model), torch.no_grad():
            assert not any(hasattr(p, "full_tensor") for p in model.get_submodule("encoder").parameters())
            assert torch.allclose(model(images), answer)
        assert all(hasattr(p, "full_tensor") for p in model.parameters())
    finally:
        distributed.destroy_process_group()
    assert not os.environ.get(STRATEGY)
