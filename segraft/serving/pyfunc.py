"""How MLflow loads a registered model: the `loader_module` of its MLmodel, so that no code lies in the artefact.

`mlflow.pyfunc.load_model` trusts the MLmodel that it finds. Load a model from a registry with
`segraft.registry.open_registered`, which verifies every file first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from segraft.evaluation.predict import Predictor


class PyFunc:
    """A model folder behind MLflow's interface."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, images: NDArray[np.uint8], params: dict[str, Any] | None = None) -> NDArray[np.uint8]:
        """(N, H, W) uint8 trainIds of (N, H, W, 3) uint8 RGB images; the model takes no params."""
        return np.stack([self._predictor([image])[0] for image in images])


def _load_pyfunc(path: str) -> PyFunc:
    """Called by MLflow with the artefact's data folder, which is a model folder.

    Raises:
        UserError: the folder is not whole.
    """
    from segraft.evaluation.predict import Predictor

    return PyFunc(Predictor(Path(path)))
