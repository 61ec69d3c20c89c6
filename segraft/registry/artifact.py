"""What lies in the registry for one model: `MLmodel`, an input example and the model folder; data alone.

An exported model folder brings its serving.json and the graphs named there, and no other file. The code that reads it
is `segraft.serving.pyfunc`, installed, never shipped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segraft.checkpoint import CARD, WEIGHTS, read_card, sha256
from segraft.errors import UserError
from segraft.integrity import MANIFEST, seal, verify
from segraft.params import FOUND
from segraft.serving.runtimes import SERVING

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAVORS = {
    "python_function": {"loader_module": "segraft.serving.pyfunc", "data": "data", "python_version": "3.11"},
}
"""The only way to load that an artefact may name: no `code`, no other module."""
MLMODEL, EXAMPLE = "MLmodel", "input_example.json"
FILES = {MANIFEST, MLMODEL, EXAMPLE, f"data/{CARD}", f"data/{WEIGHTS}"}
LARGEST_MLMODEL = 1 << 16


def pack(model_folder: Path, example: NDArray[Any], destination: Path) -> str:
    """Lay out the artefact of a model folder; the same model and example give the same bytes. Returns its seal.

    Args:
        model_folder: a whole model folder.
        example: (1, H, W, 3) uint8 RGB, small: it is stored as JSON.
        destination: a folder that is not there yet.

    Raises:
        UserError: the weights are not those that the card names, or a runtime's file is not the one that export wrote.
    """
    if sha256(model_folder / WEIGHTS) != read_card(model_folder).weights_sha256:
        raise UserError(f"{model_folder / WEIGHTS}: damaged: its sha256 is not the one in {CARD}; make the model again")
    (destination / "data").mkdir(parents=True)
    for name in (CARD, WEIGHTS, *_exported(model_folder)):
        shutil.copyfile(model_folder / name, destination / "data" / name)
    (destination / EXAMPLE).write_text(json.dumps(example.tolist()), encoding="utf-8")
    (destination / MLMODEL).write_text(yaml.safe_dump(_mlmodel()), encoding="utf-8")
    return seal(destination)


def _exported(model_folder: Path) -> list[str]:
    """The files that export added to a model folder, each verified."""
    from segraft.serving.runtimes.card import read_serving_card, verified

    card = read_serving_card(model_folder)
    if card is None:
        return []
    return [SERVING, *(verified(model_folder, card, name).name for name in card.files)]


def _mlmodel() -> dict[str, Any]:
    """MLmodel's content, without the fields (a time, a random id, MLflow's version) that would change its hash."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    masks = TensorSpec(np.dtype(np.uint8), (-1, -1, -1))
    model = Model(
        flavors=FLAVORS,
        signature=ModelSignature(Schema([images]), Schema([masks])),
        saved_input_example_info={"artifact_path": EXAMPLE, "type": "ndarray"},
    ).to_dict()
    return {key: model[key] for key in ("flavors", "signature", "saved_input_example_info")}


def verify_artifact(folder: Path, expected: str) -> None:
    """Refuse an artefact that is not, file by file, what was sealed, or that names code of its own.

    Raises:
        UserError: what is wrong with it.
    """
    verify(folder, expected)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if files != FILES | _named(folder):
        wanted = sorted(FILES | _named(folder))
        raise UserError(f"{folder}: not a model of segraft: it holds {sorted(files)}, not {wanted}")
    flavors = _read_mlmodel(folder / MLMODEL).get("flavors")
    if flavors != FLAVORS:
        raise UserError(f"{folder / MLMODEL}: names another way to load than {FLAVORS}: {FOUND.repr(flavors)}")


def _named(folder: Path) -> set[str]:
    """serving.json, if it is there, and the graphs that it names; no other file is known."""
    from segraft.serving.runtimes.card import read_serving_card

    card = read_serving_card(folder / "data")
    return set() if card is None else {f"data/{name}" for name in (SERVING, *card.files)}


def _read_mlmodel(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_MLMODEL:
            raise ValueError(f"larger than {LARGEST_MLMODEL} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not an MLmodel: {' '.join(str(error).split())[:300]}") from None
    return content if isinstance(content, dict) else {}
