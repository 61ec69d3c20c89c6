"""Images that are in two splits: the same pixels, or nearly the same picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOK = 8.0
"""Grey levels by which the mean and the deviation of a channel may differ between near twins."""
SAYS = 5
"""Of a hash's 64 bits, so many must be set: on an even ground hardly any is, and different pictures agree."""
BLOCK = 1024
"""Images compared with as many others at a time; bounds memory."""
NONE = -1

Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Places:
    """Where images belong: `rank` is 0 for train, 1 for val, 2 for test; `source` tells the two datasets apart."""

    rank: Rows
    source: NDArray[np.bool_]

    def leak(self, scored: Rows, other: Rows) -> NDArray[np.bool_]:
        """Whether a score on images `scored` is worth less if they are also images `other` (broadcast).

        They are in an earlier split of the same dataset, or in the source's train split.
        """
        earlier = self.rank[other] < self.rank[scored]
        same = self.source[other] == self.source[scored]
        leaks: NDArray[np.bool_] = earlier & (same | (self.source[other] & (self.rank[other] == 0)))
        return leaks


def exact_twins(hashes: Sequence[str | None], places: Places) -> tuple[Rows, Rows]:
    """For each image, one with the same pixels that leaks into its score, and one before it in its split; or NONE."""
    leaks, repeats = np.full((2, len(hashes)), NONE)
    first: dict[str, dict[tuple[int, bool], int]] = {}
    for row, digest in enumerate(hashes):
        if digest is not None:
            place = (int(places.rank[row]), bool(places.source[row]))
            repeats[row] = first.setdefault(digest, {}).setdefault(place, row)
    repeats[repeats == np.arange(len(hashes))] = NONE
    for row, digest in enumerate(hashes):
        others = np.array(list(first.get(digest or "", {}).values()), np.int64)
        leaking = others[places.leak(np.array([row]), others)] if len(others) > 1 else others[:0]
        leaks[row] = leaking[0] if len(leaking) else NONE
    return leaks, repeats


def near_twins(hashes: NDArray[np.uint64], looks: NDArray[np.float32], places: Places, bits: int) -> Rows:
    """For each image, the most similar one that leaks into its score, or NONE.

    Two 64-bit hashes that differ in at most `bits` bits agree in one of `bits` + 1 bands, so only images that share a
    band are compared (Manku et al. 2007).

    Args:
        hashes: N difference hashes.
        looks: N×6, mean and standard deviation of each channel: what a hash of brighter and darker does not see.
        places: of the N images.
        bits: the largest distance of near twins.
    """
    best, distance = np.full(len(hashes), NONE), np.full(len(hashes), bits + 1)
    telling = np.bitwise_count(hashes) >= SAYS
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in pairwise(edges):
        keys = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for bucket in _buckets(keys, places.rank):
            for scored, other in _blocks(bucket, places.rank):
                apart = np.bitwise_count(hashes[scored][:, None] ^ hashes[other])
                apart[~(places.leak(scored[:, None], other) & telling[scored][:, None])] = 255
                near, there = np.nonzero(apart < distance[scored][:, None])
                alike = np.abs(looks[scored[near]] - looks[other[there]]).max(1, initial=0) <= LOOK
                for row, twin, bits_apart in zip(
                    scored[near[alike]], other[there[alike]], apart[near[alike], there[alike]], strict=True
                ):
                    if bits_apart < distance[row]:
                        best[row], distance[row] = twin, bits_apart
    return best


def _buckets(keys: NDArray[np.uint64], rank: Rows) -> Iterator[Rows]:
    """Images with the same key, where they are of more than one split."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(keys[order]) > 0))
    mixed = np.minimum.reduceat(rank[order], starts) < np.maximum.reduceat(rank[order], starts)
    ends = np.append(starts[1:], len(order))
    yield from (order[start:end] for start, end in zip(starts[mixed], ends[mixed], strict=True))


def _blocks(bucket: Rows, rank: Rows) -> Iterator[tuple[Rows, Rows]]:
    scored, other = bucket[rank[bucket] > 0], bucket[rank[bucket] < 2]
    for i, j in product(range(0, len(scored), BLOCK), range(0, len(other), BLOCK)):
        yield scored[i : i + BLOCK], other[j : j + BLOCK]
