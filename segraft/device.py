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
    """Whether the hardware multiplies bfloat16 faster than float32: GPUs that have it, and CPUs with AMX.

    AVX512_BF16 alone is not enough: on Intel's cores it has half the rate of float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def autocast(
    device: torch.device, precision: Literal["auto", "fp32", "bf16"]
) -> Callable[[], AbstractContextManager[Any]]:
    """A factory of the context in which forward passes run; bf16 needs no loss scaling.

    Raises:
        UserError: bf16 is asked for on hardware without it.
    """
    fast = multiplies_bf16(device)
    able = fast or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    if precision == "bf16" and not able:
        raise UserError(f"precision: bf16: this {device.type} does not multiply bfloat16; say auto or fp32")
    enabled = precision == "bf16" or (precision == "auto" and fast)
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=enabled)


def environment(device: torch.device) -> dict[str, Any]:
    """What a bit-identical repetition would need to be the same."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "bf16": multiplies_bf16(device),
    }
