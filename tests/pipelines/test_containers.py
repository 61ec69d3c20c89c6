"""Containers on a Docker-compatible socket, if there is one, with an image that is there."""

import os

import pytest

from pipelines.cluster import USER
from pipelines.containers import KEYS, MLFLOW, PASSED, S3, containers, engine, image_id, run_container
from segraft.errors import UserError
from segraft.orchestration.execution import RUN

BASES = ("python:3.11-slim-bookworm", "segraft:dev")


@pytest.fixture(scope="module")
def client():
    if not os.environ.get("DOCKER_HOST") and not os.path.exists("/var/run/docker.sock"):
        pytest.skip("no container engine: DOCKER_HOST is not set")
    try:
        return engine()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def image(client):
    for name in BASES:
        try:
            return image_id(name) and name
        except UserError:
            continue
    pytest.skip(f"none of the images {', '.join(BASES)} is on this machine")


@pytest.mark.parametrize("code", [0, 3])
def test_a_container_s_exit_code_is_known(client, image, code, capsys):
    command = ["python3", "-c", f"print('from inside'); raise SystemExit({code})"]
    for _ in range(3):  # kfp's own way is a race
        assert run_container(client, image, command, {}) == code
    assert capsys.readouterr().out.count("from inside") == 3
    assert not client.containers.list(all=True, filters={"ancestor": image, "status": "exited"})


def test_steps_run_as_no_root_on_a_read_only_file_system_and_see_what_they_must(
    client, image, tmp_path, monkeypatch, capsys
):
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "a").write_text("data")
    root = tmp_path / "root"
    (root / "notes" / "one").mkdir(parents=True)
    monkeypatch.setenv(RUN, "one")
    look = (
        "import os, pathlib\n"
        f"print(os.getuid(), os.environ['{RUN}'], pathlib.Path('{tmp_path}/read/a').read_text())\n"
        f"pathlib.Path('{root}/runs/out').write_text('written')\n"
        f"for place in ('/etc/x', '{tmp_path}/read/b'):\n"
        "    try: open(place, 'w')\n"
        "    except OSError as error: print(place, 'refused')\n"
    )
    os.chmod(tmp_path, 0o755)
    with containers([tmp_path / "read"])(root) as runner:
        arguments = runner.container_run_args
        assert run_container(client, image, ["python3", "-c", look], {}, **arguments) == 0, capsys.readouterr().out
    user = os.getuid() or USER
    said = capsys.readouterr().out
    assert (
        f"{user} one data" in said and said.count("refused") == 2 and (root / "runs" / "out").read_text() == "written"
    )


def test_steps_are_given_what_the_stores_ask_for_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    given = {"MLFLOW_TRACKING_USERNAME": "bob", "MLFLOW_TRACKING_PASSWORD": "p", "AWS_ACCESS_KEY_ID": "k"}
    given |= {"AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "TEAM_KEY": "named in cluster.secrets"}
    for name in (*PASSED, *MLFLOW, *S3, *KEYS):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**given, "ANOTHER_KEY": "ours alone"}.items():
        monkeypatch.setenv(name, value)
    with containers([], ["TEAM_KEY", "NOT_SET_HERE"])(tmp_path) as runner:
        environment = runner.container_run_args["environment"]
    assert environment == {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", **given}


def test_an_image_that_is_not_there_is_said_before_anything_starts(client):
    with pytest.raises(UserError, match="nosuch/image:1: not on this machine"):
        image_id("nosuch/image:1")


def test_no_engine_is_a_line(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(UserError, match="no container engine answers"):
        engine()
