"""kfp.local with our cache: content decides, a plan says so beforehand, and a failure is told at the end."""

import os
import re
import shutil
from pathlib import Path

import pytest
from kfp import dsl

from pipelines import data, local, transfer
from pipelines.graph import Target, draw
from pipelines.keep import KEEP, in_use, prune
from segraft.deploy.version import DEPLOYED
from segraft.errors import UserError
from segraft.orchestration.digest import digest
from segraft.orchestration.execution import EXECUTION, MESSAGE, NOTES, RUN, TRACKING, close
from segraft.params import load_params
from segraft.registry.versions import aliases, publish
from segraft.tracking import Record, connect
from tests.components.test_run import ROOT, TINY
from tests.registry.conftest import example, make_artifact, make_model  # noqa: F401


@pytest.fixture
def mine(tmp_path):
    """A dataset by reference."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(b"11")
    return tmp_path / "mine"


@pytest.fixture
def small(tmp_path, monkeypatch, mine):
    """Draws a pipeline of the embedded source and a target by reference, which takes seconds; gives its parts."""

    def graph_of(graph):
        with dsl.ExitHandler(graph.finish()):
            data.tasks(graph)

    monkeypatch.setattr(transfer, "transfer", graph_of)
    monkeypatch.setattr("pipelines.graph.code", lambda module: {"segraft/data/streets/scene.py": "as it was"})

    class Small:
        root = tmp_path / "build"

        def params(self, *overrides):
            uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
            return load_params(ROOT / "params.yaml", [*TINY, uri, f"data.target.path={mine}", *overrides])

        def draw(self, *overrides):
            return draw("transfer", Target(self.params(*overrides), "", remote=False), ROOT)

        def run(self, *overrides, keep=KEEP):
            local.run(self.draw(*overrides), self.params(*overrides).tracking, root=self.root, keep=keep)

        def plan(self, *overrides):
            return local.plan(self.draw(*overrides), self.root)

        def runs(self, task):
            return len(list(self.root.glob(f"runs/*/{task}/executor_output.json")))

    return Small()


def rewrite(path: Path, content: bytes):
    """Other bytes at the same path, of the same size and age."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_content_decides_what_runs_and_the_plan_says_so_beforehand(small, mine, monkeypatch):
    assert small.plan() == {"streets": ["it has not run yet"], "locate": ["it has not run yet"]}
    assert not small.root.joinpath("runs").exists() or not small.runs("streets"), "a plan starts nothing"
    small.run()
    assert (small.runs("streets"), small.runs("locate")) == (1, 1) and small.plan() == {}
    small.run()
    assert (small.runs("streets"), small.runs("locate")) == (1, 1), "unchanged: all hits"

    rewrite(mine / "a.png", b"22")
    [(name, [why])] = small.plan().items()
    assert name == "locate" and why.startswith("md5: ")
    small.run()
    assert (small.runs("streets"), small.runs("locate")) == (1, 2), "a file rewritten at the same path is no stale hit"
    rewrite(mine / "a.png", b"11")
    assert small.plan() == {}, "and what was there before is known still"

    assert small.plan("streets.seed=8") == {"streets": ["streets.seed: 7 → 8"]}
    output = next(small.root.glob("runs/*/streets/source/**/*.png"))
    whole = output.read_bytes()
    rewrite(output, whole[:-1] + b"x")
    assert small.plan() == {"streets": ["an output is missing or was changed"]}
    rewrite(output, whole)

    monkeypatch.setattr("pipelines.graph.code", lambda module: {"segraft/data/streets/scene.py": "edited"})
    [(name, why)] = small.plan().items()
    assert name == "streets" and "code: segraft/data/streets/scene.py changed" in why


@pytest.mark.slow
def test_a_failing_step_is_told_at_the_end_and_in_mlflow_and_a_rerun_starts_there(small, mine, capfd):
    gone = mine.rename(mine.with_name("gone"))
    with pytest.raises(UserError, match=f"^locate: {mine}: not found; mount the volume"):
        small.run()
    with connect(small.params().tracking) as tracker:
        [run] = tracker.client.search_runs([tracker.experiment])
        assert run.info.status == "FAILED" and run.data.tags[MESSAGE].startswith(f"locate: {mine}: not found")
        assert run.data.tags[EXECUTION].startswith("segraft-transfer-")
    assert f"locate: {mine}: not found" in capfd.readouterr().out.split("FAILED")[-1], "the exit handler reports it too"
    gone.rename(mine)
    assert list(small.plan()) == ["locate"]
    small.run()
    assert (small.runs("streets"), small.runs("locate")) == (1, 1)
    with connect(small.params().tracking) as tracker:
        assert len(tracker.client.search_runs([tracker.experiment])) == 1, "a run that ends well leaves no note"


def test_what_a_container_must_see_is_what_the_steps_read(small, mine, tmp_path):
    (tmp_path / "model").mkdir()
    target = Target(small.params(), "sha256:0", remote=False, pretrained=str(tmp_path / "model"))
    assert data.folders(target) == [tmp_path / "model", mine]
    assert data.folders(Target(small.params(), "sha256:0", False, "models:/segraft@champion")) == [mine]


@pytest.mark.slow
@pytest.mark.usefixtures("own_environment")
def test_the_task_deploy_runs_again_for_other_manifests(small, mine, make_artifact, monkeypatch):  # noqa: F811
    with connect(small.params().tracking) as tracker:
        publish(tracker, "m", tracker.log(Record("run", "k", 1.0, 2.0)), *make_artifact(0), {})
    registered = mine.parent / "register.json"
    registered.write_text('{"name": "m", "version": 1}')

    def graph_of(graph):
        with dsl.ExitHandler(graph.finish()):
            given = graph("locate", place=str(registered), md5=digest(registered))
            graph("deploy", registered=given.outputs["dataset"])

    monkeypatch.setattr(transfer, "transfer", graph_of)
    shutil.copytree(ROOT / "k8s/endpoint", mine.parent / "endpoint")
    manifest = mine.parent / "endpoint/base/inferenceservice.yaml"
    here = f"deploy.endpoint={mine.parent}/endpoint/cpu"
    small.run(here)
    with connect(small.params().tracking) as tracker:
        assert aliases(tracker, "m")[DEPLOYED] == "1"
    manifest.write_text(manifest.read_text().replace("timeout: 120", "timeout: 60"))
    assert small.plan(here) == {}, "an alias needs no manifest"
    for seconds in (60, 90):
        manifest.write_text(re.sub(r"timeout: \d+", f"timeout: {seconds}", manifest.read_text()))
        why = small.plan(here, "deploy.pipeline=endpoint")["deploy"]
        assert f"manifests.InferenceService/segraft.spec.predictor.timeout: None → {seconds}" in why


def test_an_execution_without_a_message_is_failed_all_the_same(small, monkeypatch):
    tracking = small.params().tracking
    monkeypatch.setenv(RUN, "one")
    monkeypatch.setenv(TRACKING, tracking.model_dump_json())
    monkeypatch.delenv(NOTES, raising=False)
    assert "a step ended without a message" in close(succeeded=False)
    assert close(succeeded=True) == "succeeded"
    with connect(tracking) as tracker:
        assert [run.info.status for run in tracker.client.search_runs([tracker.experiment])] == ["FAILED"]


def test_the_environment_is_as_it_was(small):
    before = dict(os.environ)
    with pytest.raises(UserError):
        small.run("data.target.path=/nowhere")
    assert dict(os.environ) == before


def test_executions_of_one_second_have_names_of_their_own(small, tmp_path):
    names = set()
    for _ in range(5):
        with local.execution("one", small.params().tracking, tmp_path):
            names.add(os.environ[RUN])
    assert len(names) == 5


def test_outputs_of_old_runs_go_and_those_that_stay_are_still_found(small, mine, capsys):
    for content in (b"11", b"22", b"33"):
        rewrite(mine / "a.png", content)
        small.run(keep=2)
    assert (small.runs("streets"), small.runs("locate")) == (1, 2), "streets are of the first run, and used by all"
    assert len(list((small.root / "runs").iterdir())) == 3 and not list((small.root / "notes").iterdir())
    rewrite(mine / "a.png", b"22")
    assert small.plan() == {}
    small.run(keep=2)
    assert "ran: nothing" in capsys.readouterr().out.splitlines()[-1]
    rewrite(mine / "a.png", b"11")
    assert list(small.plan()) == ["locate"]
    with in_use(small.root):
        prune(small.root, 1)
    assert small.runs("locate") == 2, "another process may be using them"
    prune(small.root, 1)
    assert (small.runs("streets"), small.runs("locate")) == (1, 1)
