"""ONNX Runtime on the CPU: a second opinion beside OpenVINO, and what many platforms speak; needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from segraft.checkpoint import read_card
from segraft.machine import cores
from segraft.serving.runtime import Prediction
from segraft.serving.runtimes.card import ServingCard, check_channels, unreadable, verified
from segraft.serving.runtimes.padding import pad

REFUSALS = (
    onnxruntime_pybind11_state.Fail,
    onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime_pybind11_state.InvalidProtobuf,
    onnxruntime_pybind11_state.NotImplemented,
    onnxruntime_pybind11_state.RuntimeException,
)
"""What ONNX Runtime raises on a graph that it cannot open; they have no base of their own."""


class Onnx:
    """A model folder's exported graph in ONNX Runtime.

    Args:
        name: the runtime's name.
        folder: the exported folder.
        serving: its serving.json.
        files: the graph.
        threads: CPU threads (0: all that the process may use).

    Raises:
        UserError: a file is missing or damaged, no graph, or of other classes.
    """

    def __init__(self, name: str, folder: Path, serving: ServingCard, files: tuple[str, ...], threads: int = 0) -> None:
        self.name, self.card, self.stride = name, read_card(folder), serving.stride
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.log_severity_level = 3
        graph = verified(folder, serving, files[0])
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except REFUSALS as error:
            raise unreadable(graph, error) from None
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        check_channels(graph, shapes.get("logits", [0, 0])[1], self.card)

    def predict(self, images: NDArray[np.uint8], logits: bool = False) -> Prediction:
        """See `Runtime.predict`."""
        height, width = images.shape[1:3]
        wanted = ["ids", "logits"] if logits else ["ids"]
        found = self._session.run(wanted, {"images": pad(images, self.stride)})
        ids, *scores = (values[..., :height, :width] for values in found)
        return Prediction(ids, scores[0] if logits else None)
