import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from segraft.checkpoint import CARD, WEIGHTS, ClassCard, ModelCard, Preprocessing, sha256
from segraft.data.packed import CARD as DATASET
from segraft.data.packed import DatasetCard, Packed, ShardWriter
from segraft.errors import UserError
from segraft.params import Crf, Evaluate, Online, Register, Tracking
from segraft.registry import open_registered
from segraft.steps import run
from segraft.tracking import connect

NO_CRF = Crf(iterations=0, smooth=3, smooth_std=1, appearance=4, position_std=67, color_std=3)
EVALUATE = Evaluate(batch_size=2, examples=1, threads=0, window=None, crf=NO_CRF, adapt_batch_norm=False)
CLASSES = (ClassCard(name="road", color=(128, 64, 128)), ClassCard(name="sky", color=(70, 130, 180)))
CARDS = ModelCard(
    arch="unet",
    encoder="efficientnet_lite0",
    taxonomy="two",
    classes=CLASSES,
    preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    provenance={"step": "finetune", "training": {"lr": 0.001}},
)
ONLINE = Online(flip=0, rotate=0, scale=(1, 1), color=0, noise=0, blur=0, rare_crop=0)
MD5 = {"data/packed/target": f"{1:032x}.dir", "data/packed/source": f"{2:032x}.dir", "data/raw": f"{3:032x}.dir"}


def pack_dataset(folder: Path, seed=0):
    rng = np.random.default_rng(seed)
    splits = {}
    for split, count in (("train", 2), ("val", 1), ("test", 2)):
        writer = ShardWriter(folder, split, 2, "raw", 1)
        for number in range(count):
            mask = np.repeat(np.array([[1], [0]], np.uint8), 24, 0).repeat(64, 1)
            image = (mask[..., None] * 120 + rng.integers(0, 99, (48, 64, 3))).astype(np.uint8)
            writer.add(Packed(f"{split}_{number}", "g", (), image, mask))
        splits[split] = writer.close()
    card = DatasetCard(taxonomy="two", classes=CLASSES, codec="raw", crop=(32, 32), online=ONLINE, splits=splits)
    (folder / DATASET).write_text(card.model_dump_json())
    return card


def write_model(folder: Path, seed=0):
    """A model folder whose network is never built."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.random.default_rng(seed).random((16, 16), np.float32)}, folder / WEIGHTS)
    card = CARDS.model_copy(update={"weights_sha256": sha256(folder / WEIGHTS)})
    (folder / CARD).write_text(card.model_dump_json())


def write_scores(path: Path, weights_sha256: str, miou=0.4, source=0.213):
    def scores(value):
        of_all = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "dice"), 0.75)
        interval = [value - 0.02, value + 0.03]
        return {"miou": value, "miou_interval": interval, **of_all, "iou": {"road": value, "sky": None}}

    gain = {"over_source": source and {"miou": miou - source}, "over_scratch": {"miou": miou - 0.281}}
    every = {"gain": gain, "source": source and scores(source), "scratch": scores(0.281), "transferred": scores(miou)}
    every["transferred"]["weights_sha256"] = weights_sha256
    path.write_text(json.dumps(every))


def write_log(folder: Path, started: float, fingerprint: str):
    folder.mkdir(parents=True)
    params = {"model": {"arch": "unet"}, "training": {"lr": 0.001, "epochs": 2}}
    training = {
        "step": folder.name,
        "params": params,
        "dataset": fingerprint,
        "steps": 20,
        "epochs": 2,
        "seconds": 10.0,
    }
    training |= {"best_epoch": 2, "best_miou": 0.5, "started": started, "ended": started + 10.5}
    training |= {"environment": {"torch": "2.13.0", "threads": 2}, "graft": []}
    (folder / "training.json").write_text(json.dumps(training))
    rows = [{"step": s, "epoch": s // 10, "time": started + s / 2, "loss": 1 / s, "lr": 0.1} for s in range(1, 21)]
    rows.append({"step": 20, "epoch": 2, "time": started + 10, "val_miou": 0.5})
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    system = [{"time": started + s, "cpu_percent": 150.0 + s, "memory_mb": 900} for s in range(10)]
    (folder / "system.jsonl").write_text("".join(json.dumps(row) + "\n" for row in system))


def write_lock(path: Path):
    def entries(*paths):
        return [{"path": p, "hash": "md5", "md5": MD5.get(p, "f" * 32)} for p in paths]

    packed = ("data/packed/source", "data/packed/target")
    stages = {
        "augment": {"deps": entries("data/raw", "segraft/steps/augment.py"), "outs": entries(*packed)},
        "pretrain": {"deps": entries("segraft/steps/pretrain.py", "data/packed/source")},
        "finetune": {"deps": entries("data/packed/target")},
        "scratch": {"deps": entries("data/packed/target")},
    }
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


class Project:
    """The files that the steps before register leave in a working directory."""

    def __init__(self, root: Path):
        self.root, self.uri = root, f"sqlite:///{root}/mlflow.db"
        card = pack_dataset(root / "data/packed/target")
        write_model(root / "models/finetuned")
        for number, step in enumerate(("pretrain", "finetune", "scratch")):
            write_log(root / "reports" / step, 1000.0 + 20 * number, card.fingerprint)
        (root / "reports/report.html").write_text("<p>report</p>")
        (root / "reports/augment.png").write_bytes(b"png")
        write_lock(root / "dvc.lock")
        self.score(0.4)

    def score(self, miou, **others):
        weights = sha256(self.root / "models/finetuned" / WEIGHTS)
        write_scores(self.root / "reports/evaluate.json", weights, miou, **others)

    def tracking(self, **changes):
        return Tracking(**{"uri": self.uri, "experiment": "segraft", "required": True, "timeout": 1.0} | changes)

    def register(self, tracking=None, min_gain=0.0, evaluate=EVALUATE):
        paths = {"finetuned": "models/finetuned", "dataset": "data/packed/target", "scores": "reports/evaluate.json"}
        paths |= {"logs": "reports", "report": "reports/report.html", "lock": "dvc.lock"}
        paths["registered"] = "reports/register.json"
        sections = {
            "register": Register(name="segraft", min_gain=min_gain),
            "tracking": tracking or self.tracking(),
            "evaluate": evaluate,
        }
        metrics = run("register", sections, {name: self.root / path for name, path in paths.items()})
        return metrics, json.loads((self.root / "reports/register.json").read_text())

    def runs(self):
        with connect(self.tracking()) as tracker:
            found = tracker.client.search_runs([tracker.experiment])
        return {run.data.tags["segraft.step"]: run for run in found} if len(found) == 4 else found


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with MLflow's tables and nothing in them: to make those takes as long as all else."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with connect(Tracking(uri=f"sqlite:///{path}", experiment="none", required=True, timeout=1)):
        return path


@pytest.fixture
def project(tmp_path, monkeypatch, database):
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    shutil.copy(database, tmp_path)
    return Project(tmp_path)


def test_a_run_ends_in_mlflow_whole(project, capsys, tmp_path):
    metrics, registered = project.register()
    assert metrics == {"tracked": 1.0, "version": 1.0, "champion": 1.0}
    assert registered["aliases"] == ["challenger", "champion"] and registered["why"] == "the first"
    with connect(project.tracking()) as tracker:
        runs = tracker.client.search_runs([tracker.experiment])
        runs = {run.data.tags["segraft.step"]: run for run in runs}
        whole = runs.pop("unet-efficientnet_lite0-" + sha256(tmp_path / "models/finetuned" / WEIGHTS)[:8])
        loss = tracker.client.get_metric_history(runs["finetune"].info.run_id, "loss")
        artifacts = {a.path for a in tracker.client.list_artifacts(whole.info.run_id)}
    assert whole.info.run_id == registered["run"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {registered["run"]}
    assert set(runs) == {"pretrain", "finetune", "scratch"}
    assert (whole.info.start_time, whole.info.end_time) == (1000_000, 1050_500)
    assert (runs["finetune"].info.start_time, runs["finetune"].info.end_time) == (1020_000, 1030_500)
    assert whole.data.metrics["transferred/miou"] == 0.4 and whole.data.metrics["scratch/iou/road"] == 0.281
    assert "scratch/iou/sky" not in whole.data.metrics, "a class without a score has no metric"
    assert whole.data.params["finetune.training.lr"] == "0.001"
    assert [(m.step, m.timestamp) for m in loss] == [(s, 1020_000 + 500 * s) for s in range(1, 21)]
    finetune = runs["finetune"].data
    assert finetune.metrics["system/cpu_percent"] == 159.0 and finetune.metrics["summary/best_miou"] == 0.5
    assert finetune.tags["environment.torch"] == "2.13.0" and finetune.params["training.epochs"] == "2"
    assert {"report.html", "evaluate.json", "augment.png", "dvc.lock"} < artifacts
    folder = open_registered("models:/segraft@champion", project.tracking(), tmp_path / "opened")
    assert (folder / WEIGHTS).read_bytes() == (tmp_path / "models/finetuned" / WEIGHTS).read_bytes()
    table = capsys.readouterr().out
    assert "source as it is       21.3 %   19.3 % – 24.3 %            75.0 %" in table
    assert "transferred           40.0 %   38.0 % – 43.0 %            75.0 %" in table
    assert f"report  {tmp_path}/reports/report.html" in table
    assert "model   segraft version 1 (challenger, champion): the first" in table


def digests(run):
    return {(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs}


def test_the_data_are_inputs_with_their_dvc_md5(project):
    project.register()
    runs = project.runs()
    whole = next(run for step, run in runs.items() if step.startswith("unet"))
    target, source = ((name, MD5[name]) for name in ("data/packed/target", "data/packed/source"))
    assert digests(whole) == {(*target, "evaluation"), ("data/raw", MD5["data/raw"], "origin")}
    assert digests(runs["pretrain"]) == {(*source, "training")}
    assert digests(runs["finetune"]) == digests(runs["scratch"]) == {(*target, "training")}
    with connect(project.tracking()) as tracker:
        tags = tracker.client.get_model_version("segraft", "1").tags
    assert json.loads(tags["classes"]) == {"road": "#804080", "sky": "#4682b4"}
    assert tags["provenance.training.lr"] == "0.001" and tags["arch"] == "unet"


def test_without_a_dvc_lock_the_data_are_known_by_fingerprint(project):
    (project.root / "dvc.lock").unlink()
    project.register()
    runs = project.runs()
    whole = next(run for step, run in runs.items() if step.startswith("unet"))
    fingerprint = json.loads((project.root / "reports/finetune/training.json").read_text())["dataset"]
    assert {digest for _, digest, _ in digests(whole)} == {fingerprint[:36]}
    assert whole.data.tags["segraft.dvc_lock"] == "missing: data by fingerprint only"


def test_again_is_the_same_run_and_version(project):
    _, first = project.register()
    (project.root / "reports/report.html").write_text("<p>drawn anew</p>")
    _, second = project.register()
    assert second == first | {"why": "was champion already"}
    assert len(project.runs()) == 4
    with connect(project.tracking()) as tracker:
        assert len(tracker.client.search_model_versions("name = 'segraft'")) == 1
        report = tracker.client.download_artifacts(first["run"], "report.html")
    assert Path(report).read_text() == "<p>drawn anew</p>"


class Killed(BaseException):
    pass


WRITES = ("create_run", "log_artifact", "log_batch", "log_inputs", "set_terminated", "create_registered_model")
WRITES += ("log_artifacts", "create_model_version", "set_registered_model_alias", "set_model_version_tag")
WRITES += ("set_registered_model_tag",)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_it_is_finished_by_the_next(project, monkeypatch, when):
    import mlflow

    doomed = []

    class Mortal(mlflow.MlflowClient):
        """Dies before or after the first write of the kind that is doomed."""

        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            if name not in doomed:
                return found
            if when == "before":
                raise Killed(name)

            def last(*args, **kwargs):
                found(*args, **kwargs)
                raise Killed(name)

            return last

    monkeypatch.setattr(mlflow, "MlflowClient", Mortal)
    for write in WRITES:
        doomed[:] = [write]
        with pytest.raises(Killed, match=write):
            project.register()
    doomed.clear()
    metrics, registered = project.register()
    assert metrics == {"tracked": 1.0, "version": 1.0, "champion": 1.0} and len(registered["history"]) == 1
    runs = project.runs()
    assert len(runs) == 4 and {run.info.status for run in runs.values()} == {"FINISHED"}
    with connect(project.tracking()) as tracker:
        assert len(tracker.client.search_model_versions("name = 'segraft'")) == 1
        assert len(tracker.client.get_metric_history(runs["finetune"].info.run_id, "loss")) == 20


def test_a_better_model_becomes_champion_and_a_worse_one_challenger(project, capsys):
    project.register()
    write_model(project.root / "models/finetuned", seed=1)
    project.score(0.35)
    metrics, registered = project.register()
    assert metrics == {"tracked": 1.0, "version": 2.0, "champion": 0.0} and registered["aliases"] == ["challenger"]
    assert "version 2 (challenger): -5.00 mIoU points against version 1 on the same test set" in capsys.readouterr().out
    write_model(project.root / "models/finetuned", seed=2)
    project.score(0.45)
    _, registered = project.register()
    assert registered["aliases"] == ["challenger", "champion"]
    assert [entry["version"] for entry in registered["history"]] == ["1", "3"]


@pytest.fixture
def scorable(project):
    """A project whose champion is a network that can be scored again, with a score that it does not deserve."""
    import torch

    from segraft.checkpoint import save_model
    from segraft.models import create_model

    torch.manual_seed(0)
    save_model(project.root / "models/finetuned", create_model("unet", "efficientnet_lite0", 2), CARDS)
    project.score(0.9)
    project.register()
    return project


def beat(project, evaluate=EVALUATE):
    """A challenger that is a point better than what the champion scores on the data as they are now."""
    from segraft.evaluation.run import score

    data = project.root / "data/packed/target"
    theirs = score(project.root / "models/finetuned", data, "test", 4, how=evaluate).miou
    assert 0 < theirs < 0.8
    write_model(project.root / "models/finetuned", seed=1)
    project.score(theirs + 0.01)
    return project.register(evaluate=evaluate)[1]


def test_on_another_test_set_the_champion_is_scored_again(scorable):
    card = pack_dataset(scorable.root / "data/packed/target", seed=1)
    registered = beat(scorable)
    assert registered["champion"] and registered["why"].startswith("+1.00 mIoU points against version 1")
    with connect(scorable.tracking()) as tracker:
        tags = tracker.client.get_model_version("segraft", "1").tags
    assert len([tag for tag in tags if tag.startswith("miou.")]) == 2 and card.splits["test"].samples == 2


@pytest.mark.parametrize(
    "changes",
    [{"window": (32, 32)}, {"crf": NO_CRF.model_copy(update={"iterations": 1})}, {"adapt_batch_norm": True}],
    ids=["window", "crf", "adapt_batch_norm"],
)
def test_scored_in_another_way_the_champion_is_scored_again(scorable, changes):
    registered = beat(scorable, EVALUATE.model_copy(update=changes))
    assert registered["champion"] and registered["why"].startswith("+1.00 mIoU points against version 1")


def test_what_does_not_change_a_score_leaves_it(scorable):
    write_model(scorable.root / "models/finetuned", seed=1)
    scorable.score(0.8)
    _, registered = scorable.register(evaluate=EVALUATE.model_copy(update={"examples": 3, "threads": 1}))
    assert not registered["champion"] and registered["why"].startswith("-10.00 mIoU points against version 1")


def test_a_dead_server_does_not_lose_the_run_unless_it_is_required(project, capsys):
    dead = {"uri": "http://127.0.0.1:9"}
    metrics, registered = project.register(project.tracking(required=False, **dead))
    assert metrics == {"tracked": 0.0} and not registered["tracked"] and "127.0.0.1:9" in registered["why"]
    out, err = capsys.readouterr()
    assert "warning: not registered" in err and "try again: dvc repro -sf register" in out and "40.0 %" in out
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9"):
        project.register(project.tracking(required=True, **dead))
    assert project.register()[0]["version"] == 1.0


def test_a_source_that_was_not_scored_is_left_out(project, capsys):
    project.score(0.4, source=None)
    _, registered = project.register()
    table = capsys.readouterr().out
    assert "source as it is" not in table and "from scratch" in table
    with connect(project.tracking()) as tracker:
        metrics = tracker.client.get_run(registered["run"]).data.metrics
    assert not [name for name in metrics if "source" in name] and metrics["gain/over_scratch"] == 0.4 - 0.281


def test_scores_of_other_weights_are_refused(project):
    write_model(project.root / "models/finetuned", seed=5)
    with pytest.raises(UserError, match=r"evaluate\.json: these are not the scores of .*finetuned; run the evaluate"):
        project.register()
    assert not (project.root / "reports/register.json").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dvc.lock", "[]", "dvc.lock: not a dvc.lock"),
        ("dvc.lock", "stages: {augment: 3}", "dvc.lock: not a dvc.lock: stage augment is no mapping"),
        ("reports/evaluate.json", "{}", r"evaluate\.json: not what the evaluate step writes"),
        ("dvc.lock", "a: [", "dvc.lock: not valid YAML"),
        ("reports/evaluate.json", "{", "evaluate.json: not valid JSON"),
        ("reports/scratch/training.json", None, "training.json: no such file"),
    ],
)
def test_a_broken_file_is_named(project, file, content, message):
    path = project.root / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        project.register()


def test_it_runs_from_the_command_line_without_torch(project):
    params = Path(__file__).parents[2] / "params.yaml"
    script = f"""
import sys
from segraft.__main__ import main
code = main(["register", "--params", {str(params)!r}, "--finetuned", "models/finetuned", "--dataset",
    "data/packed/target", "--scores", "reports/evaluate.json", "--logs", "reports", "--report", "reports/report.html",
    "--lock", "dvc.lock", "--registered", "reports/register.json"])
assert "torch" not in sys.modules
sys.exit(code)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project.root, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (project.root / "mlflow.db").is_file() and "model   segraft version 1" in done.stdout
    assert "Traceback" not in done.stderr
