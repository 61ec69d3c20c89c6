"""Batches as a pure function of (seed, step): shuffled, cropped and augmented, made ahead in background threads."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segraft.data.packed import PackedDataset, SplitCard
from segraft.data.transforms import random_crop, rare_classes
from segraft.errors import UserError

WINDOW = 16
"""Shards that are shuffled together: all of a small dataset, a rolling part of one that is streamed."""

PIXELS = 10**9
"""Of a dataset that stands for several: what the blended counts add up to."""

AHEAD = 256
"""How many samples ahead the shard of a sample is fetched."""


@dataclass(frozen=True)
class Batch:
    """One batch."""

    images: NDArray[np.uint8]
    """(N, h, w, 3) RGB"""
    masks: NDArray[np.uint8]
    """(N, h, w) trainIds, 255 ignored; between them, the coarse labels of the dataset's card"""


class Loader:
    """Training batches of a packed split.

    Sample number p of a run is entry p mod n of the shuffled order of pass p div n, augmented with chance drawn from
    (seed, p, split): any batch can be made again on its own, so a resumed run sees what an uninterrupted one would have
    seen.

    Args:
        dataset: the packed dataset; its card says how to crop and augment.
        batch_size: samples a batch.
        seed: of order and augmentation.
        threads: how many batches are made at a time, ahead of the training step.
        part: (i, n): of each batch only the i-th of n equal parts, for process i of n.
        split: which split.
        source_share: share of the samples that is drawn from the split `source`, evenly spread; the same goes for the
            splits that the card names in `shares`, where several datasets were packed together.

    Raises:
        UserError: there is a share, but no split `source`.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        batch_size: int,
        seed: int,
        threads: int = 1,
        part: tuple[int, int] = (0, 1),
        split: str = "train",
        source_share: float = 0.0,
    ) -> None:
        self.split = dataset.split(split)
        # Splits of one batch must not be cropped and coloured alike.
        self._stream = () if split == "train" else (zlib.crc32(split.encode()),)
        shares = dict(dataset.card.shares) if split == "train" else {}
        self._own_share = shares.pop("train", 1.0)
        if source_share:
            shares["source"] = source_share
        self._others = [(share, Loader(dataset, batch_size, seed, split=name)) for name, share in shares.items()]
        if source_share and not len(self._others[-1][1].split):
            raise UserError(f"source_share: {dataset.location} has no source samples; set augment.source_samples")
        self._card = dataset.card
        self._batch_size, self._seed, self._threads, self._part = batch_size, seed, threads, part
        self._rare = rare_classes(self.split.card.class_pixels)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Samples of the split, and of those that were packed with it."""
        joint = (other.split for _, other in self._others if self._own_share < 1)
        return len(self.split) + sum(map(len, joint))

    @property
    def card(self) -> SplitCard:
        """The split's card; where several datasets were packed together, pixels count as often as they are drawn."""
        if self._own_share == 1:
            return self.split.card
        parts = [(self._own_share, self.split.card), *((share, other.split.card) for share, other in self._others)]
        scales = [share / max(1, sum(card.class_pixels)) for share, card in parts]
        counts = {
            name: tuple(
                round(sum(scale * n for scale, n in zip(scales, column, strict=True)) * PIXELS)
                for column in zip(*(getattr(card, name) for _, card in parts), strict=True)
            )
            for name in ("class_pixels", "shown_pixels")
        }
        return SplitCard(shards=(), samples=len(self), **counts)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start … stop - 1."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._threads, "loader") as pool:
            try:
                for step in range(start, stop):
                    while len(waiting) < self._threads + 1 and step + len(waiting) < stop:
                        waiting.append(pool.submit(self.batch, step + len(waiting)))
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """The batch of one step, or this process's part of it."""
        number, parts = self._part
        own = self._batch_size // parts
        first = step * self._batch_size + number * own
        pairs = [self._crop(position) for position in range(first, first + own)]
        return Batch(np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs]))

    def _crop(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rest = 1.0
        for share, other in self._others:
            before, after = (int(share / rest * (position + i)) for i in (0, 1))
            if after > before:
                return other._crop(before)
            position, rest = position - before, rest - share
        done, place = divmod(position, len(self.split))
        order = self._order_of(done)
        self.split.prefetch(self.split.shard_of(order[min(place + AHEAD, len(order) - 1)]))
        sample = self.split[int(order[place])]
        rng = np.random.Generator(np.random.SFC64([self._seed, 1, position, *self._stream]))
        return random_crop(sample.image, sample.mask, self._card.crop, self._card.online, self._rare, rng)

    def _order_of(self, done: int) -> NDArray[np.int64]:
        cached, order = self._order
        if cached != done:
            order = self.order(done)
            self._order = (done, order)
        return order

    def order(self, done: int) -> NDArray[np.int64]:
        """(samples,) the order of pass `done`: shards shuffled, then samples within each window of shards."""
        rng = np.random.Generator(np.random.SFC64([self._seed, 0, done, *self._stream]))
        offsets = self.split.offsets
        shards = rng.permutation(len(offsets) - 1)
        windows = [shards[i : i + WINDOW] for i in range(0, len(shards), WINDOW)]
        parts = [np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in window]) for window in windows]
        return np.concatenate([rng.permutation(part) for part in parts])
