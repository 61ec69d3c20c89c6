"""One model and one server for most tests of serving; its limits are small so that it is cheap to pass them."""

import numpy as np
import pytest

from tests.serving.running import running

LIMITS = {
    "limits__body_mb": 4,
    "limits__message_mb": 4,
    "limits__json_mb": 2,
    "limits__pixels": 1_500_000,
    "limits__sides": [16, 4000],
    "limits__images": 3,
    "limits__header": 1.0,
    "limits__body": 2.0,
    "limits__answer_mb": 8,
    "monitor__confidence_every": 2,
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Where the model of tests/serving/launch.py is; the first server makes it."""
    return tmp_path_factory.mktemp("serving") / "model"


@pytest.fixture(scope="session")
def server(model_folder):
    with running(model_folder, **LIMITS) as started:
        yield started


@pytest.fixture(scope="session")
def expected(server, model_folder):
    """Sample → (H, W) ids, and sample.logits → (C, H, W), as the runtime gave them in a process of its own."""
    return dict(np.load(model_folder.with_suffix(".npz")))


@pytest.fixture(autouse=True)
def still_serving(request):
    """Whatever a test did to the server, it answers afterwards."""
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        from tests.serving.bodies import png

        answer = server.post("/predict", png("small"), content_type="image/png")
        assert answer.status_code == 200, answer.text
