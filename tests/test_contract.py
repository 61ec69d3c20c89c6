"""Promises that two files agree: params.yaml, its classes, the steps, the command line and dvc.yaml."""

import errno
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segraft import params
from segraft.__main__ import _nobody_reads, refused_file
from segraft.data.taxonomy import Taxonomy
from segraft.errors import UserError
from segraft.params import SECTIONS, Section, build, load_params, parse_json
from segraft.steps import STEPS, run, spec
from tests.closure import closure

ROOT = Path(__file__).parents[1]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())


def test_params_yaml_is_complete_and_its_sections_are_the_classes():
    load_params(ROOT / "params.yaml")
    assert list(VALUES) == list(SECTIONS)


def test_params_yaml_is_laid_out_as_dvc_writes_it(tmp_path):
    """So that a knob that `dvc exp run -S` changes is the only line that does."""
    from dvc.utils.serialize import modify_yaml

    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    with modify_yaml(tmp_path / "params.yaml") as values:
        values["finetune"]["lr"] = 0.125
    changed = set((tmp_path / "params.yaml").read_text().splitlines()) - set(text.splitlines())
    assert len(changed) == 1 and "lr: 0.125" in changed.pop()


def test_no_field_has_a_default_so_params_yaml_alone_holds_values():
    sections = [c for c in vars(params).values() if isinstance(c, type) and issubclass(c, Section)]
    defaults = [(c.__name__, n) for c in sections for n, f in c.model_fields.items() if not f.is_required()]
    assert defaults == []


@pytest.mark.parametrize("name", STEPS)
def test_step_file_function_and_stage_have_one_name(name):
    assert (ROOT / "segraft" / "steps" / f"{name}.py").is_file() and name in DVC
    assert spec(name).function.__name__ == name and spec(name).summary.endswith(".")


def test_stages_are_the_steps_in_order():
    assert tuple(DVC) == STEPS


@pytest.mark.parametrize("name", STEPS)
def test_stage_command_passes_each_path_once_and_reads_the_step_s_sections(name):
    command = shlex.split(DVC[name]["cmd"])
    assert command[:4] == ["python", "-m", "segraft", name]
    flags = {flag[2:].replace("-", "_"): value for flag, value in zip(command[4::2], command[5::2], strict=True)}
    flags.pop("metrics", None)
    assert set(flags) == set(spec(name).paths)
    assert set(DVC[name]["params"]) == set(spec(name).sections)
    assert set(spec(name).path_help) == set(spec(name).paths), "every path is explained under Args:"


@pytest.mark.parametrize("name", STEPS)
def test_a_path_from_params_may_hold_a_space(name):
    command = shlex.split(re.sub(r"\$\{.*?\}", "it's my data", DVC[name]["cmd"]))
    assert all(flag.startswith("--") for flag in command[4::2])
    assert command.count("it's my data") == DVC[name]["cmd"].count("${")


@pytest.mark.parametrize("name", STEPS)
def test_stage_declares_every_path_that_the_step_reads_or_writes(name):
    stage, command = DVC[name], shlex.split(DVC[name]["cmd"])
    outs = set(declared(stage, "outs", "metrics"))
    for path, kind in spec(name).paths.items():
        value = command[command.index(f"--{path.replace('_', '-')}") + 1]
        if kind == "out":
            assert value in outs
        elif kind == "in":
            assert any(dep == value or dep.startswith(f"{value}/") for dep in stage["deps"]), value


def declared(stage, *kinds):
    return [out if isinstance(out, str) else next(iter(out)) for kind in kinds for out in stage.get(kind, [])]


DECIDES_NOTHING = {f"segraft/{name}.py" for name in ("__init__", "errors", "machine", "progress", "steps/__init__")}
DECIDES_NOTHING.add("segraft/params.py")  # the values that it checks are the stage's params
OPENS_A_REGISTERED_MODEL = ("segraft/registry/", "segraft/serving/", "segraft/tracking.py", "segraft/integrity.py")
"""What training needs for `model.weights: models:/…`; the bytes that come of it are checked against their seal."""


@pytest.mark.parametrize("name", STEPS)
def test_stage_depends_on_all_code_that_decides_its_result(name):
    code = {dep for dep in DVC[name]["deps"] if dep.startswith("segraft")}
    opening = OPENS_A_REGISTERED_MODEL if name in ("pretrain", "finetune", "scratch") else ()
    runs = {file for file in closure(f"segraft.steps.{name}") - DECIDES_NOTHING if not file.startswith(opening)}
    assert {file for file in runs if not any(Path(file).is_relative_to(dep) for dep in code)} == set()
    assert {dep for dep in code if not any(Path(file).is_relative_to(dep) for file in runs)} == set(), "never run"


@pytest.mark.parametrize("argv", [["--help"], ["finetune", "--help"], ["--version"]])
def test_help_costs_less_than_half_a_second_of_cpu(argv):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-m", "segraft", *argv], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0 and result.stdout
    assert after.ru_utime - before.ru_utime < 0.5


@pytest.mark.parametrize("module", ["segraft.steps", "segraft.__main__", *(f"segraft.steps.{s}" for s in STEPS)])
def test_importing_a_step_imports_nothing_heavy(module):
    heavy = ["torch", "pandas", "numpy", "cv2", "mlflow", "great_expectations", "kfp", "dvc", "pyarrow"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_a_step_s_process_seldom_collects_garbage_and_is_not_taken_apart_at_its_end():
    flags = [word for path, kind in spec("export").paths.items() for word in (f"--{path}", f"no{kind}where")]
    code = f"""
import atexit, gc
from segraft.__main__ import main
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000))  # runs last
main({["export", *flags]})
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "10000 True\n" and "noinwhere: not found" in result.stderr


def test_segraft_imports_neither_kfp_nor_dvc():
    for path in (ROOT / "segraft").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (kfp|dvc)\b", path.read_text(), re.M), path


def test_help_lists_every_step():
    text = subprocess.run([sys.executable, "-m", "segraft", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(f"  {name} " in text for name in STEPS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.lrr=0.1", "params.yaml has no finetune.lrr"),
        ("finetune.lr=-1", r"finetune.lr: .*greater than 0.*found -1"),
        ("finetune.schedule=cosin", r"finetune.schedule: .*'cosine'.*found 'cosin'"),
        ("augment.crop=[100, 64]", r"crop: \[100, 64\]: both sides must be multiples of 32"),
        ("finetune", "expected section.key=value"),
        ("finetune.lr=[", r"-S finetune.lr=\[: not valid YAML: .*expected"),
        ("augment.size=[0, 0]", r"augment.size.0: .*greater than or equal to 1.*found 0"),
        ("streets.size=[256, -512]", r"streets.size.1: .*found -512"),
        ("evaluate.window=[0, 64]", r"evaluate.window.0: .*found 0"),
        ("evaluate.window=256", r"evaluate.window: .*found 256"),
        ("evaluate.crf.iterations=-1", r"evaluate.crf.iterations: .*found -1"),
        ("evaluate.crf.color_std=0", r"evaluate.crf.color_std: .*greater than 0.*found 0"),
        ("evaluate.crf={iterations: 5}", r"evaluate.crf.smooth: missing"),
        ("augment.online.scale=[2, 1]", r"augment.online: scale: \[2.0, 1.0\]: the smallest must not be above"),
        ("validate.max_pixels=90000000", r"validate.max_pixels: .*less than or equal to 89478485.*found 90000000"),
        ("ladder.labels=0.5", r"ladder.labels: Input should be a list \(found 0.5\)$"),
        ("ladder.labels=[50]", r"^ladder.labels.0: .*found 50\)$"),
        ("ladder.labels=[]", r"^ladder.labels: List should have at least 1 item .*found \[\]\)$"),
        ("finetune.schedule=one_cycle", r"^finetune: schedule: one_cycle has a rise of its own; say warmup: none$"),
        ("data.target.format=none", "data: target: format none: there is no pipeline without a target"),
        ("tracking.experiment=2026-02-30", "-S tracking.experiment=2026-02-30: not valid YAML: day is out of range"),
    ],
)
def test_a_bad_override_is_one_clear_error(override, message):
    with pytest.raises(UserError, match=message):
        load_params(ROOT / "params.yaml", [override])


@pytest.mark.parametrize("word", ["on", "no", "true", "2026-11-23", "0123456", "1.5"])
def test_a_name_may_be_a_word_that_yaml_takes_for_a_truth_value_a_date_or_a_number(word):
    assert load_params(ROOT / "params.yaml", [f"serve.name={word}"]).serve.name == word
    assert load_params(ROOT / "params.yaml", ["validate.strict=on"]).section("validate").strict is True


def test_unknown_and_missing_keys_are_named_with_their_path(tmp_path):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["augment"]["online"]["flipp"] = values["augment"]["online"].pop("flip")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as error:
        load_params(tmp_path / "params.yaml")
    assert "augment.online.flip: missing" in str(error.value)
    assert "augment.online.flipp: unknown key; known here: flip, rotate" in str(error.value)


@pytest.mark.parametrize(
    ("section", "values", "complaint"),
    [
        ("taxonomy", {"classes": [{"name": "sky", "color": [0, 0, 0], "id": 1}]},
         "classes.0.id: unknown key; known here: name, color, ids, colors"),
        ("tune", {"space": {"lr": {"low": 1, "high": 2, "loog": True}}},
         "loog: unknown key; known here: low, high, log, integer"),
    ],
)  # fmt: skip
def test_an_unknown_key_in_a_list_or_an_alternative_is_told_what_is_known(section, values, complaint):
    with pytest.raises(UserError) as error:
        build(Taxonomy if section == "taxonomy" else SECTIONS[section], values, "")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"params.yaml: a folder; give a file"), (b"data: \xff\xfe", r"params.yaml: not UTF-8.*save it as UTF-8")],
    ids=["folder", "latin"],
)
def test_a_params_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_params(path)


def test_overrides_reach_the_section():
    assert load_params(ROOT / "params.yaml", ["finetune.lr=0.25", "augment.size=[64, 96]"]).finetune.lr == 0.25


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["finetune", "--dataset", "nowhere"], "required"),
        (["augmentt"], "invalid choice"),
        (["--params=other.yaml", "finetune", "--dataset", "x"], "unrecognized arguments: --params=other.yaml"),
        (
            [
                "validate",
                "--source",
                "nowhere",
                "--target",
                "nowhere",
                "--taxonomies",
                "data/taxonomies",
                "--manifest",
                "/tmp/x/m",
                "--report",
                "/tmp/x/r",
            ],
            "nowhere: not found; step validate reads it as --source",
        ),
    ],
)
def test_bad_command_lines_say_why_without_a_traceback(argv, message):
    result = subprocess.run([sys.executable, "-m", "segraft", *argv], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode in (2, 65) and message in result.stderr and "Traceback" not in result.stderr


def test_the_door_names_what_is_missing():
    with pytest.raises(UserError, match=r"step augment: sections missing: \['augment', 'data'\]"):
        run("augment", {}, {})
    with pytest.raises(UserError, match="nosuch: no such step; the steps are streets, validate"):
        run("nosuch", {}, {})


def test_sections_survive_kubeflow_s_floats_and_json():
    import json

    section = load_params(ROOT / "params.yaml").finetune
    floats = {
        k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in section.model_dump().items()
    }
    assert params.as_section("finetune", floats) == section
    assert params.as_section("finetune", json.dumps(section.model_dump())) == section


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-uv.lock", "requirements-sbom.lock"])
def test_locks_hash_every_package_and_name_no_registry(name):
    lock = (ROOT / name).read_text()
    packages = re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", lock, flags=re.MULTILINE | re.DOTALL)
    assert "://" not in lock and packages and all("--hash=sha256:" in package for package in packages)


def test_lock_pairs_torch_with_torchvision():
    lock = (ROOT / "requirements.lock").read_text()
    assert "torch==2.13.0" in lock and "torchvision==0.28.0" in lock


@pytest.mark.slow
def test_bytecode_is_no_dependency():
    """It holds its source's time and path: every import, touch or clone would be another version of a stage."""
    deps = {dep for stage in DVC.values() for dep in stage["deps"] if dep.startswith("segraft/")}
    bytecode = [f"{dep}/__pycache__/x.pyc" for dep in sorted(deps) if (ROOT / dep).is_dir()]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "check-ignore", *bytecode], cwd=ROOT, capture_output=True, text=True
    )
    assert len(bytecode) > 3 and done.stdout.split() == bytecode, done.stderr


@pytest.mark.parametrize("text", ["finetune: {}\nfinetune: {}\n", "a: {b: 1, c: 2, b: 3}\n"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml: not valid YAML: .*stands here twice.* line"):
        load_params(tmp_path / "params.yaml")


def test_of_a_copy_that_the_disk_refuses_what_was_to_be_written_is_named(tmp_path):
    (tmp_path / "there").write_bytes(bytes(1 << 17))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            shutil.copyfile(tmp_path / "there", tmp_path / "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused_file(refused.value) == str(tmp_path / "here")
    assert refused_file(OSError(errno.ENOSPC, "No space left on device")) == "output"


def test_a_pipe_that_nobody_reads_is_told_from_one_that_is_read():
    reads, writes = os.pipe()
    with open(writes, "w") as stream:
        assert not _nobody_reads(stream)
        os.close(reads)
        assert _nobody_reads(stream)


def test_json_that_is_nested_too_deep_is_refused():
    with pytest.raises(UserError, match=r"model\.json: not valid JSON: maximum recursion depth"):
        parse_json("[" * 100_000, "model.json")
