"""The step door: outputs appear whole or not at all."""

import pytest

from segraft import steps
from segraft.errors import UserError
from segraft.steps import In, Metrics, Out, run


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
        assert made.parent == tmp_path / "deep" and made.name != "made"
        return {"n": 1}

    door(make)
    old = tmp_path / "deep" / "made"
    old.mkdir(parents=True)
    (old / "stale").write_text("old")
    assert run("any", {}, paths(tmp_path)) == {"n": 1}
    assert [p.name for p in old.iterdir()] == ["file"] and [p.name for p in old.parent.iterdir()] == ["made"]


def test_a_failing_step_leaves_the_old_output_and_no_litter(door, tmp_path):
    def fail(given: In, made: Out) -> Metrics:
        made.write_text("half")
        raise RuntimeError("boom")

    door(fail)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "made").write_text("old")
    with pytest.raises(RuntimeError, match="boom"):
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


def test_an_input_that_is_not_there_is_named(door, tmp_path):
    door(lambda given, made: {})
    with pytest.raises(UserError, match="gone: not found; step any reads it as --given"):
        run("any", {}, {"given": tmp_path / "gone", "made": tmp_path / "made"})
