"""The whole pipeline, small, in a copy of the project: kfp.local and DVC make the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_pipeline import copy_project, environment, merged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = {
    "streets": {
        "size": [64, 128],
        "source": {"train": 8, "val": 2, "test": 0},
        "target": {"train": 4, "val": 2, "test": 3},
    },
    "augment": {"crop": [64, 96]},
    "model": {"arch": "fcn", "encoder": "resnet18", "weights": "random"},
    "pretrain": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "precision": "fp32"},
    "finetune": {"epochs": 2, "steps_per_epoch": 1, "batch_size": 2, "precision": "fp32"},
    "export": {"runtimes": [], "images": 2, "calibration_images": 2},
}
SAME = {
    "data/streets/source": ("streets", "source"),
    "data/streets/target": ("streets", "target"),
    "data/manifest": ("validate", "manifest"),
    "data/packed/source": ("augment", "packed_source"),
    "data/packed/target": ("augment", "packed_target"),
    "models/pretrained": ("pretrain", "weights"),
    "models/finetuned": ("finetune", "weights"),
    "models/scratch": ("scratch", "weights"),
    "reports/evaluate.json": ("evaluate", "scores"),
    "reports/plots": ("evaluate", "plots"),
}
"""Output under DVC → (step, artifact) under Kubeflow."""
IMAGE = os.environ.get("SEGRAFT_IMAGE", "segraft:dev")


def say(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment(), capture_output=True, text=True)


def well(folder: Path, *words: str) -> None:
    done = say(folder, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy in which both engines have run."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    params = merged(yaml.safe_load((folder / "params.yaml").read_text()), TINY)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    well(folder, "-m", "dvc", "repro")
    well(folder, "pipelines/run.py", "--local")
    return folder


def made(folder: Path) -> dict[tuple[str, str], dict]:
    """(step, artifact) → its metadata, of the newest run of each step."""
    found = {}
    for file in sorted(folder.glob("build/kubeflow/runs/*/*/executor_output.json"), key=lambda f: f.stat().st_mtime):
        artifacts = json.loads(file.read_text()).get("artifacts", {})
        found |= {(file.parent.name, name): one["artifacts"][0]["metadata"] for name, one in artifacts.items()}
    return found


def same(folder: Path) -> None:
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    dvc = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    kubeflow = made(folder)
    assert {path: kubeflow[key]["md5"] for path, key in SAME.items()} == {path: dvc[path] for path in SAME}
    assert kubeflow["evaluate", "metrics"] == json.loads((folder / "reports" / "scores.json").read_text())


def test_both_engines_make_the_same_data_weights_and_scores(project):
    same(project)


def test_the_ui_has_something_to_show(project):
    kubeflow = made(project)
    assert len(kubeflow["evaluate", "confusion"]["confusionMatrix"]["rows"]) >= 2
    assert kubeflow["finetune", "weights"]["made_of"] == {
        "dataset": kubeflow["augment", "packed_target"]["md5"],
        "pretrained": kubeflow["pretrain", "weights"]["md5"],
    }
    for step, key, origins in (
        ("augment", "packed_target", {"source", "target", "manifest"}),
        ("streets", "target", set()),
    ):
        assert set(kubeflow[step, key]["made_of"]) == origins
    for step in ("validate", "augment"):
        [page] = project.glob(f"build/kubeflow/runs/*/{step}/page")
        text = page.read_text()
        assert text.startswith("<!") and "<script src=" not in text and len(text) > 1000


def test_unchanged_is_all_hits_and_both_plans_said_so(project):
    folder = project
    plans = json.loads(say(folder, "-m", "segraft", "plan", "--json").stdout)
    assert plans == {"dvc": {}, "kubeflow": {}}
    before = made(folder)
    well(folder, "pipelines/run.py", "--local")
    assert made(folder) == before


def test_one_knob_is_planned_alike(project):
    folder = project
    text = (folder / "params.yaml").read_text()
    try:
        values = yaml.safe_load(text)
        values["evaluate"]["examples"] = 2
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        plans = json.loads(say(folder, "-m", "segraft", "plan", "--json").stdout)
    finally:
        (folder / "params.yaml").write_text(text)
    assert plans["dvc"]["evaluate"] == plans["kubeflow"]["evaluate"] == ["evaluate.examples: 4 → 2"]
    assert "register" in plans["dvc"] and "register" in plans["kubeflow"]
    assert not {"pretrain", "finetune", "augment"} & {*plans["dvc"], *plans["kubeflow"]}


def test_bad_data_ends_with_its_message_and_after_the_fix_the_run_starts_there(project, tmp_path):
    folder = project
    bad = folder / "data" / "mine"
    subprocess.run(["cp", "-rL", "--no-preserve=mode", folder / "data/streets/target", bad], check=True)
    victim, other = sorted((bad / "leftImg8bit/train").rglob("*.png"))[:2]
    other.write_bytes(victim.read_bytes())  # other content than the streets', so that nothing is known of it
    whole = victim.read_bytes()
    victim.write_bytes(whole[:500])
    command = ("pipelines/run.py", "--local", "-S", "data.target.path=data/mine")
    failed = say(folder, *command)
    assert failed.returncode == 65 and victim.name in failed.stderr and failed.stderr.startswith("transfer: validate: ")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [experiment] = [e.experiment_id for e in client.search_experiments() if e.name == "segraft"]
    [run] = [run for run in client.search_runs([experiment]) if run.info.status == "FAILED"]
    assert victim.name in run.data.tags["mlflow.note.content"]
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == {"report"}
    victim.write_bytes(whole)
    plan = json.loads(say(folder, *command, "--plan", "--json").stdout)
    assert list(plan)[:2] == ["locate", "validate"] and "streets" not in plan and "pretrain" in plan


def test_a_search_goes_on_with_more_trials(project):
    folder = project
    space = "tune.space={lr: {low: 0.001, high: 0.1, log: true, integer: false}}"
    for trials, fresh in ((1, 1), (2, 1), (2, 0)):
        done = say(folder, "-m", "segraft", "tune", "-S", f"tune.trials={trials}", "-S", space)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("epoch 2: mIoU") == fresh and f"best of {trials} trials" in done.stdout
        assert "dvc exp run -S finetune.lr=" in done.stdout


@pytest.mark.skipif(not os.environ.get("DOCKER_HOST"), reason="no container engine: DOCKER_HOST is not set")
def test_containers_make_the_same(project):
    import docker

    if not any(f"{IMAGE}" in tag for one in docker.from_env().images.list() for tag in one.tags):
        pytest.skip(f"no image {IMAGE}; say `make image`, or set SEGRAFT_IMAGE")
    folder = project
    command = ("pipelines/run.py", "--containers", "-S", f"cluster.image={IMAGE}")
    done = say(folder, *command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    same(folder)
    newest = max(folder.glob("build/kubeflow/runs/*/finetune/weights/model.json"), key=lambda f: f.stat().st_mtime)
    assert newest.stat().st_uid == (os.getuid() or 10001), "never root"
    failed = say(folder, *command, "-S", "validate.min_size=4000")
    assert failed.returncode == 65 and failed.stderr.startswith("transfer: validate: "), failed.stderr[-3000:]
