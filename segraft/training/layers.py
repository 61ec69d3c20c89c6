"""Which layers learn, from when on, and how fast: frozen parts, gradual unfreezing, learning rates by depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from segraft.params import Training
from segraft.training.batchnorm import freeze_statistics, stay_in_eval

STAGES = 4
"""An encoder is taken apart until it has at least so many stages."""
PROBE = 64
"""Side of the blank image, pixels, that shows the order in which an encoder's layers run."""
Piece = nn.Module | nn.Parameter


def freeze(piece: Piece) -> None:
    """No gradients, and eval mode for good: BatchNorm statistics stay too, whatever `train()` is called around it."""
    piece.requires_grad_(False)
    for part in piece.modules() if isinstance(piece, nn.Module) else ():
        stay_in_eval(part)


def thaw(piece: Piece) -> None:
    """Undo `freeze`; the next `train()` reaches the module again."""
    piece.requires_grad_(True)
    for part in piece.modules() if isinstance(piece, nn.Module) else ():
        part.__dict__.pop("train", None)


def stages(encoder: nn.Module) -> list[list[Piece]]:
    """The encoder's parts from its input to its output; each stage holds weights, norms go with the layer before.

    The largest part is replaced by its children until there are four, which finds the stages of a convolutional
    network, the blocks of a transformer and the layers of a plain one. Their order is the one in which they run.
    """
    pieces: list[Piece] = [encoder]
    while sum(map(_has_weights, pieces)) < STAGES and any(_children(piece) for piece in pieces):
        largest = max(pieces, key=lambda piece: _size(piece) if _children(piece) else 0)
        place = pieces.index(largest) if not isinstance(largest, nn.Parameter) else -1
        pieces[place : place + 1] = _children(largest)
    order = running_order(encoder)
    pieces.sort(key=lambda piece: min((order[part] for part in _modules(piece) if part in order), default=0))
    found: list[list[Piece]] = [[]]
    for piece in pieces:
        if _has_weights(piece) and any(map(_has_weights, found[-1])):
            found.append([])
        found[-1].append(piece)
    return found


def _children(piece: Piece) -> list[Piece]:
    """What a module is made of, as far as it has parameters; [] of what is not made of modules."""
    if isinstance(piece, nn.Parameter) or not any(_size(child) for child in piece.children()):
        return []
    return [*piece.parameters(recurse=False), *(child for child in piece.children() if _size(child))]


def _parameters(piece: Piece) -> Iterator[nn.Parameter]:
    return iter((piece,)) if isinstance(piece, nn.Parameter) else piece.parameters()


def _modules(piece: Piece) -> Iterator[nn.Module]:
    return iter(()) if isinstance(piece, nn.Parameter) else piece.modules()


def _size(piece: Piece) -> int:
    return sum(parameter.numel() for parameter in _parameters(piece))


def is_weight(parameter: Tensor) -> bool:
    """Whether it is to decay: biases and scales, however they are shaped, are not."""
    return parameter.ndim == 2 or sum(side > 1 for side in parameter.shape) > 1


def embeddings(model: nn.Module) -> set[str]:
    """Names of the parameters that timm says are not to decay: positions, class and register tokens."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if callable(listed := getattr(module, "no_weight_decay", None))
        for name in listed()
    }


def _has_weights(piece: Piece) -> bool:
    return isinstance(piece, nn.Module) and any(parameter.ndim > 1 for parameter in piece.parameters())


@torch.no_grad()
def running_order(network: nn.Module) -> dict[nn.Module, int]:
    """Module → when it runs, by a pass of a blank image."""
    order: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: object) -> None:
        order.setdefault(module, len(order))

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    training, like = network.training, next(network.parameters())
    network.eval()(like.new_zeros(1, 3, PROBE, PROBE))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return order


class Layers:
    """The optimizer's groups, and what is frozen at which step.

    Args:
        model: what is to be frozen now is frozen.
        training: the knobs: freeze, thaw, layer_decay, encoder_lr, batch_norm.
        total: steps of the run.
        pulled: names of the parameters that are pulled to where they started, and so have no weight decay.
    """

    def __init__(self, model: nn.Module, training: Training, total: int, pulled: frozenset[str] = frozenset()) -> None:
        encoder = model.get_submodule("encoder")
        staged = training.freeze == "gradual" or training.layer_decay < 1
        self._stages = stages(encoder) if staged else [[cast(Piece, encoder)]]
        count = len(self._stages)
        gradual = training.freeze == "gradual"
        starts = [round(training.thaw * total * (count - i) / count) if gradual else 0 for i in range(count)]
        of = {id(p): i for i, stage in enumerate(self._stages) for piece in stage for p in _parameters(piece)}
        self._frozen = sorted((start, i) for i, start in enumerate(starts) if start)
        if training.freeze == "encoder":
            freeze(encoder)
        elif training.freeze == "body":
            for name, child in model.named_children():
                if name != "segmentation_head":
                    freeze(child)
        undecayed = pulled | embeddings(model)
        groups: dict[tuple[str, float, float, int], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay = training.weight_decay if is_weight(parameter) and name not in undecayed else 0.0
                part, peak, start = "decoder and head", training.lr, 0
                if name.startswith("encoder."):
                    stage = of.get(id(parameter), count - 1)
                    part = f"encoder {stage + 1}/{count}" if staged else "encoder"
                    peak *= training.encoder_lr * training.layer_decay ** (count - 1 - stage)
                    start = starts[stage]
                groups.setdefault((part, peak, decay, start), []).append(parameter)
        for _, stage in self._frozen:
            for piece in self._stages[stage]:
                freeze(piece)
        self._fixed = model if training.batch_norm in ("frozen", "reestimate") else nn.Identity()
        freeze_statistics(self._fixed)
        self.groups: list[dict[str, Any]] = [
            {"params": p, "lr": peak, "peak": peak, "weight_decay": decay, "start": start, "part": part}
            for (part, peak, decay, start), p in groups.items()
        ]
        """each carries `peak`, the learning rate that the schedule scales, and the step at which it starts to learn"""

    def at(self, step: int) -> None:
        """Thaw what is to learn from `step` on."""
        while self._frozen and self._frozen[0][0] <= step:
            for piece in self._stages[self._frozen.pop(0)[1]]:
                thaw(piece)
            freeze_statistics(self._fixed)  # which the thaw has let go
