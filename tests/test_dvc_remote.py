"""docs/remotes.md, run as it is written: the local remote, and S3 against a server on loopback."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
KEY, SECRET = "my-key", "my-secret"
STAGE = """
stages:
  make:
    cmd: mkdir -p data && echo one > data/one && head -c 9000000 /dev/zero > data/two
    outs: [data]
"""


def documented(section: str) -> list[str]:
    """The dvc commands under a heading of docs/remotes.md."""
    text = (ROOT / "docs/remotes.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip().startswith("dvc ")]


class Project:
    """A git repository with our .dvc/config and one stage."""

    def __init__(self, root: Path):
        self.root = root
        (root / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc/config", root / ".dvc")
        (root / "dvc.yaml").write_text(STAGE)
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)

    def dvc(self, command: str, succeeds=True, **environment):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "DVC_"))}
        inherited |= {"DVC_NO_ANALYTICS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            command.split(), cwd=self.root, env=inherited | environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode == 0) is succeeds, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def forget(self):
        """As in a fresh clone: dvc.lock is there, the data are not."""
        shutil.rmtree(self.root / ".dvc/cache")
        shutil.rmtree(self.root / "data")

    def contents(self):
        return {path.name: path.read_bytes() for path in (self.root / "data").iterdir()}


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.dvc("dvc repro -q")
    return project


def test_the_local_remote_is_there_from_the_start(project):
    assert documented("The local remote")[:2] == ["dvc push", "dvc pull"]
    before = project.contents()
    assert len(before["two"]) == 9_000_000
    assert "3 files pushed" in project.dvc("dvc push")
    project.forget()
    project.dvc("dvc pull")
    assert project.contents() == before and (project.root / ".dvcstore").is_dir()


@pytest.fixture
def s3(tmp_path_factory):
    """An S3-compatible server that knows one key; gives (endpoint, folder of the bucket)."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "my-bucket").mkdir()
    port = free_port()
    command = [BIN / "rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", folder]
    log = (folder.parent / "rclone.log").open("wb")
    server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"RCLONE_CONFIG": os.devnull})
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}", folder / "my-bucket"
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def _wait_for(port: int, server: subprocess.Popen, seconds=30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("rclone serve s3 did not start")


def test_an_s3_bucket_takes_and_gives_back_the_data(project, s3):
    endpoint, bucket = s3
    *settings, push, pull = [c.replace("https://s3.example.org", endpoint) for c in documented("An S3 bucket")]
    assert (push, pull) == ("dvc push", "dvc pull") and len(settings) == 2 and endpoint in settings[1]
    for command in settings:
        project.dvc(command)
    before = project.contents()
    project.dvc(push, succeeds=False, AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY="wrong")
    assert not [path for path in bucket.rglob("*") if path.is_file()], "the server lets no one in without the secret"
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    assert "3 files pushed" in project.dvc(push, **keys)
    stored = [path for path in bucket.rglob("*") if path.is_file()]
    assert len(stored) == 3 and all(path.is_relative_to(bucket / "segraft") for path in stored)
    project.forget()
    project.dvc(pull, **keys)
    assert project.contents() == before
    assert "in sync" in project.dvc("dvc status --cloud", **keys)
    assert SECRET not in (project.root / ".dvc/config").read_text()
