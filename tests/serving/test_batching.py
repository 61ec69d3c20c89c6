"""The batcher and the engine around a small runtime whose pace the test sets."""

import asyncio
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from segraft.machine import cores
from segraft.params import ServeMonitor, ServeTile, load_params
from segraft.serving.asks import Ask, Options
from segraft.serving.batching import Batcher, RuntimeFailed
from segraft.serving.engine import Budget, Engine
from segraft.serving.errors import Refused
from segraft.serving.guard import Door
from segraft.serving.images import inspect
from segraft.serving.monitor import Monitor
from segraft.serving.runtime import Prediction
from tests.serving.running import ROOT
from tests.serving.test_answers import CARD


class Thresholds:
    """A runtime that sorts pixels by brightness; it waits at a gate, and notes what it was given."""

    name, card, stride = "thresholds", CARD, 32

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[tuple[int, ...]] = []
        self.failure: Exception | None = None

    def predict(self, images, logits=False):
        self.batches.append(images.shape)
        assert self.gate.wait(30)
        if self.failure:
            raise self.failure
        ids = images[..., 0] // 64
        return Prediction(ids, np.eye(4, dtype=np.float32)[ids].transpose(0, 3, 1, 2) if logits else None)


def image(height=64, width=64, value=100):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def runtime():
    return Thresholds()


def batcher(runtime, most=4, pixels=1 << 20, wait=0.0, coming=lambda: 0):
    return Batcher(runtime, most, pixels, wait, coming)


def engine(runtime, **changes):
    settings = load_params(ROOT / "params.yaml").serve.model_copy(update=changes)
    return Engine(runtime, settings, Monitor(CARD, None, settings.monitor))


async def settle():
    await asyncio.sleep(0.05)


def test_what_waits_together_goes_together_and_gets_its_own_answer(runtime):
    async def ask():
        queue = batcher(runtime)
        runtime.gate.clear()
        first = asyncio.create_task(queue.predict(image(), False))
        await settle()
        others = [asyncio.create_task(queue.predict(image(60, 50 + i, 60 * i), False)) for i in range(4)]
        await settle()
        runtime.gate.set()
        return [await task for task in (first, *others)]

    answers = asyncio.run(ask())
    assert runtime.batches == [(1, 64, 64, 3), (4, 64, 64, 3)]
    for i, answer in enumerate(answers[1:]):
        assert answer.ids.shape == (60, 50 + i) and (answer.ids == 60 * i // 64).all()


def test_sizes_and_logits_have_buckets_of_their_own_oldest_first(runtime):
    async def ask():
        queue = batcher(runtime, most=2)
        runtime.gate.clear()
        sizes = [(64, 64, False), (64, 64, False), (32, 32, False), (64, 64, True), (64, 64, False), (32, 32, False)]
        tasks = [asyncio.create_task(queue.predict(image(h, w), logits)) for h, w, logits in sizes]
        await settle()
        runtime.gate.set()
        return [await task for task in tasks]

    answers = asyncio.run(ask())
    assert [shape[:2] for shape in runtime.batches] == [(2, 64), (2, 32), (1, 64), (1, 64)]
    assert [answer.logits is not None for answer in answers] == [False, False, False, True, False, False]


def test_a_batch_has_no_more_pixels_than_allowed(runtime):
    async def ask():
        queue = batcher(runtime, most=8, pixels=2 * 64 * 64)
        await asyncio.gather(*(queue.predict(image(), False) for _ in range(5)))
        await queue.predict(image(256, 256), False)

    asyncio.run(ask())
    assert [shape[0] for shape in runtime.batches] == [2, 2, 1, 1]


def test_a_lonely_request_does_not_wait_but_one_waits_for_company_on_its_way(runtime):
    async def ask(coming):
        queue = batcher(runtime, wait=0.2, coming=lambda: coming)
        started = time.perf_counter()
        first = asyncio.create_task(queue.predict(image(), False))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, queue.predict(image(), False))
        return time.perf_counter() - started

    assert asyncio.run(ask(0)) < 0.2
    assert len(runtime.batches) == 2
    runtime.batches.clear()
    asyncio.run(ask(1))
    assert runtime.batches[0][0] == 2


def test_cancelled_requests_are_not_computed(runtime):
    async def ask():
        queue = batcher(runtime, most=1)
        runtime.gate.clear()
        tasks = [asyncio.create_task(queue.predict(image(), False)) for _ in range(5)]
        await settle()
        for task in tasks[1:4]:
            task.cancel()
        runtime.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [isinstance(answer, Prediction) for answer in answers] == [True, False, False, False, True]
    assert len(runtime.batches) == 2


def test_a_failure_reaches_its_own_batch_alone(runtime):
    async def ask():
        queue = batcher(runtime)
        runtime.failure = RuntimeError("no")
        with pytest.raises(RuntimeFailed):
            await queue.predict(image(), False)
        runtime.failure = None
        return await queue.predict(image(), False)

    assert asyncio.run(ask()).ids.shape == (64, 64)


def ask_for(*images, outputs=("ids",), **options):
    return Ask(images, Options(outputs=outputs, **options), "v2")


def test_the_queue_is_bounded_and_says_when_to_come_back(runtime):
    async def ask():
        busy = engine(runtime, queue=3)
        runtime.gate.clear()
        tasks = [asyncio.create_task(busy.answer(ask_for(image()))) for _ in range(3)]
        await settle()
        with pytest.raises(Refused) as caught:  # answers while the gate holds all others back
            await busy.answer(ask_for(image()))
        runtime.gate.set()
        await asyncio.gather(*tasks)
        await busy.answer(ask_for(image()))
        return caught.value

    refused = asyncio.run(ask())
    assert refused.status == 503 and refused.retry_after >= 1


def test_a_deadline_frees_the_place_and_cancels_the_work(runtime):
    async def ask():
        small = engine(runtime, queue=2, max_batch=1)
        runtime.gate.clear()
        first = asyncio.create_task(small.answer(ask_for(image())))
        await settle()
        with pytest.raises(Refused) as caught:
            await asyncio.create_task(small.answer(ask_for(image(), timeout_ms=50)))
        second = asyncio.create_task(small.answer(ask_for(image())))
        await settle()
        runtime.gate.set()
        await asyncio.gather(first, second)
        return caught.value

    assert asyncio.run(ask()).status == 504
    assert len(runtime.batches) == 2, "the one that nobody waited for was not computed"


@pytest.mark.parametrize(("failure", "status"), [(RuntimeError("x"), 500), (RuntimeError("CUDA out of memory"), 503)])
def test_a_failing_runtime_is_reported_and_probed_again(runtime, failure, status):
    async def ask():
        failing = engine(runtime)
        runtime.failure = failure
        with pytest.raises(Refused) as caught:
            await failing.answer(ask_for(image()))
        assert failing.failing
        with pytest.raises(RuntimeFailed):
            await failing.probe()
        runtime.failure = None
        await failing.probe()
        assert not failing.failing
        return caught.value

    refused = asyncio.run(ask())
    assert refused.status == status and "CUDA" not in refused.message


def test_the_budget_is_first_come_first_served_and_survives_cancellation():
    async def ask():
        budget, order = Budget(10), []

        async def take(amount, name):
            async with budget.hold(amount):
                order.append(name)
                await settle()

        tasks = [asyncio.create_task(take(*job)) for job in ((8, "a"), (10, "b"), (1, "c"), (3, "d"))]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await take(10, "e")
        return order

    assert asyncio.run(ask()) == ["a", "c", "d", "e"]


@pytest.mark.parametrize("whole", [100 * 90, 100], ids=["whole", "tiled"])
def test_confidence_is_sampled_and_hard_images_are_set_aside_within_bounds(whole, tmp_path):
    class Doubtful(Thresholds):
        def predict(self, images, logits=False):
            prediction = super().predict(images, logits)
            if logits:
                scale = 1 + images[:, 0, 0, 1].astype(np.float32)[:, None, None, None]
                prediction = Prediction(prediction.ids, prediction.logits * scale)
            return prediction

    async def ask():
        monitor = ServeMonitor(confidence_every=1, window=10, keep=3, keep_folder=str(tmp_path / "hard"))
        curious = engine(Doubtful(), monitor=monitor, tile=ServeTile(whole=whole, size=64, overlap=32))
        for certainty in (5, 1, 9, 3, 0, 7):
            picture = image(100, 90)
            picture[..., 1] = certainty
            await curious.answer(ask_for(picture))

    asyncio.run(ask())
    from PIL import Image

    kept = sorted(np.asarray(Image.open(path))[0, 0, 1] for path in (tmp_path / "hard").glob("*.png"))
    assert kept == [0, 1, 3] and len(list((tmp_path / "hard").iterdir())) == 6
    for name, note in {"labelme.json": '{"shapes": []}', ".cut.jpg.json": "", "list.json": "[]"}.items():
        (tmp_path / "hard" / name).write_text(note)  # a labelling tool's, or what a kill left
    asyncio.run(ask())
    assert len(list((tmp_path / "hard").iterdir())) == 6 + 3, "the bound holds after a restart"


def test_bodies_share_a_budget_that_is_given_back():
    limits = load_params(ROOT / "params.yaml").serve.limits.model_copy(update={"body_mb": 1})
    room = Door(limits, "").bodies
    with room.entered() as take:
        take(3 << 20)
        with pytest.raises(Refused) as caught, room.entered() as take_more:
            take_more(2 << 20)
        assert caught.value.status == 503 and room.held == 3 << 20
    assert room.held == 0


def photo(side):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_who_waits_for_a_thread_has_time_left_to_decode(runtime):
    limits = load_params(ROOT / "params.yaml").serve.limits.model_copy(update={"decode": 0.2})
    free = threading.Event()

    async def ask():
        waiting = engine(runtime, limits=limits)
        others = [asyncio.create_task(waiting.in_thread(free.wait)) for _ in range(2 * cores() + 2)]
        await asyncio.sleep(0)
        picture = inspect(photo(64), limits)
        answer = asyncio.create_task(waiting.answer(ask_for(picture)))
        try:
            with pytest.raises(Refused) as caught:
                await waiting.answer(ask_for(picture, timeout_ms=300))
            assert caught.value.status == 504 and not answer.done()
        finally:
            free.set()
        assert len(await answer) == 1
        await asyncio.gather(*others)

    asyncio.run(ask())


def test_pixels_that_are_decoded_too_slowly_count_until_the_thread_has_ended(runtime):
    data = photo(1500)
    limits = load_params(ROOT / "params.yaml").serve.limits
    limits = limits.model_copy(update={"decode": 1e-6, "pixels": 1500 * 1500})

    async def ask():
        hasty = engine(runtime, limits=limits)
        with pytest.raises(Refused, match="to decode"):
            await hasty.answer(ask_for(inspect(data, limits)))
        with pytest.raises(Refused) as caught:  # there is room for a single pixel more when the thread has ended
            await hasty.answer(ask_for(image(), timeout_ms=1))
        assert caught.value.status == 504
        assert len(await hasty.answer(ask_for(image()))) == 1

    asyncio.run(ask())
