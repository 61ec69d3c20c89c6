"""Pruning: whole channels, which makes a network smaller and faster, or single weights, which makes it sparse.

Channels go in groups that depend on each other (a convolution, its BatchNorm, what reads it, what is added to it),
found by DepGraph (Fang et al., CVPR 2023, the torch-pruning package) and ranked over the whole network by what the loss
would lose with them, to first order (Molchanov et al., CVPR 2019). Ranking by weights within each layer, a quarter of
each, cost the embedded model most of its accuracy where this cost it one point.
Single weights go by magnitude over the whole network (Han et al., 2015): their zeros save neither time nor memory on
the runtimes here, only bytes of a compressed file; they tell how redundant a network is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from segraft.compression.widths import Widths, widths
from segraft.errors import UserError
from segraft.models.network import MULTIPLE

ROUND_TO = 8
"""Channels stay multiples of this: vector units work on so many at once."""
MOST = 0.9
"""Share of one layer's channels that may go."""
AMISS = 0.1
"""By how much the share that went may be below the one that was asked for."""
Kind = Literal["channels", "weights"]
CRITERION: dict[Kind, str] = {"channels": "taylor", "weights": "magnitude"}
"""How what goes is chosen, for a model's provenance."""


class TooMuch(UserError):
    """So large a share of the channels cannot be removed."""


def prune_channels(network: nn.Module, share: float, losses: Iterable[Tensor]) -> Widths:
    """Remove a share of the network's channels, those first that its loss misses least; the classes stay.

    Args:
        network: changed in place; in eval mode from here on.
        share: of the channels, 0 … below 1.
        losses: of the network on some batches, each computed when it is asked for.

    Returns:
        The new width of each convolution that became narrower.

    Raises:
        UserError: the network holds layers that cannot be narrowed.
        TooMuch: less than the share could go.
    """
    import torch_pruning

    class Importance(torch_pruning.importance.GroupTaylorImportance):  # type: ignore[misc]
        """Puts some channels of each layer beyond reach: the library compares `max_pruning_ratio` before it prunes."""

        def __call__(self, group: Any) -> Tensor | None:
            scores: Tensor | None = super().__call__(group)
            if scores is not None:
                least = ROUND_TO * math.ceil((1 - MOST) * len(scores) / ROUND_TO)
                scores[scores.topk(min(least, len(scores))).indices] = torch.inf
            return scores

    _check_that_all_can_be_narrowed(network)
    before = widths(network)
    classifier = [m for m in network.get_submodule("segmentation_head").modules() if isinstance(m, nn.Conv2d)][-1:]
    example = torch.zeros(1, 3, 2 * MULTIPLE, 2 * MULTIPLE, device=next(network.parameters()).device)
    network.eval().zero_grad()
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    pruner = torch_pruning.pruner.BasePruner(
        network,
        example,
        Importance(normalizer=None),
        global_pruning=True,
        pruning_ratio=share,
        ignored_layers=classifier,
        round_to=ROUND_TO,
    )
    pruner.step()
    network.zero_grad()
    network(example)
    after = widths(network)
    gone = 1 - sum(after.values()) / sum(before.values())
    if gone < share - AMISS:
        raise TooMuch(f"{share:.0%} of the channels cannot go, for layers keep a tenth: {gone:.0%} did; say less")
    return {name: width for name, width in after.items() if width != before[name]}


def _check_that_all_can_be_narrowed(network: nn.Module) -> None:
    for name, _ in network.named_parameters():
        part, owner = name.partition(".")[0], network.get_submodule(name.rpartition(".")[0])
        if not isinstance(owner, (nn.Conv2d, nn.BatchNorm2d)):
            raise UserError(
                f"{name}: {type(owner).__name__} layers cannot be narrowed; say --prune weights, or take "
                f"{'an encoder' if part == 'encoder' else 'an arch'} of convolutions and BatchNorm alone"
            )


def prune_weights(network: nn.Module, share: float) -> None:
    """Set the smallest weights of all convolutions to zero, and keep them there while the network trains on.

    Args:
        network: changed in place.
        share: of the weights, 0 … below 1.
    """
    layers = [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
    for module, name in layers:
        mask: Tensor = module.weight_mask  # type: ignore[assignment]
        prune.remove(module, name)  # type: ignore[no-untyped-call]
        # A weight of zero whose gradient is zero stays zero under SGD, Adam, weight decay and averaging.
        module.weight.register_hook(_masked(mask))  # type: ignore[no-untyped-call]


def _masked(mask: Tensor) -> Any:
    return lambda gradient: gradient * mask.to(gradient.device)


def sparsity(network: nn.Module) -> float:
    """Share of the convolutions' weights that are zero."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
