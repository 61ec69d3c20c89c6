"""PyTorch: runs every model folder, on the CPU or a GPU, without an export."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segraft.checkpoint import ModelCard, load_model
from segraft.device import autocast, setup
from segraft.models.network import MULTIPLE
from segraft.serving.runtime import Prediction
from segraft.serving.runtimes.padding import pad


class Served(nn.Module):
    """A network with what serving puts around it, so that an engine can fuse it all.

    `forward` takes (N, H, W, 3) uint8 RGB and gives (N, H, W) uint8 trainIds and (N, C, H, W) logits.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (card.preprocessing.mean, card.preprocessing.std)
        )
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", mean / std, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; the bytes of NHWC are channels_last already."""
        logits = self.network(images.permute(0, 3, 1, 2).float() * self.scale - self.shift)
        return logits.argmax(1).to(torch.uint8), logits


class Eager:
    """A model folder in PyTorch, in bf16 where that is faster, as evaluate does.

    Args:
        folder: the model folder.
        threads: CPU threads (0: all that the process may use).

    Raises:
        UserError: the folder is not whole.
    """

    name = "torch"
    stride = MULTIPLE

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.device = setup(threads)
        network, self.card = load_model(folder)
        served = Served(network, self.card).eval().to(self.device)
        self._served: Callable[[Tensor], tuple[Tensor, Tensor]] = served.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._autocast = autocast(self.device, "auto")

    def in_fp32(self) -> Self:
        """The same network, not a copy of it, run in float32."""
        other = copy.copy(self)
        other._autocast = autocast(self.device, "fp32")
        return other

    @torch.inference_mode()
    def predict(self, images: NDArray[np.uint8], logits: bool = False) -> Prediction:
        """See `Runtime.predict`."""
        height, width = images.shape[1:3]
        batch = torch.tensor(pad(images, self.stride), device=self.device)  # copies: a packed image is read-only
        with self._autocast():
            ids, scores = self._served(batch)
        kept = scores[:, :, :height, :width].float().cpu().numpy() if logits else None
        return Prediction(ids[:, :height, :width].cpu().numpy(), kept)


class Compiled(Eager):
    """PyTorch behind torch.compile: the first image of each size waits for the compiler.

    On a GPU it replays CUDA graphs ("reduce-overhead"), one for each size and batch, under a lock because a graph's
    buffers are shared by all its replays; on a CPU it fuses what is around the convolutions.
    After eight sizes (torch._dynamo.config.recompile_limit) others run eagerly.
    """

    name = "torch-compiled"

    def __init__(self, folder: Path, threads: int = 0) -> None:
        super().__init__(folder, threads)
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._served = torch.compile(self._served, mode=mode, dynamic=False)
        self._lock = threading.Lock()

    def predict(self, images: NDArray[np.uint8], logits: bool = False) -> Prediction:
        """See `Runtime.predict`."""
        with self._lock:
            return super().predict(images, logits)
