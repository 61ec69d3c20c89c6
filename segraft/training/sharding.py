"""Fully sharded training (FSDP2): a process keeps a part of every weight, of its gradient and of the optimizer's state.

A block's weights are gathered just before it runs and let go afterwards (ZeRO-3, Rajbhandari et al. 2020; Zhao et al.
2023). Frozen and averaged weights are shared out, too. Checkpoints hold whole tensors, as those of one process do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn

from segraft.training.layers import running_order

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

SHARE = 0.125
"""Blocks with more than this share of a model's weights are taken apart, as far as they are made of blocks."""


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a model's weights over the processes of a mesh, in place; buffers stay whole everywhere.

    Args:
        model: on any device, the same in every process; it moves to the mesh's, block by block.
        mesh: of one dimension.
    """
    from torch.distributed.fsdp import fully_shard

    for block in blocks(model):
        block.register_forward_hook(_without_views)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _without_views(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """An operation in place on a view of a block's output would drop the hook that gathers weights when going back."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, lambda t: t.clone() if t._is_view() else t, outputs)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Modules to be gathered each on its own: those that are called, for only a call gathers, and are not too large."""
    called = set(running_order(model))
    limit = SHARE * _size(model)

    def walk(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            inner = [part for part in child.modules() if part is not child and part in called and _size(part)]
            if child in called and 0 < _size(child) and (_size(child) <= limit or not inner):
                yield child
            else:
                yield from walk(child)

    return list(walk(model))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """All weights in every process, which may then call the model as often as it likes, others or not."""
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def is_shared(tensor: Tensor) -> TypeGuard[Any]:
    """Whether a tensor is a DTensor; to ask torch means to import it, which takes longer than all else here."""
    return hasattr(tensor, "full_tensor")


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors gathered, in the memory of the CPU; every process calls this with the same names, in whatever order."""
    found = {name: tensors[name] for name in sorted(tensors)}  # safetensors' own order is another in each process
    return {name: t.full_tensor().cpu() if is_shared(t) else t for name, t in found.items()}


def spread(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, the same in every process, shared out as others of the same names are."""
    return {name: spread_one(t, like[name]) for name, t in tensors.items()}


def spread_one(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor shared out as `like` is, if that is; else itself."""
    if not is_shared(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mine = tensor.to(like.to_local().device)
    return distribute_tensor(mine, like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """What this process keeps of a tensor; a view."""
    return tensor.to_local() if is_shared(tensor) else tensor
