"""What the machine can do: device, threads, and the number format of the matrix products."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segraft.errors import UserError
from segraft.machine import cores

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def setup(threads: int) -> torch.device:
    """Pick the device and pin the number of CPU threads (0: as many as this process may use).

    Under torchrun the processes of a machine share its cores, and each takes a GPU of its own.
    """
    torch.set_num_threads(threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.backends.cudnn.benchmark = False
    # Some backward kernels have no deterministic form on a GPU; those warn.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next step.

    By default every activation of more than 32 MiB is mapped, zeroed page by page and unmapped again at each step.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


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


def fit_convolutions(model: nn.Module) -> None:
    """On a CPU, compute the same convolutions with less work.

    Depthwise ones run in float32: their bf16 backward pass costs more than bf16 saves. Dilated ones whose outer taps
    fall on padding alone, as those of an atrous pyramid do on a crop, run as the 1×1 convolution that they then are.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if min(module.dilation) > 1 and set(module.kernel_size) == {3} and module.padding == module.dilation:
                module.forward = functools.partial(_centre_alone, module, module.forward)  # type: ignore[method-assign]
            if module.groups == module.in_channels > 1:
                module.forward = functools.partial(_in_fp32, module.forward)  # type: ignore[method-assign]


def _centre_alone(module: nn.Conv2d, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if min(module.dilation) < max(x.shape[2:]) or set(module.stride) != {1}:
        return forward(x)
    centre = module.weight[:, :, 1:2, 1:2]
    if module.groups == module.in_channels == module.out_channels and module.bias is None:
        return x * centre.view(1, -1, 1, 1)
    return functional.conv2d(x, centre, module.bias, groups=module.groups)


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
