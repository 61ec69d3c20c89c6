"""Data-parallel training under torchrun: what the processes share. One process alone shares nothing and pays nothing.

Each process takes its part of every global batch, so that the samples of a step, their order and their augmentation do
not depend on how many processes there are. Gradients are averaged (Li et al. 2020), BatchNorm sees the global batch,
and losses are weighted by labelled pixels: the weights are those of one process, up to the order of sums. The first
process alone writes checkpoints, so a run may go on with another number of processes.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from segraft.errors import UserError
from segraft.training import STRATEGY
from segraft.training.checkpoints import CheckpointStore, Tensors
from segraft.training.sharding import gathered, shard, whole

Checkpoint = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]


class Store(Protocol):
    """Where checkpoints are: `CheckpointStore`, or the first process's, shared."""

    def save(self, step: int, parts: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`."""

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint, (parts, state)."""

    def close(self, finished: bool) -> None:
        """Let go of the folder."""


class World:
    """The processes that train together, as torchrun's environment names them.

    Args:
        device: where this process computes; CUDA talks through NCCL, everything else through gloo.

    Raises:
        UserError: there is no such strategy; or torchrun has restarted this process in a way that would make it wait
            for ever.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        strategy = os.environ.get(STRATEGY, "") or "ddp"
        if strategy not in ("ddp", "fsdp"):
            raise UserError(f"{STRATEGY}: {strategy}: must be ddp or fsdp")
        self.sharded = self.size > 1 and strategy == "fsdp"
        """whether weights are spread over the processes"""
        if self.size > 1:
            _refuse_stale_addresses()
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def close(self) -> None:
        """Leave; the last call."""
        if self.size > 1:
            distributed.destroy_process_group()

    def part_of(self, batch_size: int) -> tuple[int, int]:
        """(rank, processes), by which a loader takes its part of each global batch.

        Raises:
            UserError: the batch cannot be divided.
        """
        if batch_size % self.size:
            raise UserError(f"batch_size: {batch_size} samples cannot be shared evenly by {self.size} processes")
        return self.rank, self.size

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            values = values.to(self.device, copy=True)
            distributed.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        values = torch.tensor([value], device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def weigh(self, loss: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
        """A mean over this process's labelled pixels, so scaled that the processes' mean is that of the global batch.

        Losses that are no mean over pixels (OHEM, Dice, Tversky, Lovász, boundary) are taken over each process's part.
        """
        if self.size == 1:
            return loss
        labelled = (masks != ignore_index).sum().double()
        return loss * (self.size * labelled / self.total(labelled).clamp(min=1)).to(loss.dtype)

    def spread(self, models: Sequence[nn.Module], groups: Sequence[dict[str, Any]]) -> None:
        """Let each process keep a part of the weights only.

        Args:
            models: changed in place; the first is trained.
            groups: the parameter groups of its optimizer, which get its new parameters.
        """
        from torch.distributed.device_mesh import init_device_mesh

        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        mesh = init_device_mesh(self.device.type, (self.size,))
        for model in models:
            shard(model, mesh)
        parameters = dict(models[0].named_parameters())
        for group in groups:
            group["params"] = [parameters[names[id(old)]] for old in group["params"]]

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        """A model that this process may call without the others."""
        if not self.sharded:
            yield
            return
        with gathered(model):
            yield

    def parallel(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The model's forward pass, whose backward pass averages gradients over all processes."""
        if self.size == 1:
            return model
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = functools.partial(_normalise, module, module.forward, self)  # type: ignore[method-assign]
        return model if self.sharded else _Parallel(model, self)

    def own_chance(self, seed: int) -> None:
        """Let every process but the first, which goes on as if alone, draw its own dropout.

        A checkpoint holds the first one's chance alone: the others begin anew at each step, seeded with its number.
        """
        if self.rank:
            torch.manual_seed(seed + 1_000_003 * self.rank)

    def store(self, work: Path, fingerprint: str) -> Store:
        """The checkpoints of one run in `work`, which only the first process opens."""
        return CheckpointStore(work, fingerprint) if self.size == 1 else _SharedStore(self, work, fingerprint)

    def from_first(self, payload: bytes) -> bytes:
        """The first process's payload."""
        size = torch.tensor([len(payload)], device=self.device)
        distributed.broadcast(size, 0)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == 0 and payload:
            buffer = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        buffer = buffer.to(self.device)
        distributed.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()


def _refuse_stale_addresses() -> None:
    """After a restart torchrun (2.13) hands out the store of the last try, which holds addresses of dead processes."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            "restarted by torchrun: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before `torchrun --max-restarts`"
        )


class _Parallel:
    """DistributedDataParallel, made anew when other parameters are trained than before (gradual unfreezing)."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._model = model
        self._devices = [torch.cuda.current_device()] if world.device.type == "cuda" else None
        self._trained: list[bool] = []
        self._wrapped: nn.Module | None = None

    def __call__(self, images: Tensor) -> Tensor:
        trained = [parameter.requires_grad for parameter in self._model.parameters()]
        if self._wrapped is None or trained != self._trained:
            self._wrapped = None  # the old one lets go of its hooks first
            self._wrapped = DistributedDataParallel(self._model, self._devices, forward_sync_buffers=False)
            self._trained = trained
        logits: Tensor = self._wrapped(images)
        return logits


def _normalise(module: nn.BatchNorm2d, forward: Callable[[Tensor], Tensor], world: World, x: Tensor) -> Tensor:
    """BatchNorm over the global batch; torch's SyncBatchNorm does that on GPUs alone, and forgets what froze a module.

    Args:
        module: the layer; every process has the same number of pixels.
        forward: its own forward pass, for eval mode.
        world: the processes.
        x: (N, C, h, w), any float dtype.
    """
    if not module.training:
        return forward(x)
    wide = x if x.dtype == torch.float64 else x.float()
    mean, variance = _global_moments(wide, world)
    _remember(module, mean.detach(), variance.detach(), world.size * x.numel() // x.shape[1])
    scale = (variance + module.eps).rsqrt()
    if module.affine:
        scale = scale * module.weight
    normal = (wide - mean[:, None, None]) * scale[:, None, None]
    if module.affine:
        normal = normal + module.bias[:, None, None]
    normal = normal.to(x.dtype)
    timm: Any = module  # whose BatchNormAct2d goes on with what follows the normalisation
    activated: Tensor = timm.act(timm.drop(normal)) if hasattr(timm, "act") else normal
    return activated


def _global_moments(x: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """(C,) mean and variance over all processes, of variances about each one's mean (Chan et al. 1979).

    A mean of squares less the square of the mean would leave nothing of a variance that is small beside the mean.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    own = torch.cat([mean, variance])
    rows = torch.stack([own if rank == world.rank else torch.zeros_like(own) for rank in range(world.size)])
    means, variances = _Sum.apply(rows).chunk(2, 1)  # type: ignore[no-untyped-call]
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _remember(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor, pixels: int) -> None:
    """Move the running statistics as torch does: the variance without bias."""
    if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
        return
    module.num_batches_tracked.add_(1)
    momentum = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    module.running_mean.lerp_(mean, momentum)
    module.running_var.lerp_(variance * pixels / (pixels - 1), momentum)


class _Sum(torch.autograd.Function):
    """Sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


class _SharedStore:
    """The first process's checkpoints; the others are told what it reads, so they need not see its folder."""

    def __init__(self, world: World, work: Path, fingerprint: str) -> None:
        self._world = world
        self._own = None if world.rank else CheckpointStore(work, fingerprint)

    def save(self, step: int, parts: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """All have the same to save, or a part of it: the first saves the whole."""
        gathered = {name: whole(tensors) for name, tensors in parts.items()}
        if self._own:
            self._own.save(step, gathered, state)

    def load(self) -> Checkpoint | None:
        """What the first process reads."""
        from safetensors.torch import load, save

        parts, state = (self._own.load() if self._own else None) or ({}, {})
        named = {f"{part}/{name}": t for part, tensors in parts.items() for name, t in tensors.items()}
        tensors = load(self._world.from_first(save(named)))
        names, state = json.loads(self._world.from_first(json.dumps([list(parts), state]).encode()))
        found: dict[str, dict[str, Tensor]] = {name: {} for name in names}  # an optimizer may have nothing to keep
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            found[part][name] = tensor
        return (found, state) if found else None

    def close(self, finished: bool) -> None:
        """Let go of the folder; a finished run's checkpoints are deleted."""
        if self._own:
            self._own.close(finished)
