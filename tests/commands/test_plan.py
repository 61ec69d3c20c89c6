"""`segraft plan` for DVC, against DVC itself in a small project."""

import json
import subprocess
import sys

import pytest
import yaml

from segraft.commands.plan import dvc_plan
from segraft.errors import UserError

STAGES = {
    "make": {"cmd": "cp ${data.path} made", "deps": ["${data.path}"], "params": ["data"], "outs": ["made"]},
    "train": {"cmd": "cp made weights", "deps": ["made"], "params": ["train"], "outs": ["weights"]},
    "score": {"cmd": "echo {} > score.json", "deps": ["weights"], "metrics": [{"score.json": {"cache": False}}]},
}
PARAMS = {"data": {"path": "raw.txt"}, "train": {"lr": 0.1, "online": {"flip": 0.5}}}


def dvc(project, *words):
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=project, check=True, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    (project / "raw.txt").write_text("raw")
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    (project / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    dvc(project, "init", "--no-scm", "-q")
    before = dvc_plan(project)
    dvc(project, "repro", "-q")
    return project, before


@pytest.fixture
def changed(ran):
    """Writes other content to a file of the project for the test's time."""
    project, _ = ran
    saved = {}

    def write(name, content):
        saved[name] = (project / name).read_text()
        (project / name).write_text(content)

    yield write
    for name, content in saved.items():
        (project / name).write_text(content)


def agrees(project, plan):
    """Whether DVC would start with the same stage."""
    said = dvc(project, "repro", "--dry").stdout
    return [name for name in STAGES if f"Running stage '{name}'" in said][:1] == list(plan)[:1]


def test_nothing_has_run_yet_and_then_nothing_would(ran):
    project, before = ran
    assert before == {name: ["it has not run yet"] for name in STAGES}
    assert dvc_plan(project) == {}


def test_a_changed_knob_is_named_with_both_values_and_what_follows_is_listed(ran, changed):
    project, _ = ran
    changed("params.yaml", yaml.safe_dump(PARAMS | {"train": {"lr": 0.2, "online": {"flip": 0.0}}}))
    plan = dvc_plan(project)
    assert set(plan["train"]) == {"train.lr: 0.1 → 0.2", "train.online.flip: 0.5 → 0.0"}
    assert plan["score"] == ["after train"] and list(plan) == ["train", "score"] and agrees(project, plan)


def test_changed_data_missing_outputs_and_changed_commands_are_reasons(ran, changed):
    project, _ = ran
    changed("raw.txt", "new")
    assert dvc_plan(project)["make"] == ["raw.txt is modified"] and agrees(project, dvc_plan(project))
    changed("raw.txt", "raw")
    weights = (project / "weights").read_bytes()
    (project / "weights").unlink()
    assert "weights is missing" in dvc_plan(project)["train"]
    (project / "weights").write_bytes(weights)
    stages = STAGES | {"score": STAGES["score"] | {"cmd": "echo [] > score.json"}}
    changed("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False))
    assert dvc_plan(project) == {"score": ["its command changed"]}


def test_a_broken_project_is_a_line(ran, changed):
    project, _ = ran
    changed("dvc.yaml", "stages: [")
    with pytest.raises(UserError, match="dvc status"):
        dvc_plan(project)


def test_both_engines_are_asked_through_their_own_command_lines(tmp_path):
    """In this project itself: whatever would run, each step is one of ours and has a reason."""
    from segraft.steps import STEPS
    from tests.components.test_run import ROOT

    command = [sys.executable, "-m", "segraft", "plan", "kubeflow", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["kubeflow"]
    assert set(plan) <= {*STEPS, "locate", "deploy"} and all(plan.values())
