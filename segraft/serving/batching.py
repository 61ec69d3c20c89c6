"""Micro-batching: images of like size that wait at the same time go through the network together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from segraft.serving import metrics
from segraft.serving.call import Call, this_call
from segraft.serving.images import Pixels
from segraft.serving.runtime import Prediction, Runtime

Key = tuple[int, int, bool]


@dataclass(eq=False)
class Waiting:
    """An image in the queue."""

    image: Pixels
    call: Call
    answer: asyncio.Future[Prediction]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """A queue before a runtime, in buckets of padded size; first come, first served.

    An idle runtime takes what is there at once: a lonely request never waits for company, unless `coming` says that
    other images are on their way, and then for `wait` seconds at most. Who was cancelled is not computed.

    Args:
        runtime: does the work, in a thread of its own.
        most: images of a batch.
        pixels: of a batch, unless it is a single image.
        wait: seconds.
        coming: how many images are being decoded now.
    """

    def __init__(self, runtime: Runtime, most: int, pixels: int, wait: float, coming: Callable[[], int]) -> None:
        self._runtime, self._most, self._pixels, self._wait, self._coming = runtime, most, pixels, wait, coming
        self._buckets: dict[Key, list[Waiting]] = {}
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predict")
        self._worker: asyncio.Task[None] | None = None

    async def predict(self, image: Pixels, logits: bool) -> Prediction:
        """Ids (H, W) and, if asked for, logits (C, H, W) of one (H, W, 3) uint8 image.

        Raises:
            RuntimeFailed: the runtime did.
        """
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        waiting = Waiting(image, this_call(), asyncio.get_running_loop().create_future())
        self._buckets.setdefault(self._key(image, logits), []).append(waiting)
        self._some.set()
        return await waiting.answer

    @property
    def depth(self) -> int:
        """Images that wait."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def close(self) -> None:
        """Stop working; what waits is cancelled."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _key(self, image: Pixels, logits: bool) -> Key:
        height, width = (-(-side // self._runtime.stride) * self._runtime.stride for side in image.shape[:2])
        return height, width, logits

    async def _work(self) -> None:
        while True:
            await self._some.wait()
            key = self._oldest()
            if key is None:
                self._some.clear()
                continue
            room = max(1, min(self._most, self._pixels // (key[0] * key[1])))
            if len(self._buckets[key]) < room and self._coming() and self._wait:
                await asyncio.sleep(self._wait)
            bucket = self._buckets.pop(key)
            batch, rest = bucket[:room], bucket[room:]
            if rest:
                self._buckets[key] = rest
            await self._run(key, [waiting for waiting in batch if not waiting.answer.done()])

    def _oldest(self) -> Key | None:
        for key, bucket in list(self._buckets.items()):
            bucket[:] = [waiting for waiting in bucket if not waiting.answer.done()]
            if not bucket:
                del self._buckets[key]
        return min(self._buckets, key=lambda key: self._buckets[key][0].since, default=None)

    async def _run(self, key: Key, batch: list[Waiting]) -> None:
        if not batch:
            return
        started = time.perf_counter()
        metrics.BATCH.observe(len(batch))
        try:
            images = [waiting.image for waiting in batch]
            job = asyncio.get_running_loop().run_in_executor(self._thread, self._predict, images, key)
            prediction = await job
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(RuntimeFailed(error))
            return
        took = time.perf_counter() - started
        for index, waiting in enumerate(batch):
            waiting.call.stages["queue"] = waiting.call.stages.get("queue", 0) + started - waiting.since
            waiting.call.stages["predict"] = waiting.call.stages.get("predict", 0) + took
            if not waiting.answer.done():
                waiting.answer.set_result(_cut(prediction, index, waiting.image))

    def _predict(self, images: list[Pixels], key: Key) -> Prediction:
        height, width, logits = key
        padded = [pad(image, height, width) for image in images]
        return self._runtime.predict(padded[0][None] if len(padded) == 1 else np.stack(padded), logits)


class RuntimeFailed(Exception):
    """The runtime raised; the cause is for the log, not for the client."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.__cause__ = cause


def pad(image: Pixels, height: int, width: int) -> Pixels:
    """Mirror an image below and to the right, as the runtime itself and evaluate do."""
    bottom, right = height - image.shape[0], width - image.shape[1]
    if not bottom and not right:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT), np.uint8)


def _cut(prediction: Prediction, index: int, image: Pixels) -> Prediction:
    height, width = image.shape[:2]
    logits: NDArray[np.float32] | None = None
    if prediction.logits is not None:
        logits = prediction.logits[index, :, :height, :width]
    return Prediction(prediction.ids[index, :height, :width], logits)
