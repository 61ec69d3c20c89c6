"""The server's engine in this process, behind the client's methods: a model folder without a server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Self, cast

from segraft.errors import UserError
from segraft.params import Serve
from segraft.serving.answers import Answer
from segraft.serving.asks import Ask, Options
from segraft.serving.engine import Engine
from segraft.serving.errors import Refused
from segraft.serving.found import Segmentation, outputs_for
from segraft.serving.images import inspect
from segraft.serving.monitor import Monitor
from segraft.serving.runtime import open_runtime


class Local:
    """A model folder that is asked as `segraft.serving.client.Client` asks a server; for one thread.

    Args:
        folder: the model folder.
        settings: the section `serve`: runtime, tiles, limits.

    Raises:
        UserError: the folder is not whole.
    """

    parallel = 1

    def __init__(self, folder: Path, settings: Serve) -> None:
        self._folder, self._limits = folder, settings.limits
        runtime = open_runtime(folder, settings.runtime, settings.threads)
        unwatched = settings.monitor.model_copy(update={"confidence_every": 0, "keep": 0})
        self._engine = Engine(runtime, settings, Monitor(runtime.card, None, unwatched))
        self._loop = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the threads back."""
        self._loop.close()
        self._engine.close()

    def segment(self, image: bytes, *, confidence: bool = False, overlay: float | None = None) -> Segmentation:
        """See `segraft.serving.client.Client.segment`."""
        started = time.perf_counter()
        names = outputs_for(confidence, overlay is not None)
        options = Options.model_validate({"outputs": names, **({} if overlay is None else {"alpha": overlay})})
        try:
            asked = Ask((inspect(image, self._limits),), options, "local")
            (answers,) = self._loop.run(self._engine.answer(asked))
        except Refused as refused:
            raise UserError(refused.message) from None
        return Segmentation.of(_files(answers), str(self._folder), time.perf_counter() - started)


def _files(answers: list[Answer]) -> dict[str, bytes]:
    return {answer.name: cast(bytes, answer.value) for answer in answers}
