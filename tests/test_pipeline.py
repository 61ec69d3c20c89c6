"""The pipeline as users run it, in a copy of the project: README's commands, a kill, bad data. Small, but whole."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.ports import free_port

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = {
    "streets": {
        "size": [96, 192],
        "source": {"train": 24, "val": 4, "test": 0, "conditions": ["clear"]},
        "target": {"train": 8, "val": 4, "test": 6, "conditions": ["night", "rain"]},
    },
    "augment": {"crop": [96, 128]},
    "model": {"arch": "fcn"},
    "pretrain": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 4},
    "finetune": {"epochs": 2, "steps_per_epoch": 6, "batch_size": 4, "checkpoint_every": 2},
}


def merged(base: dict, changes: dict) -> dict:
    return base | {k: merged(base[k], v) if isinstance(v, dict) else v for k, v in changes.items()}


def copy_project(folder: Path) -> Path:
    """What a clone would hold, as a git repository of its own, sharing the environment."""
    locks = [ROOT / name for name in ("requirements.lock", "requirements-uv.lock")]
    stale = max(lock.stat().st_mtime for lock in locks) > (ROOT / ".venv/ready").stat().st_mtime
    assert not stale, "a copy's make would set up the shared .venv anew, and install the copy: run make setup first"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "dvc.lock").unlink(missing_ok=True)
    params = merged(yaml.safe_load((folder / "params.yaml").read_text()), SMALL)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["git", "init", "-q"], ["git", "add", "-A"], [*git, "commit", "-qm", "copy"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    names = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC"))}
    author = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return names | author | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "", "DVC_NO_ANALYTICS": "1"}


def shell(command: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy in which `make run` has ended."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    result = shell("make run", folder)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder, result.stdout


def readme_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


NOT_RUN = {
    "git clone": "there is no address to clone from in a test; the copy stands in for it",
    "cd segraft": "the test is there",
    "make test": "this is what runs the tests",
    "make ui": "serves for ever; test_ui_answers starts it",
    "make serve": "serves for ever; test_the_champion_is_served starts it",
}


def test_run_ends_with_the_table_the_report_and_the_model(project):
    folder, output = project
    tail = output[-2500:]
    assert re.search(r"scratch.*\d", tail) and re.search(r"transferred.*\d", tail) and "reports/report.html" in tail
    registered = json.loads((folder / "reports" / "register.json").read_text())
    assert registered["version"] and registered["name"] in tail
    scores = json.loads((folder / "reports" / "evaluate.json").read_text())
    assert 0 < scores["transferred"]["miou"] < 1 and scores["split"] == "test"
    assert (folder / "reports" / "augment.png").stat().st_size > 10_000


@pytest.mark.parametrize("command", readme_commands())
def test_readme_command(project, command):
    reason = next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)
    if reason:
        assert reason
        return
    result = shell(command, project[0])
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"


def test_a_second_run_does_nothing(project):
    folder, _ = project
    shell("make run", folder)
    result = shell("make run", folder)
    assert result.returncode == 0 and "Running stage" not in result.stdout
    assert "up to date" in result.stdout


@contextmanager
def serving(folder, command, answers, **settings):
    """A target that serves for ever; gives what it answers at `answers` first."""
    server = subprocess.Popen(command, cwd=folder, env=environment() | settings, start_new_session=True)
    try:
        yield patiently(server, answers)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def patiently(server, url):
    for _ in range(240):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            assert server.poll() is None
            time.sleep(0.5)
    raise TimeoutError(url)


def test_ui_answers(project):
    port = free_port()
    with serving(project[0], ["make", "ui", f"PORT={port}"], f"http://127.0.0.1:{port}/") as body:
        assert b"MLflow" in body


def test_the_champion_is_served(project):
    folder, port = project[0], free_port()
    photo = next((folder / "data/streets/target/leftImg8bit/test").rglob("*.png"))
    url = f"http://127.0.0.1:{port}"
    settings = {"SEGRAFT_SERVE_HTTP_PORT": str(port), "SEGRAFT_SERVE_GRPC_PORT": "0"}
    with serving(folder, ["make", "serve"], f"{url}/v2/health/ready", **settings):
        ask = urllib.request.Request(f"{url}/predict", photo.read_bytes(), {"Content-Type": "image/png"})
        answer = urllib.request.urlopen(ask, timeout=60)
        mask = Image.open(io.BytesIO(answer.read()))
    registered = json.loads((folder / "reports" / "register.json").read_text())
    champion = registered["history"][-1]["version"]
    assert mask.mode == "P" and mask.size == Image.open(photo).size
    assert f"{registered['name']}/{champion}" in answer.headers["X-Segraft-Model"]


def test_only_what_changed_runs_again(project):
    folder, _ = project
    shell("make run", folder)
    result = shell("sed -i 's/^  examples: .*/  examples: 3/' params.yaml; make run", folder)
    assert result.returncode == 0
    assert "Running stage 'evaluate'" in result.stdout and "Running stage 'finetune'" not in result.stdout


def test_a_kill_in_finetune_and_dvc_repro_again_give_the_same_weights(project):
    folder, _ = project
    weights = folder / "models" / "finetuned" / "weights.safetensors"
    undisturbed = weights.read_bytes()
    shutil.rmtree(weights.parent)
    process = subprocess.Popen(
        ["bash", "-c", "dvc repro -f -s finetune"], cwd=folder, env=environment(), start_new_session=True
    )
    work = folder / "models" / ".work" / "finetune"
    for _ in range(1200):
        if list(work.glob("*/step_0000000[2-9]")):
            break
        assert process.poll() is None, "finetune ended before it could be killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not weights.exists()
    result = shell("dvc repro -f -s finetune", folder)
    assert "resuming at step" in result.stdout + result.stderr and weights.read_bytes() == undisturbed


def test_bad_data_stops_at_validate_with_its_file_named(project, tmp_path):
    folder = copy_project(tmp_path / "bad")
    shutil.copytree(project[0] / "data" / "streets", folder / "data" / "streets")
    victim = sorted((folder / "data/streets/target/leftImg8bit/train").rglob("*.png"))[0]
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:500])
    result = shell("dvc commit -fq streets; dvc repro", folder)
    assert result.returncode != 0 and victim.name in result.stdout + result.stderr
    assert not (folder / "data" / "packed").exists() and (folder / "reports" / "validate" / "index.html").is_file()
