"""The one path behind every protocol: admit, decode, segment, answer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from segraft.machine import cores
from segraft.params import Serve
from segraft.serving import metrics, tiling
from segraft.serving.answers import FILES, Answer, Segmented, answer, check_answer_size
from segraft.serving.asks import Ask, Options, image_size
from segraft.serving.batching import Batcher, RuntimeFailed
from segraft.serving.call import Call, in_time, this_call
from segraft.serving.errors import Refused
from segraft.serving.fields import WANT_LOGITS, Map, allocate, fill
from segraft.serving.images import Encoded, Pixels, decode, unturn
from segraft.serving.monitor import Monitor
from segraft.serving.runtime import Prediction, Runtime

T = TypeVar("T")
SMALL = 1 << 18
"""Pixels up to which an answer of tensors is made at once: waking a thread would take longer."""
logger = logging.getLogger("segraft.serving")


class Engine:
    """Answers asks with a runtime, within the settings' bounds; all methods are for one event loop.

    Args:
        runtime: the model.
        settings: the section `serve`.
        monitor: is told of every answer.
    """

    def __init__(self, runtime: Runtime, settings: Serve, monitor: Monitor) -> None:
        self._runtime, self._settings, self.monitor = runtime, settings, monitor
        self._pool = ThreadPoolExecutor(cores() + 1, "pixels")
        self._pixels = Budget(settings.limits.pixels)
        self._accepted = self._decoding = 0
        self._seconds = 0.0
        whole = settings.tile.whole
        self._batcher = Batcher(runtime, settings.max_batch, whole, settings.batch_wait, lambda: self._decoding)
        self.failing = False
        metrics.ACCEPTED.set_function(lambda: self._accepted)
        metrics.QUEUE.set_function(lambda: self._batcher.depth)

    async def answer(self, ask: Ask) -> list[list[Answer]]:
        """The answers to each image, in the order of the options' outputs.

        Raises:
            Refused: no room, too large an answer, a broken image, the deadline passed, or the model failed.
        """
        call, options = this_call(), ask.options
        call.protocol = ask.protocol
        pixels = sum(math.prod(image_size(image)) for image in ask.images)
        call.facts |= {"images": len(ask.images), "pixels": pixels, "outputs": list(options.outputs)}
        check_answer_size(ask, pixels, len(self._runtime.card.classes), self._settings.limits)
        call.give(min(self._settings.timeout, (options.timeout_ms or math.inf) / 1000))
        with self._admitted():
            return await self._in_time(call, pixels, ask)

    async def probe(self) -> None:
        """Ask the runtime about a small image; clears or sets `failing`."""
        await self._predict(np.zeros((64, 64, 3), np.uint8), logits=False)

    def close(self) -> None:
        """Give the threads back."""
        self._batcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """A place in the bounded queue; who finds none reads when to come back."""
        if self._accepted >= self._settings.queue:
            wait = max(1.0, self._seconds * self._accepted)
            raise Refused(503, f"busy: {self._accepted} requests are being answered; try again later", wait)
        self._accepted += 1
        started = time.perf_counter()
        try:
            yield
            own = (time.perf_counter() - started) / self._accepted
            self._seconds += 0.1 * (own - self._seconds)
        finally:
            self._accepted -= 1

    async def _in_time(self, call: Call, pixels: int, ask: Ask) -> list[list[Answer]]:
        try:
            async with in_time(call), self._pixels.hold(pixels):
                if len(ask.images) == 1:
                    return [await self._one(ask.images[0], ask.options, call)]
                return await _all([self._one(image, ask.options, call) for image in ask.images])
        except RuntimeFailed as error:
            memory = "out of memory" in str(error).lower() or isinstance(error.__cause__, MemoryError)
            if memory:
                raise Refused(503, "the image did not fit into the memory that is free; try again", 1) from None
            raise Refused(500, "the model failed on this request") from None

    async def _one(self, image: Encoded | Pixels, options: Options, call: Call) -> list[Answer]:
        pixels = await self._decode(image, call)
        maps = await self._segment(pixels, options)
        render = partial(self._render, image, pixels, maps, options)
        at_once = pixels.shape[0] * pixels.shape[1] <= SMALL and not FILES.keys() & set(options.outputs)
        with call.stage("encode"):
            return render() if at_once else await self.in_thread(render)

    async def _decode(self, image: Encoded | Pixels, call: Call) -> Pixels:
        if not isinstance(image, Encoded):
            return image
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def job() -> Pixels:
            loop.call_soon_threadsafe(begun.set)
            return decode(image)

        self._decoding += 1
        thread = self._pool.submit(job)
        decoded = asyncio.wrap_future(thread)
        try:
            with call.stage("decode"):
                await begun.wait()  # for a thread: how long others take is not this image's fault
                async with asyncio.timeout(self._settings.limits.decode) as limit:
                    return await asyncio.shield(decoded)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refused(400, f"image: took more than {self._settings.limits.decode:g} s to decode") from None
        finally:
            self._decoding -= 1
            if not thread.cancel() and not decoded.done():
                self._pixels.keep(math.prod(image.size), decoded)

    async def _segment(self, image: Pixels, options: Options) -> dict[str, Map]:
        """The maps: ids, what the options want, and of one image in so many the "sample" of its confidence."""
        wants = set(options.outputs) & WANT_LOGITS | ({"sample"} if self.monitor.samples_next() else set())
        classes, tile = len(self._runtime.card.classes), self._settings.tile
        maps = allocate(wants, classes, min(options.k, classes), image.shape[:2])
        if math.prod(image.shape[:2]) > tile.whole:
            maps["ids"] = np.empty(image.shape[:2], np.uint8)
            await tiling.segment(image, partial(self._predict, logits=True), tile, self._runtime.stride, maps)
            return maps
        prediction = await self._predict(image, logits=bool(wants))
        if prediction.logits is not None:
            await self.in_thread(partial(fill, maps, (0, 0), prediction.logits))
        return maps | {"ids": prediction.ids}

    async def _predict(self, image: Pixels, logits: bool) -> Prediction:
        try:
            prediction = await self._batcher.predict(image, logits)
        except RuntimeFailed as error:
            self.failing = True
            metrics.FAILURES.inc()
            logger.error("the runtime failed", exc_info=error)
            raise
        self.failing = False
        return prediction

    def _render(self, source: Encoded | Pixels, image: Pixels, maps: dict[str, Map], options: Options) -> list[Answer]:
        card = self._runtime.card
        sample = maps.pop("sample", None)
        upright = Segmented(image, maps)
        encoded = source if isinstance(source, Encoded) else None
        mean = None if sample is None else float(np.mean(np.asarray(sample, np.float32)))
        self.monitor.observe(upright, mean, None if encoded is None else encoded.data)
        stored = upright if encoded is None or encoded.orientation == 1 else _as_stored(upright, encoded.orientation)
        return [part for name in options.outputs for part in answer(name, stored, card, options)]

    async def in_thread(self, job: Callable[[], T]) -> T:
        """Run a job beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)


class Budget:
    """So many pixels may be in memory at once; who finds no room waits for its turn."""

    def __init__(self, total: int) -> None:
        self._free, self._queue = total, deque[tuple[int, asyncio.Future[None]]]()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Hold a part of the budget, which must be no more than the whole."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((amount, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += amount
            self._serve()
            raise
        try:
            yield
        finally:
            self._free += amount
            self._serve()

    def keep(self, amount: int, work: asyncio.Future[Any]) -> None:
        """Hold a part on, whose holder is about to give it back, until work that cannot be stopped has ended."""
        self._free -= amount

        def give_back(done: asyncio.Future[Any]) -> None:
            if not done.cancelled():
                done.exception()  # nobody else asks for it, which asyncio would complain of
            self._free += amount
            self._serve()

        work.add_done_callback(give_back)

    def _serve(self) -> None:
        while self._queue and (self._queue[0][1].done() or self._queue[0][0] <= self._free):
            amount, turn = self._queue.popleft()
            if not turn.done():
                self._free -= amount
                turn.set_result(None)


async def _all(jobs: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results; when one fails, the others are cancelled."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _as_stored(of: Segmented, orientation: int) -> Segmented:
    image = unturn(of.image.transpose(2, 0, 1), orientation).transpose(1, 2, 0)
    maps = {name: unturn(values, orientation) for name, values in of.maps.items()}
    return Segmented(np.ascontiguousarray(image, np.uint8), maps)
