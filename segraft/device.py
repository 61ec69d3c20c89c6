"""What the machine can do: device, threads, and the number format of the matrix products."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segraft.errors import UserError


def setup(threads: int) -> torch.device:
    """Pick the device and pin the number of CPU threads (0: as many as this process may use)."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = False
    # Some backward kernels have no deterministic form on a GPU; those warn.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(
    device: torch.device, precision: Literal["auto", "fp32", "bf16"]
) -> Callable[[], AbstractContextManager[Any]]:
    """A factory of the context in which forward passes run; bf16 needs no loss scaling.

    Raises:
        UserError: bf16 is asked for on hardware without it.
    """
    able = multiplies_bf16(device)
    if precision == "bf16" and not able:
        raise UserError(f"precision: bf16: this {device.type} does not multiply bfloat16; say auto or fp32")
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=able and precision != "fp32")


def keep_depthwise_in_fp32(model: nn.Module) -> None:
    """On a CPU, run depthwise convolutions in float32: their bf16 backward pass costs more than bf16 saves."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = functools.partial(_in_fp32, module.forward)  # type: ignore[method-assign]


def _in_fp32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())


def environment(device: torch.device) -> dict[str, Any]:
    """What a bit-identical repetition would need to be the same."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "bf16": multiplies_bf16(device),
    }
