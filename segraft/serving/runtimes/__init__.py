"""The inference engines behind `segraft.serving.runtime.Runtime`; each is imported when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError

if TYPE_CHECKING:
    from segraft.serving.runtime import Runtime
    from segraft.serving.runtimes.card import ServingCard

SERVING = "serving.json"
"""What export writes about them all."""
GRAPH = "model.onnx"
FILES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "torch-compiled": (),
    "onnx-fp32": (GRAPH,),
    "onnx-int8": ("model-int8.onnx",),
    "openvino-fp32": (GRAPH,),
    "openvino-bf16": (GRAPH,),
    "openvino-int8": ("openvino-int8.xml", "openvino-int8.bin"),
}
"""runtime → the files that export writes for it beside the model folder's own, the graph first."""


def open_named(folder: Path, name: str, threads: int) -> Runtime:
    """See `segraft.serving.runtime.open_runtime`."""
    from segraft.serving.runtimes.card import read_serving_card

    serving = read_serving_card(folder)
    held = [known for known, files in FILES.items() if not files or (serving and set(files) <= set(serving.files))]
    if name == "auto":
        name = serving.chosen if serving else "torch"
    if name not in held:
        raise UserError(f"serve.runtime: {name!r}: {folder} holds no such runtime; choose auto or {', '.join(held)}")
    try:
        return _open(folder, name, serving, threads)
    except ModuleNotFoundError as error:
        others = ", ".join(other for other in held if other.partition("-")[0] != name.partition("-")[0])
        instead = f"choose {others}" if others else "export the model first"
        raise UserError(
            f"serve.runtime: {name!r}: no {error.name} here; {instead}, or use an image that has it"
        ) from None


def _open(folder: Path, name: str, serving: ServingCard | None, threads: int) -> Runtime:
    if name.startswith("torch"):
        from segraft.serving.runtimes.eager import Compiled, Eager

        return (Eager if name == "torch" else Compiled)(folder, threads)
    assert serving is not None
    if name.startswith("openvino"):
        from segraft.serving.runtimes.openvino import OpenVino as Engine
    else:
        from segraft.serving.runtimes.onnx import Onnx as Engine  # type: ignore[assignment]
    return Engine(name, folder, serving, FILES[name], threads)
