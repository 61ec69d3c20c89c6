"""Against a real MLflow server on loopback: artefacts go through it, and it may die at any moment."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segraft.checkpoint import WEIGHTS
from segraft.errors import UserError
from segraft.params import Tracking
from segraft.registry import open_registered
from segraft.registry.versions import publish
from segraft.tracking import Point, Record, TrackingUnavailable, connect
from tests.ports import free_port

pytestmark = pytest.mark.slow


class Server:
    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        pytest.fail(f"mlflow server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self):
        os.killpg(self.process.pid, 9)
        self.process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def test_a_model_goes_to_a_server_and_comes_back_verified(server, make_artifact, tmp_path):
    tracking = Tracking(uri=server.uri, experiment="e", required=True, timeout=10)
    artifact, digest = make_artifact()
    with connect(tracking) as tracker:
        run = tracker.log(Record("run", "model", 1.0, 2.0))
        version = publish(tracker, "m", run, artifact, digest, {})
        assert publish(tracker, "m", run, artifact, digest, {}) == version == "1"
    folder = open_registered("models:/m@challenger", tracking, tmp_path / "opened")
    assert (folder / WEIGHTS).read_bytes() == (artifact / "data" / WEIGHTS).read_bytes()
    (stored,) = (server.folder / "artifacts").rglob(WEIGHTS)
    os.truncate(stored, 100)
    with pytest.raises(UserError, match=r"models:/m/1: refused: .*100 bytes, sealed with"):
        open_registered("models:/m@challenger", tracking, tmp_path / "again")


def test_a_server_that_dies_costs_seconds_and_the_log_is_finished_later(server):
    tracking = Tracking(uri=server.uri, experiment="e", required=True, timeout=10)
    record = Record("run", "dies", 1.0, 2.0, points=[Point("loss", 0.1, s, 1.0 + s) for s in range(1500)])
    with pytest.raises(TrackingUnavailable, match=server.uri), connect(tracking) as tracker:
        parent = tracker.log(Record("parent", "parent", 1.0, 2.0))
        server.kill()
        started = time.monotonic()
        tracker.log(record, parent)
    assert time.monotonic() - started < 5
    server.start()
    with connect(tracking) as tracker:
        assert tracker.log(Record("parent", "parent", 1.0, 2.0)) == parent
        run = tracker.log(record, parent)
        assert len(tracker.client.get_metric_history(run, "loss")) == 1500
