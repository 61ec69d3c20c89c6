"""The step door: outputs appear whole or not at all."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segraft import steps
from segraft.errors import UserError
from segraft.params import load_params
from segraft.steps import STEPS, In, Metrics, Out, run, spec, temporary

ROOT = Path(__file__).parents[1]


@pytest.fixture
def door(monkeypatch):
    """Opens the door to a function of the test."""

    def open_to(function):
        monkeypatch.setattr(steps, "spec", lambda name: steps.Spec(name, function, (), {"given": "in", "made": "out"}))

    return open_to


def paths(tmp_path):
    (tmp_path / "given").write_text("x")
    return {"given": tmp_path / "given", "made": tmp_path / "deep" / "made"}


def test_outputs_are_written_beside_and_renamed(door, tmp_path):
    def make(given: In, made: Out) -> Metrics:
        made.mkdir()
        (made / "file").write_text("new")
        assert made.parent.parent == tmp_path / "deep" and made.parent.name.startswith(".made.tmp-")
        return {"n": 1}

    door(make)
    old = tmp_path / "deep" / "made"
    old.mkdir(parents=True)
    (old / "stale").write_text("old")
    assert run("any", {}, paths(tmp_path)) == {"n": 1}
    assert [p.name for p in old.iterdir()] == ["file"] and [p.name for p in old.parent.iterdir()] == ["made"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), UserError("boom")], ids=["bug", "refusal"])
@pytest.mark.parametrize("content", ["half", None])
def test_a_failing_step_leaves_the_old_output_and_no_litter(error, content, door, tmp_path):
    def fail(given: In, made: Out) -> Metrics:
        if content:
            made.write_text(content)
        raise error

    door(fail)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "made").write_text("old")
    with pytest.raises(type(error), match="boom"):
        run("any", {}, paths(tmp_path))
    assert (tmp_path / "deep" / "made").read_text() == "old" and len(list((tmp_path / "deep").iterdir())) == 1


def test_a_refusal_may_keep_its_report(door, tmp_path):
    def refuse(given: In, made: Out) -> Metrics:
        made.write_text("why")
        raise UserError("bad data", keep=("made",))

    door(refuse)
    with pytest.raises(UserError, match="bad data"):
        run("any", {}, paths(tmp_path))
    assert (tmp_path / "deep" / "made").read_text() == "why"


def test_a_link_to_a_file_is_replaced_and_the_file_left_alone(door, tmp_path):
    def make(given: In, made: Out) -> Metrics:
        made.write_text("new")
        return {}

    door(make)
    (tmp_path / "deep").mkdir()
    (tmp_path / "cached").write_text("old")
    (tmp_path / "deep" / "made").symlink_to(tmp_path / "cached")
    run("any", {}, paths(tmp_path))
    assert (tmp_path / "cached").read_text() == "old" and (tmp_path / "deep" / "made").read_text() == "new"


def test_an_input_that_is_not_there_is_named(door, tmp_path):
    door(lambda given, made: {})
    with pytest.raises(UserError, match="gone: not found; step any reads it as --given"):
        run("any", {}, {"given": tmp_path / "gone", "made": tmp_path / "made"})


def test_what_a_killed_step_left_is_removed_by_the_next_and_what_another_makes_stays(door, tmp_path):
    def die(given: In, made: Out) -> Metrics:
        made.mkdir()
        os.kill(os.getpid(), signal.SIGKILL)

    def make(given: In, made: Out) -> Metrics:
        made.write_text("whole")
        return {}

    door(die)
    child = multiprocessing.get_context("fork").Process(target=run, args=("any", {}, paths(tmp_path)))
    child.start()
    child.join()
    assert [path.name[:10] for path in (tmp_path / "deep").iterdir()] == [".made.tmp-"]
    door(make)
    with temporary(tmp_path / "deep" / "made") as other:
        other.write_text("half")
        run("any", {}, paths(tmp_path))
        assert other.exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["made"]


def test_sigterm_leaves_no_half_output(tmp_path):
    size = ["-S", "streets.source.train=4000"]
    flags = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    process = subprocess.Popen([sys.executable, "-m", "segraft", "streets", *size, *flags], cwd=ROOT)
    while not any(tmp_path.rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("step", "path"), [("streets", "source"), ("validate", "source"), ("pretrain", "work")])
def test_a_url_where_a_path_is_wanted_is_refused(step, path, tmp_path):
    params = load_params(ROOT / "params.yaml")
    sections = {name: params.section(name) for name in spec(step).sections}
    given = dict.fromkeys(spec(step).paths, tmp_path) | {path: "s3://bucket/there"}
    with pytest.raises(UserError, match=f"--{path} s3://bucket/there: a URL; step {step} takes a path here"):
        run(step, sections, given)


def test_only_a_dataset_to_train_on_may_be_a_url():
    assert {(step, path) for step in STEPS for path in spec(step).urls} == {
        (step, "dataset") for step in ("pretrain", "finetune", "scratch")
    }


def test_what_an_earlier_run_left_is_no_result_of_a_refused_one(tmp_path, monkeypatch):
    def refuse(made: Out, report: Out) -> Metrics:
        report.write_text("why")
        raise UserError("bad data", keep=("report",))

    spec = steps.Spec("any", refuse, (), {"made": "out", "report": "out"})
    monkeypatch.setattr(steps, "spec", lambda name: spec)
    (tmp_path / "made").write_text("old")
    with pytest.raises(UserError, match="bad data"):
        run("any", {}, {"made": tmp_path / "made", "report": tmp_path / "report"})
    assert not (tmp_path / "made").exists() and (tmp_path / "report").read_text() == "why"


@pytest.mark.parametrize("there", ["a link to a folder", "a file"])
def test_a_folder_takes_the_place_of_whatever_is_there(door, tmp_path, there):
    def make(given: In, made: Out) -> Metrics:
        made.mkdir()
        (made / "file").write_text("new")
        return {}

    door(make)
    (tmp_path / "deep").mkdir()
    if there == "a file":
        (tmp_path / "deep" / "made").write_text("old")
    else:
        (tmp_path / "large").mkdir()
        (tmp_path / "deep" / "made").symlink_to(tmp_path / "large")
    run("any", {}, paths(tmp_path))
    assert (tmp_path / "deep" / "made" / "file").read_text() == "new"
    assert (tmp_path / "deep" / "made").is_symlink() == (there != "a file")
