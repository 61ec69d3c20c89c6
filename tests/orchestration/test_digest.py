"""Digests: DVC's own, and of all the code that a step can run."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segraft.orchestration import digest as digests
from segraft.orchestration.digest import code, digest
from segraft.steps import STEPS

ROOT = Path(__file__).parents[2]


def test_a_digest_is_dvc_s(tmp_path):
    (tmp_path / "set" / "b").mkdir(parents=True)
    for name in ("a.txt", "b/ä.txt", "b-1.txt", "B.txt"):
        (tmp_path / "set" / name).write_text(name)
    (tmp_path / "one").write_bytes(b"\r\n\0")
    (tmp_path / "dvc.yaml").write_text("stages: {make: {cmd: 'true', deps: [set, one]}}\n")
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    known = {d["path"]: d["md5"] for d in yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]["make"]["deps"]}
    assert known == {name: digest(tmp_path / name) for name in ("set", "one")}


@pytest.mark.parametrize(("step", "files"), [
    ("finetune", ["training/loop.py", "models/__init__.py", "data/packed.py", "steps/finetune.py"]),
    ("validate", ["data/formats/voc.py", "data/validation/page.html.jinja", "data/validation/page.css"]),
    ("augment", ["data/packing.py", "data/streets/conditions.py"]),
])  # fmt: skip
def test_the_code_of_a_step_is_all_that_it_imports_at_any_depth(step, files):
    found = code(f"segraft.steps.{step}")
    assert {f"segraft/{name}" for name in files} <= set(found)
    assert "segraft/steps/streets.py" not in found and "segraft/commands/fetch.py" not in found


@pytest.mark.parametrize("step", STEPS)
def test_what_dvc_yaml_lists_as_code_is_in_the_digest_too(step):
    listed = [
        dep for dep in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][step]["deps"] if "segraft/" in dep
    ]
    found = code(f"segraft.steps.{step}")
    assert all(any(name == dep or name.startswith(f"{dep}/") for name in found) for dep in listed)


def test_an_edit_changes_the_digest_of_the_steps_that_import_it_alone(tmp_path, monkeypatch):
    root = tmp_path / "segraft"
    (root / "steps").mkdir(parents=True)
    for name in ("__init__", "used", "unused", "steps/__init__"):
        (root / f"{name}.py").write_text("")
    (root / "steps" / "one.py").write_text("def one():\n    from segraft.used import x\n")
    monkeypatch.setattr(digests, "ROOT", root)
    before = code("segraft.steps.one")
    (root / "unused.py").write_text("y = 1")
    assert code("segraft.steps.one") == before
    (root / "used.py").write_text("x = 1")
    assert [name for name, md5 in code("segraft.steps.one").items() if md5 != before[name]] == ["segraft/used.py"]
