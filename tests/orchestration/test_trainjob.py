"""A training step as a TrainJob: the kubeflow SDK speaks with a small API server that really runs what it is told."""

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from segraft.checkpoint import read_card
from segraft.errors import UserError
from segraft.orchestration import trainjob
from segraft.orchestration.trainjob import TRAINJOB, Job, door, run
from segraft.params import load_params
from segraft.training import STRATEGY
from tests.k8s.custom import problems
from tests.ports import free_port
from tests.training.conftest import pack

ROOT = Path(__file__).parents[2]
RUNTIME = yaml.safe_load((ROOT / "k8s/base/training.yaml").read_text())
NODE = "cluster.gpu={type: nvidia.com/gpu, count: 2}"
PARAMS = load_params(ROOT / "params.yaml")


class Cluster(BaseHTTPRequestHandler):
    """The resources that the SDK asks for. A TrainJob's command runs here, told what Kubeflow Trainer tells a pod."""

    jobs, processes, asked = {}, {}, []
    away = 0

    def do_GET(self):
        cls = type(self)
        name = self.path.partition("?")[0].rpartition("/")[2]
        if "/trainingruntimes/segraft" in self.path:
            self.reply(200, RUNTIME)
        elif "/trainjobs/" in self.path:
            if cls.away:
                cls.away -= 1
                self.reply(500, {"message": "away"})
            else:
                self.reply(200 if name in self.jobs else 404, self.state(name) if name in self.jobs else {})
        elif name == "trainjobs":
            self.reply(200, {"metadata": {}, "items": [self.state(job) for job in self.jobs]})
        elif name == "log":
            self.reply(200, self.log(re.search("/pods/(.+)-node", self.path)[1]).read_text(), "text/plain")
        elif name == "pods":
            self.reply(200, {"metadata": {}, "items": [self.pod(job) for job in self.jobs if job in self.path]})
        else:
            self.reply(404, {})

    def do_POST(self):
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = job["metadata"]["name"]
        self.asked.append(job)
        self.jobs[name] = job | {"metadata": {"name": name, "namespace": "segraft", "creationTimestamp": now()}}
        told = {"NNODES": "1", "NPROC_PER_NODE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        told["MASTER_PORT"] = str(free_port())
        environment = os.environ | {f"PET_{key}": value for key, value in told.items()}
        asked_for = {entry["name"]: entry["value"] for entry in job["spec"]["trainer"].get("env", [])}
        with self.log(name).open("w") as log:
            self.processes[name] = subprocess.Popen(
                job["spec"]["trainer"]["command"], cwd=ROOT, env=environment | asked_for, stdout=log, stderr=log
            )
        self.reply(201, self.jobs[name])

    def do_DELETE(self):
        name = self.path.rpartition("/")[2]
        self.processes[name].terminate()
        del self.jobs[name]
        self.reply(200, {})

    def log(self, name):
        return self.server.folder / f"{name}.log"

    def state(self, name):
        code = self.processes[name].poll()
        kind = {None: None, 0: "Complete"}.get(code, "Failed")
        condition = {"type": kind, "status": "True", "lastTransitionTime": now(), "reason": "r", "message": "m"}
        return self.jobs[name] | ({"status": {"conditions": [condition]}} if kind else {})

    def pod(self, name):
        node = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        labels = {"jobset.sigs.k8s.io/replicatedjob-name": "node", "batch.kubernetes.io/job-completion-index": "0"}
        metadata = {"name": f"{name}-node-0-0-x", "labels": labels, "creationTimestamp": now()}
        return {"metadata": metadata, "spec": node, "status": {"phase": "Running"}}

    def reply(self, code, content, kind="application/json"):
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def now():
    return datetime.now(UTC).isoformat()


@pytest.fixture
def cluster(tmp_path):
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Fresh", (Cluster,), {"jobs": {}, "processes": {}, "asked": []})
    )
    server.folder = tmp_path
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.RequestHandlerClass, server.server_address[1]
    for process in server.RequestHandlerClass.processes.values():
        process.kill()
    server.shutdown()


@pytest.fixture
def client(cluster):
    return client_of(cluster[1])


def client_of(port):
    from kubeflow.common.types import KubernetesBackendConfig
    from kubeflow.trainer import TrainerClient
    from kubernetes.client import Configuration

    address = Configuration(host=f"http://127.0.0.1:{port}")
    return TrainerClient(KubernetesBackendConfig(namespace="segraft", client_configuration=address))


@pytest.fixture
def asked(tmp_path):
    """A dataset on the volume, and what to make of it."""
    pack(tmp_path / "volume" / "discs")
    return what_is_asked(tmp_path)


def what_is_asked(tmp_path):
    shared = tmp_path / "volume"
    training = PARAMS.pretrain.model_copy(
        update={"epochs": 1, "steps_per_epoch": 3, "batch_size": 4, "threads": 1, "precision": "fp32"}
    )
    model = PARAMS.model.model_copy(update={"arch": "unet", "encoder": "resnet18", "weights": "random"})
    paths = {
        "dataset": shared / "discs",
        "work": shared / "work",
        "weights": tmp_path / "model",
        "log": tmp_path / "log",
    }
    job = Job("segraft", "segraft:dev", 1, shared, {"cpu": "2", "memory": "4Gi"}, "fsdp", poll=0.2)
    return {"model": model, "pretrain": training.model_dump_json()}, paths, job


@pytest.mark.slow
def test_a_step_runs_as_a_trainjob_and_its_results_come_back(client, cluster, asked, tmp_path, capsys):
    sections, paths, job = asked
    cluster[0].away = 2
    metrics = run("pretrain", sections, paths, job, client)
    assert metrics["steps"] == 3 and read_card(tmp_path / "model").encoder == "resnet18"
    assert (tmp_path / "log/training.json").is_file() and not list((job.shared / "jobs").iterdir())
    (sent,) = cluster[0].asked
    assert problems(sent) == [] and not cluster[0].jobs
    assert sent["spec"]["runtimeRef"]["name"] == "segraft" and sent["spec"]["trainer"]["numNodes"] == 1
    assert sent["spec"]["trainer"]["resourcesPerNode"]["limits"]["memory"] == "4Gi"
    assert sent["spec"]["trainer"]["env"] == [{"name": STRATEGY, "value": "fsdp"}]
    printed = capsys.readouterr()
    assert ": Complete" in printed.out and "no answer" in printed.err


@pytest.mark.slow
def test_results_are_there_until_the_job_is_deleted(client, cluster, asked, tmp_path, monkeypatch):
    """A watching pod that is lost just before is started again, and finds a job that is complete."""
    sections, paths, job = asked

    def lost(_):
        raise ConnectionError("lost")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(client, "delete_job", lost)
        run("pretrain", sections, paths, job, client)
    assert run("pretrain", sections, paths, job, client)["steps"] == 3
    assert read_card(tmp_path / "model").encoder == "resnet18" and len(cluster[0].asked) == 1
    assert not cluster[0].jobs and not list((job.shared / "jobs").iterdir())


@pytest.mark.slow
def test_a_failing_job_says_why_and_a_second_call_tries_again(client, cluster, asked):
    sections, paths, job = asked
    sections["pretrain"] = json.dumps(json.loads(sections["pretrain"]) | {"batch_size": 3})
    for _ in range(2):
        with pytest.raises(UserError, match="batch_size: 3 samples cannot be shared evenly by 2 processes"):
            run("pretrain", sections, paths, job, client)
    first, second = (sent["metadata"]["name"] for sent in cluster[0].asked)
    assert (first[:-1], first[-1], second[-1]) == (second[:-1], "1", "2")


def test_a_job_that_is_there_is_watched_and_not_started_again(client, cluster, asked, monkeypatch):
    sections, paths, job = asked
    monkeypatch.setattr(trainjob, "_command", lambda *_: ["sleep", "0.5"])
    with pytest.raises(FileNotFoundError):  # it ends well and leaves nothing
        run("pretrain", sections, paths, job, client)
    with pytest.raises(FileNotFoundError):
        run("pretrain", sections, paths, job, client)
    assert len(cluster[0].asked) == 1


TERMINATED = """
import os, signal, sys
from pathlib import Path
from segraft.orchestration import trainjob
from tests.orchestration.test_trainjob import client_of, what_is_asked

port, moment, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
client = client_of(port)
call = getattr(client, moment)

def then_terminate(*args, **options):
    answer = call(*args, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return answer

setattr(client, moment, then_terminate)
trainjob._command = lambda *_: ["sleep", "60"]
sections, paths, job = what_is_asked(folder)
trainjob.run("pretrain", sections, paths, job, client)
"""


@pytest.mark.parametrize("moment", ["train", "get_job"])
def test_sigterm_deletes_the_job(cluster, asked, tmp_path, moment):
    """Whether it comes just after the job was made or while it is watched; in a process that it may end."""
    command = [sys.executable, "-c", TERMINATED, str(cluster[1]), moment, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 143, ended.stderr
    assert len(cluster[0].asked) == 1 and not cluster[0].jobs


def test_a_pipeline_s_training_steps_become_trainjobs(asked, monkeypatch):
    """What the compiled pipeline puts into the environment is what `door` makes a job of."""
    from pipelines.graph import Target, draw

    params = load_params(
        ROOT / "params.yaml",
        ["cluster.nodes.count=3", "cluster.nodes.strategy=fsdp", "cluster.store=/data/store", NODE],
    )
    spec = draw("transfer", Target(params, "sha256:1", remote=True), ROOT).pipeline_spec
    executors = {name: e["container"] for name, e in MessageToDict(spec.deployment_spec)["executors"].items()}
    told = {name: {e["name"]: e["value"] for e in box.get("env", [])} for name, box in executors.items()}
    trained = {name.removeprefix("exec-") for name, env in told.items() if TRAINJOB in env}
    assert trained == {"pretrain", "finetune", "scratch"}
    assert executors["exec-pretrain"]["resources"]["resourceCpuLimit"] == "2", "it only watches"
    assert "accelerator" in executors["exec-evaluate"]["resources"] and "accelerator" not in str(
        executors["exec-scratch"]
    )

    started = []
    monkeypatch.setattr(trainjob, "run", lambda name, sections, paths, job: started.append((name, job)))
    for key in (TRAINJOB, "SEGRAFT_STORE"):
        monkeypatch.setenv(key, told["exec-pretrain"][key])
    door("pretrain", {}, {})
    resources = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert started == [("pretrain", Job("segraft", params.cluster.image, 3, Path("/data/store"), resources, "fsdp"))]


def test_nodes_without_a_store_are_one_clear_error():
    with pytest.raises(UserError, match="3 nodes see one dataset only in a store: set cluster"):
        load_params(ROOT / "params.yaml", ["cluster.nodes.count=3"])


def test_what_nodes_cannot_see_is_copied_or_refused(client, cluster, asked, tmp_path, monkeypatch):
    sections, paths, job = asked
    commands = []
    monkeypatch.setattr(trainjob, "_create", lambda _client, _title, command, _job: commands.append(command))
    monkeypatch.setattr(trainjob, "_watch", lambda *_: (_ for _ in ()).throw(TimeoutError))
    with pytest.raises(TimeoutError):
        run("pretrain", sections, paths | {"dataset": pack(tmp_path / "elsewhere")}, job, client)
    dataset = Path(commands[0][commands[0].index("--dataset") + 1])
    assert dataset.is_relative_to(job.shared) and (dataset / "dataset.json").is_file()
    with pytest.raises(UserError, match="keep unfinished work where all see it"):
        run("pretrain", sections, paths | {"work": tmp_path / "work"}, job, client)
