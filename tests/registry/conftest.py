"""A store of its own for each module of tests, and model folders that need no torch."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from segraft.checkpoint import CARD, WEIGHTS, ClassCard, ModelCard, Preprocessing, sha256
from segraft.params import Tracking
from segraft.registry.artifact import pack
from segraft.tracking import Record, connect


@pytest.fixture
def example():
    return np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3)


@pytest.fixture(autouse=True)
def in_own_environment(own_environment):
    pass


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    return Tracking(uri=uri, experiment="e", required=True, timeout=1)


@pytest.fixture
def tracker(tracking):
    with connect(tracking) as tracker:
        yield tracker


@pytest.fixture
def run(tracker, tmp_path):
    return tracker.log(Record("run", str(tmp_path), 1.0, 2.0))


@pytest.fixture
def make_model(tmp_path):
    """A model folder of given content; its network is none of the zoo."""

    def make(seed=0):
        folder = tmp_path / f"model-{seed}"
        folder.mkdir()
        save_file({"w": np.random.default_rng(seed).random((64, 64), np.float32)}, folder / WEIGHTS)
        card = ModelCard(
            arch="unet",
            encoder="resnet18",
            taxonomy="two",
            classes=(ClassCard(name="road", color=(128, 64, 128)), ClassCard(name="sky", color=(70, 130, 180))),
            preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            weights_sha256=sha256(folder / WEIGHTS),
        )
        (folder / CARD).write_text(card.model_dump_json())
        return folder

    return make


@pytest.fixture
def make_artifact(make_model, example, tmp_path):
    """(artefact folder, seal) of a model of given content."""

    def make(seed=0):
        return tmp_path / f"artifact-{seed}", pack(make_model(seed), example, tmp_path / f"artifact-{seed}")

    return make
