"""OpenVINO: the fast way on a CPU; needs no torch in memory."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import read_card
from segraft.machine import cores
from segraft.serving.runtime import Prediction
from segraft.serving.runtimes.card import ServingCard, check_channels, unreadable, verified
from segraft.serving.runtimes.padding import pad
from segraft.serving.runtimes.telemetry import ov

PRECISION = {"openvino-fp32": "f32", "openvino-bf16": "bf16", "openvino-int8": ""}
"""runtime → number format of the layers that are not quantised; empty: what the hardware multiplies best."""
INT8 = "openvino-int8.xml"


class OpenVino:
    """A model folder's exported graph on OpenVINO's CPU plugin, tuned for the latency of one batch.

    Args:
        name: a key of `PRECISION`.
        folder: the exported folder.
        serving: its serving.json.
        files: the graph, first, and the files that it needs.
        threads: CPU threads (0: all that the process may use).

    Raises:
        UserError: a file is missing or damaged, no graph, or of other classes.
    """

    def __init__(self, name: str, folder: Path, serving: ServingCard, files: tuple[str, ...], threads: int = 0) -> None:
        self.name, self.card, self.stride = name, read_card(folder), serving.stride
        graph, *_ = (verified(folder, serving, file) for file in files)
        self._ids = Graph(graph, PRECISION[name], threads, logits=False)
        check_channels(graph, self._ids.channels, self.card)
        self._both: Graph | None = None
        self._path, self._threads = graph, threads
        self._lock = Lock()

    def predict(self, images: NDArray[np.uint8], logits: bool = False) -> Prediction:
        """See `Runtime.predict`; the graph with logits is compiled when they are first asked for."""
        height, width = images.shape[1:3]
        graph = self._graph(logits)
        ids, *scores = (values[..., :height, :width] for values in graph(pad(images, self.stride)))
        return Prediction(ids, scores[0] if logits else None)

    def _graph(self, logits: bool) -> Graph:
        if not logits:
            return self._ids
        with self._lock:
            if self._both is None:
                self._both = Graph(self._path, PRECISION[self.name], self._threads, logits=True)
            return self._both


class Graph:
    """A compiled graph, ids alone or with logits; each call takes a free inference request of a pool that grows."""

    def __init__(self, path: Path, precision: str, threads: int, logits: bool) -> None:
        core = ov.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise unreadable(path, error) from None
        scores = model.outputs[1].partial_shape[1] if len(model.outputs) > 1 else None
        self.channels = scores.get_length() if scores is not None and scores.is_static else None
        if not logits:
            model = ov.Model(model.get_results()[:1], model.get_parameters(), "ids")
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or cores(),
        }
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        self._compiled = core.compile_model(model, "CPU", config)
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()

    def __call__(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs, copied, for (N, H, W, 3) uint8."""
        try:
            request = self._free.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            return list(request.infer({0: images}, share_inputs=True).values())
        finally:
            self._free.put(request)
