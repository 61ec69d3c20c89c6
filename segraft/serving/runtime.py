"""What serving asks of a runtime: uint8 RGB in, trainIds (and logits, when asked) out; backends are in `runtimes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import ModelCard


@dataclass(frozen=True)
class Prediction:
    """What a runtime says about a batch of images.

    Attributes:
        ids: (N, H, W) uint8 trainIds.
        logits: (N, C, H, W) float32, or None when they were not asked for.
    """

    ids: NDArray[np.uint8]
    logits: NDArray[np.float32] | None


class Runtime(Protocol):
    """A model folder behind some inference engine.

    Attributes:
        name: engine and number format: "torch", "openvino-bf16", …
        card: the model's card.
        stride: sides are padded, by mirroring, to a multiple of this inside `predict`.
    """

    name: str
    card: ModelCard
    stride: int

    def predict(self, images: NDArray[np.uint8], logits: bool = False) -> Prediction:
        """Classify every pixel; several threads may call it at once.

        Args:
            images: (N, H, W, 3) uint8 RGB, of any height and width.
            logits: whether logits are wanted, too.
        """
        ...


def open_runtime(folder: Path, name: str = "auto", threads: int = 0) -> Runtime:
    """The runtime of a model folder.

    Args:
        folder: a model folder, with whatever `segraft export` added to it.
        name: a runtime that the folder holds; "auto": the one that export measured as the best, else eager PyTorch.
        threads: CPU threads (0: all that the process may use).

    Raises:
        UserError: the folder is not whole, or holds no such runtime.
    """
    from segraft.serving.runtimes import open_named

    return open_named(folder, name, threads)
