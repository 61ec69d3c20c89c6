"""Data by reference, data at a revision, models that exist already, and the choice among several."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from pipelines.data import commit, inputs
from pipelines.graph import Target
from segraft.errors import UserError
from segraft.orchestration.component import MD5, locate
from segraft.orchestration.digest import digest
from segraft.orchestration.references import bring, choose, fetch, refer
from segraft.params import load_params
from tests.components.test_run import ROOT, artifact
from tests.steps.test_register import write_model
from tests.test_dvc_remote import KEY, SECRET, s3  # noqa: F401


def test_a_reference_copies_nothing_and_knows_its_content(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"1")
    found = artifact(dsl.Dataset, tmp_path / "out" / "dataset")
    refer(str(tmp_path / "set"), digest(tmp_path / "set"), found)
    assert locate(found) == str(tmp_path / "set") and found.metadata[MD5] == digest(tmp_path / "set")
    assert Path(found.path).is_file()


@pytest.mark.parametrize(
    ("place", "message"), [("gone", "gone: not found; mount the volume"), ("set", "it was changed since")]
)
def test_a_reference_to_what_is_gone_or_was_changed_is_refused(tmp_path, place, message, capsys):
    (tmp_path / "set").mkdir()
    with pytest.raises(SystemExit):
        refer(str(tmp_path / place), "0" * 32, artifact(dsl.Dataset, tmp_path / "out" / "dataset"))
    assert message in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path):
    """A git repository with a dataset of two revisions, pushed to its own remote, and no cache of its own."""
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]

    def say(*commands):
        for command in commands:
            subprocess.run(command, cwd=root, check=True, capture_output=True)

    dvc = [sys.executable, "-m", "dvc"]
    say(
        ["git", "init", "-qb", "main"],
        [*dvc, "init", "-q"],
        [*dvc, "remote", "add", "-d", "store", str(tmp_path / "store")],
    )
    for revision in ("v1", "v2"):
        (root / "data" / "set").mkdir(exist_ok=True)
        (root / "data" / "set" / "a.txt").write_text(revision)
        say([*dvc, "add", "-q", "data/set"], [*dvc, "push", "-q"], ["git", "add", "-A"])
        say([*git, "commit", "-qm", revision], ["git", "tag", revision])
    subprocess.run(["rm", "-rf", root / ".dvc" / "cache", root / "data" / "set"], check=True)
    return root


@pytest.mark.slow
def test_a_dataset_comes_as_it_was_at_a_revision(repository, tmp_path, capsys):
    cluster = load_params(ROOT / "params.yaml", [f"cluster.repo={repository}", "cluster.rev=v1"]).cluster
    first, second = (commit(cluster.model_copy(update={"rev": rev})) for rev in ("v1", ""))
    assert len(first) == 40 and first != second, "no rev: the default branch, as it is now"
    assert commit(cluster.model_copy(update={"rev": first})) == first
    for rev, text in ((first, "v1"), (second, "v2")):
        found = artifact(dsl.Dataset, tmp_path / text / "dataset")
        fetch(str(repository), rev, "data/set", found)
        assert (Path(found.path) / "a.txt").read_text() == text and found.metadata["rev"] == rev
        assert found.metadata[MD5] == digest(Path(found.path))
    subprocess.run(["git", "branch", "feature/v1", second], cwd=repository, check=True)
    assert commit(cluster) == first, "and not that of a branch whose name ends so"
    with pytest.raises(SystemExit):
        fetch(str(repository), first, "data/nothing", artifact(dsl.Dataset, tmp_path / "no" / "dataset"))
    with pytest.raises(UserError, match=r"cluster.repo: http://\*\*\*@127.0.0.1:1/x: "):
        commit(cluster.model_copy(update={"repo": "http://bob:hunter2@127.0.0.1:1/x"}))
    assert "data/nothing" in capsys.readouterr().err and not list((tmp_path / "no").iterdir())


@pytest.mark.parametrize(
    ("pointer", "version"),
    [
        ("outs: [{md5: 0123.dir, path: set}]", "0123.dir"),
        ("outs: [{path: set, files: [{version_id: a}]}]", ""),
        ("outs: []", None),
        ("junk", None),
        ("", None),
    ],
)
def test_data_that_are_not_here_are_known_by_dvc_s_pointer(tmp_path, pointer, version):
    (tmp_path / "set.dvc").write_text(pointer)
    params = load_params(ROOT / "params.yaml", [f"data.target.path={tmp_path}/set"])
    if version is not None:
        assert inputs(Target(params, "", remote=False), ROOT)["target_version"] == version
    else:
        with pytest.raises(UserError, match=rf"{tmp_path}/set\.dvc: not what `dvc add` or `dvc import` writes"):
            inputs(Target(params, "", remote=False), ROOT)


@pytest.mark.slow
def test_a_dataset_in_an_object_store_is_known_by_its_content(s3, tmp_path, monkeypatch, capsys):  # noqa: F811
    endpoint, bucket = s3
    place = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (place | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    (bucket / "camvid/train").mkdir(parents=True)
    for content in ("first", "other"):
        (bucket / "camvid/train/a.txt").write_text(content)
        found = artifact(dsl.Dataset, tmp_path / content / "dataset")
        fetch("", "", "s3://my-bucket/camvid", found)
        assert (Path(found.path) / "train/a.txt").read_text() == content
        assert found.metadata[MD5] == digest(bucket / "camvid")
    with pytest.raises(SystemExit):
        fetch("", "", "s3://my-bucket/nothing", artifact(dsl.Dataset, tmp_path / "no" / "dataset"))
    assert "dvc get-url s3://my-bucket/nothing: " in capsys.readouterr().err


def test_a_model_folder_is_brought_with_what_its_card_knows_and_a_damaged_one_is_refused(tmp_path, capsys):
    write_model(tmp_path / "mine")
    weights, log = (
        artifact(kind, tmp_path / "out" / name) for kind, name in ((dsl.Model, "weights"), (dsl.Artifact, "log"))
    )
    tracking = load_params(ROOT / "params.yaml").tracking.model_dump_json()
    bring(str(tmp_path / "mine"), digest(tmp_path / "mine"), tracking, weights, log)
    assert digest(Path(weights.path)) == digest(tmp_path / "mine") == weights.metadata[MD5]
    told = json.loads((Path(log.path) / "training.json").read_text())
    assert told["params"]["training"] == {"lr": 0.001} and told["step"] == "finetune"
    bad = artifact(dsl.Model, tmp_path / "bad" / "weights")
    with pytest.raises(SystemExit):
        bring(str(tmp_path / "mine"), "0" * 32 + ".dir", tracking, bad, log)
    assert "it was changed since the run was submitted" in capsys.readouterr().err
    (tmp_path / "mine" / "weights.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(SystemExit):
        bring(str(tmp_path / "mine"), "", tracking, bad, log)
    assert "damaged or replaced" in capsys.readouterr().err


def test_the_best_on_val_is_chosen(tmp_path):
    models, logs = [], []
    for number, miou in enumerate((0.3, 0.5, 0.4)):
        for kind, name, of in ((dsl.Model, "weights", models), (dsl.Artifact, "log", logs)):
            one = artifact(kind, tmp_path / str(number) / name)
            Path(one.path).mkdir()
            (Path(one.path) / "training.json").write_text(json.dumps({"best_miou": miou, "is": f"{name} {number}"}))
            of.append(one)
    weights, log = artifact(dsl.Model, tmp_path / "w"), artifact(dsl.Artifact, tmp_path / "l")
    metrics = artifact(dsl.Metrics, tmp_path / "m")
    choose(models, logs, weights, log, metrics)
    assert json.loads((tmp_path / "w" / "training.json").read_text())["is"] == "weights 1"
    assert json.loads((tmp_path / "l" / "training.json").read_text())["is"] == "log 1"
    assert metrics.metadata == {"miou_0": 0.3, "miou_1": 0.5, "miou_2": 0.4, "chosen": 1.0}
