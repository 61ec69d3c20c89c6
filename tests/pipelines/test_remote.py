"""--host against a server that speaks the Kubeflow Pipelines API on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines import run

STATES = ["PENDING", "RUNNING", "SUCCEEDED"]


class Pipelines(ThreadingHTTPServer):
    """Takes runs and recurring runs, and lets a run go through its states, one a look."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.states, self.asked, self.looks, self.token = list(STATES), [], 0, None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def run(self):
        state = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        task = {"display_name": "validate", "state": state}
        if state == "FAILED":
            task["error"] = {"code": 1, "message": "train/a.png: damaged"}
        return {"run_id": "r1", "state": state, "run_details": {"task_details": [task]}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body):
        server, path = self.server, self.path.partition("?")[0]
        server.asked.append((self.command, path, self.path.partition("?")[2], body))
        if server.token and self.headers.get("authorization") != f"Bearer {server.token}":
            return self.send({"error": "Unauthorized"}, 401)
        if path.endswith("/healthz"):
            return self.send({"multi_user": True})
        if path.endswith("/experiments"):
            return self.send({"experiments": []} if body is None else {"experiment_id": "e1", **body})
        if path.endswith("/recurringruns"):
            return self.send({"recurring_run_id": "j1"})
        return self.send({"run_id": "r1"} if body else server.run())

    def send(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KF_PIPELINES_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pipelines.remote.POLL", 0.01)
    server = Pipelines()
    yield server
    server.shutdown()


def posted(server, what):
    [(_, _, _, body)] = [one for one in server.asked if one[0] == "POST" and one[1].endswith(what)]
    return body


def test_a_run_is_submitted_watched_and_linked(server, capsys):
    assert run.main(["--host", server.url, "--namespace", "team", "--run-name", "first", "-S", "finetune.lr=0.5"]) == 0
    said = capsys.readouterr().out
    assert f"{server.url}/#/runs/details/r1" in said and said.rstrip().endswith("succeeded")
    assert [f"validate: {state.lower()}" in said for state in STATES] == [True] * 3
    experiment, submitted = posted(server, "/experiments"), posted(server, "/runs")
    assert (experiment["display_name"], experiment["namespace"]) == ("segraft", "team")
    assert submitted["display_name"] == "first" and submitted["experiment_id"] == "e1"
    spec = submitted["pipeline_spec"]["pipeline_spec"]
    boxes = spec["root"]["inputDefinitions"]["parameters"]
    assert json.loads(boxes["finetune"]["defaultValue"])["lr"] == 0.5
    assert submitted["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"], "the pods' settings go along"


def test_a_failed_run_ends_with_the_failing_step_s_message(server, capsys):
    server.states = ["RUNNING", "FAILED"]
    assert run.main(["--host", server.url]) == 65
    assert capsys.readouterr().err.endswith("the run ended as FAILED\nvalidate: train/a.png: damaged\n")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("pipeline.txt", "expected a file whose name ends with .yaml"),
        ("/proc/nowhere/pipeline.yaml", "No such file or directory; name a file that can be written"),
    ],
)
def test_a_pipeline_is_compiled_to_a_yaml_file_that_can_be_written(tmp_path, file, why, capsys):
    assert run.main(["--compile", str(tmp_path / file)]) == 65
    assert capsys.readouterr().err == f"transfer: --compile: {tmp_path / file}: {why}\n"


def test_what_the_disk_refuses_is_a_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run.main(["--local", "--plan", "--params", str(tmp_path / "file/params.yaml")]) == 74
    assert capsys.readouterr().err == f"transfer: {tmp_path}/file/params.yaml: Not a directory\n"


@pytest.mark.parametrize("cron", ["0 3 * * 1", "0 0 3 * * 1"])
def test_a_schedule_is_a_recurring_run_and_starts_none_now(server, cron):
    assert run.main(["--host", server.url, "--schedule", cron]) == 0
    assert posted(server, "/recurringruns")["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert not [one for one in server.asked if one[1].endswith("/runs")]


def test_the_token_comes_from_the_environment_or_from_a_file(server, monkeypatch, tmp_path, capsys):
    server.token = "let-me-in"
    argv = ["--host", server.url, "--namespace", "team", "--no-wait"]
    assert run.main(argv) == 65
    assert "Unauthorized" in capsys.readouterr().err
    (tmp_path / "token").write_text("let-me-in")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert run.main(argv) == 0
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "let-me-in")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KF_PIPELINES_NAMESPACE", "team")
    assert run.main(["--host", "--no-wait"]) == 0
    assert "let-me-in" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--host", "http://127.0.0.1:1"], "http://127.0.0.1:1: "),
        (["--host", "http://127.0.0.1:1", "-S", "finetune.lr=-1"], "finetune.lr: Input should be greater than 0"),
        (["nosuch", "--compile", "x.yaml"], "nosuch: no such pipeline; there are transfer, finetune, sweep"),
        (["--compile", "x.yaml", "--plan"], "--plan: only with --local or --containers"),
        (["--local", "--model", "models:/segraft@champion"], "--model: only the pipeline finetune starts from a model"),
        (["--local", "--schedule", "0 3 * * 1", "--no-wait"], "--schedule, --no-wait: only with --host"),
        (["--local", "--json"], "--json: only with --plan"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(server, argv, message, capsys):
    assert run.main(argv) == 65
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_a_bad_schedule_is_refused(server, capsys):
    assert run.main(["--host", server.url, "--schedule", "monday"]) == 65
    assert "expected minute hour day month weekday" in capsys.readouterr().err
