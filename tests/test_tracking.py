import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from segraft.errors import UserError
from segraft.params import Tracking
from segraft.tracking import DatasetVersion, Point, Record, TrackingUnavailable, connect, flatten, without_password
from tests.mortal import Killed, Mortal

POINTS = 1500
MD5 = "0123456789abcdef0123456789abcdef.dir"


pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Tracking(
        uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", experiment="e", required=True, timeout=1
    )


def server(uri, **changes):
    return Tracking(**{"uri": uri, "experiment": "e", "required": True, "timeout": 1.0} | changes)


@pytest.fixture
def record(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    return Record(
        name="finetune",
        key=str(tmp_path),
        started=1000.25,
        ended=1500.5,
        params={"model": {"arch": "unet"}, "training": {f"p{i}": i for i in range(150)}},
        points=[Point("loss", 1 / (step + 1), step, 1000 + step / 10) for step in range(POINTS)]
        + [Point("system/cpu_percent", 180.0, 0, 1001.0), Point("iou/tree; plant (any)", 0.5, 0, 1500.0)]
        + [Point(f"iou/{name}", 0.25, 0, 1500.0) for name in ("n/a", "car/", "a//b", "..")],
        tags={"environment.torch": "2.13"},
        artifacts=[report],
        datasets=[DatasetVersion("data/packed/target", MD5, "data/packed/target", "training", {"samples": 32})],
    )


def test_a_record_is_logged_whole(store, record):
    with connect(store) as tracker:
        run = tracker.client.get_run(tracker.log(record))
        points = tracker.client.get_metric_history(run.info.run_id, "loss")
        artifacts = tracker.client.list_artifacts(run.info.run_id)
    assert (run.info.start_time, run.info.end_time, run.info.status) == (1000250, 1500500, "FINISHED")
    assert run.info.run_name == "finetune" and run.data.tags["environment.torch"] == "2.13"
    assert run.data.params["model.arch"] == "unet" and len(run.data.params) == 151
    assert len(points) == POINTS
    assert {(p.step, p.timestamp) for p in points} == {(s, 1000_000 + 100 * s) for s in range(POINTS)}
    assert run.data.metrics["system/cpu_percent"] == 180.0
    assert run.data.metrics["iou/tree_ plant _any_"] == 0.5
    assert {"iou/n/a", "iou_car_", "iou_a__b", "iou_.."} <= run.data.metrics.keys(), "MLflow refuses iou/a//b"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("data/packed/target", MD5)
    assert json.loads(data.dataset.profile) == {"samples": 32} and data.tags[0].value == "training"
    assert [artifact.path for artifact in artifacts] == ["report.html"]


def test_children_hang_on_their_parent(store, record):
    child = Record("child", f"{record.key}/child", 1.0, 2.0)
    with connect(store) as tracker:
        parent = tracker.log(record)
        run = tracker.client.get_run(tracker.log(child, parent))
    assert run.data.tags["mlflow.parentRunId"] == parent


@pytest.mark.parametrize("calls", range(9))
def test_a_killed_log_is_finished_by_the_next_and_nothing_is_there_twice(store, record, calls):
    with connect(store) as tracker:
        with pytest.raises(Killed):
            replace(tracker, client=Mortal(tracker.client, calls)).log(record)
        run = tracker.log(record)
        assert tracker.log(record) == run
        found = tracker.client.search_runs([tracker.experiment], f"tags.`segraft.key` = '{record.key}'")
        assert [r.info.run_id for r in found] == [run] and found[0].info.status == "FINISHED"
        assert len(tracker.client.get_metric_history(run, "loss")) == POINTS
        assert len(found[0].data.params) == 151 and len(found[0].inputs.dataset_inputs) == 1


LOG_ONE = """
import sys
from segraft.params import Tracking
from segraft.tracking import Record, connect
with connect(Tracking(uri="", experiment="e", required=True, timeout=1)) as tracker:
    print(tracker.log(Record("one", "one", 1.0, 2.0)))
assert "torch" not in sys.modules
"""


def test_two_processes_on_one_fresh_store_make_one_run(tmp_path):
    command = [sys.executable, "-c", LOG_ONE]
    processes = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    runs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert runs[0] == runs[1] and len(runs[0].strip()) == 32
    assert (tmp_path / "mlflow.db").is_file(), "the default store is in the working directory"


def test_the_uri_comes_from_params_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/environment.db")
    with connect(server("")) as tracker:
        assert tracker.uri.endswith("/environment.db")
    assert (tmp_path / "environment.db").is_file()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_dead_server_costs_no_more_than_its_timeout():
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with (
            pytest.raises(TrackingUnavailable, match=r"MLflow at http://127.0.0.1:\d+: "),
            connect(server(f"http://127.0.0.1:{silent.getsockname()[1]}")),
        ):
            pass
        assert time.monotonic() - started < 5
        port = silent.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(TrackingUnavailable) as error, connect(server(f"http://user:secret@127.0.0.1:{port}")):
        pass
    assert time.monotonic() - started < 3
    assert "secret" not in str(error.value)


class Refuses(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(self.server.status, "no")

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_server_that_refuses_is_unavailable(status):
    http = HTTPServer(("127.0.0.1", 0), Refuses)
    http.status = status
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        with (
            pytest.raises(TrackingUnavailable, match=r"127\.0\.0\.1"),
            connect(server(f"http://127.0.0.1:{http.server_address[1]}")),
        ):
            pass
    finally:
        http.shutdown()
        http.server_close()


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "ftp://bob:secret@x"])
def test_what_keeps_no_registry_is_refused(uri):
    with pytest.raises(UserError, match=r"tracking\.uri: .*: expected sqlite:///FILE") as error, connect(server(uri)):
        pass
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("folder", ["feature%2Fx", "what?"])
def test_a_path_that_mlflow_takes_for_another_is_refused_before_anything_is_made(tmp_path, folder):
    (tmp_path / folder).mkdir()
    with (
        pytest.raises(UserError, match=r"MLflow keeps no store at a path with [%?]; name a file elsewhere"),
        connect(server(f"sqlite:///{tmp_path}/{folder}/mlflow.db")),
    ):
        pass
    assert list((tmp_path / folder).iterdir()) == []


def test_a_store_that_was_moved_is_refused_and_what_it_was_made_beside_left_alone(store, tmp_path):
    made = Path(store.uri.removeprefix("sqlite:///"))
    where = rf"{tmp_path}/mlflow\.db: keeps its artefacts in {made.parent}/mlartifacts, where it was made"
    with connect(store):
        pass
    shutil.copy(made, tmp_path)
    with (
        pytest.raises(UserError, match=where),
        connect(server(f"sqlite:///{tmp_path}/mlflow.db")),
    ):
        pass
    (tmp_path / "link").symlink_to(made.parent)
    with connect(server(f"sqlite:///{tmp_path}/link/mlflow.db")) as tracker:
        assert tracker.client.get_experiment(tracker.experiment).name == "e"


def test_a_broken_database_is_named_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    started = time.monotonic()
    with (
        pytest.raises(UserError, match=r"mlflow\.db: file is not a database; move it away") as error,
        connect(server(f"sqlite:///{tmp_path}/mlflow.db")),
    ):
        pass
    assert time.monotonic() - started < 1
    assert not isinstance(error.value, TrackingUnavailable), "this does not mend itself, so it is never passed over"


def test_a_kill_while_the_database_is_made_breaks_nothing(tmp_path):
    command = [sys.executable, "-c", LOG_ONE]
    process = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "mlflow.db.new").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    assert (tmp_path / "mlflow.db.new").exists() and not (tmp_path / "mlflow.db").exists(), "killed in the middle"
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, timeout=120).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_deleted_experiment_is_named(store):
    with connect(store.model_copy(update={"experiment": "gone"})) as tracker:
        tracker.client.delete_experiment(tracker.experiment)
    with (
        pytest.raises(UserError, match=r"tracking\.experiment: 'gone' was deleted"),
        connect(store.model_copy(update={"experiment": "gone"})),
    ):
        pass


def test_an_error_of_our_own_is_not_taken_for_an_outage(store):
    with pytest.raises(ZeroDivisionError), connect(store):
        1 / 0  # noqa: B018


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_passwords_are_not_shown():
    assert without_password("https://me:pw@host:5000/x") == "https://***@host:5000/x"
    assert without_password("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
