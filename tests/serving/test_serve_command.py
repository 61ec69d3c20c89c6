"""`segraft serve`: where its settings come from, what it refuses, and what it leaves out of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from segraft.commands.serve import find_model, from_environment
from segraft.errors import UserError
from segraft.params import load_params
from tests.serving.running import ROOT

PARAMS = load_params(ROOT / "params.yaml")


def test_the_environment_overrides_params_yaml():
    found = from_environment(
        {
            "SEGRAFT_SERVE_HTTP_PORT": "9",
            "SEGRAFT_SERVE_LIMITS__BODY_MB": "3",
            "SEGRAFT_SERVE_PORT": "tcp://10.0.0.1:80",  # Kubernetes' own, of a Service called segraft-serve
            "SEGRAFT_SERVE_SERVICE_HOST": "10.0.0.1",
            "SEGRAFT_SERVE_PREDICTOR_SERVICE_PORT_HTTP": "80",  # and of segraft-serve-predictor
            "SEGRAFT_SERVE_PREDICTOR_PORT_80_TCP_ADDR": "10.0.0.1",
        }
    )
    serve = load_params(ROOT / "params.yaml", found).serve
    assert (serve.http_port, serve.limits.body_mb) == (9, 3)
    with pytest.raises(UserError, match=r"params.yaml has no serve\.limit"):
        load_params(ROOT / "params.yaml", from_environment({"SEGRAFT_SERVE_LIMIT": "1"}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("serve.grpc_port=8080", "grpc_port: 8080: is http_port, too"),
        ("serve.limits.sides=[64,32]", r"sides: \[64, 32\]: the smallest must not be more than the largest"),
        ("serve.tile.overlap=1024", "overlap: 1024: must be at most half of size"),
        ("serve.tile.size=1000", "multiple of 32"),
        ("serve.limits.formats=[GIF]", "'JPEG', 'PNG' or 'WEBP'"),
        ("serve.queue=0", "greater than or equal to 1"),
        ("serve.name=a/b", "pattern"),
        ("serve.monitor={confidence_every: 0, window: 9, keep: 1, keep_folder: x}", "give confidence_every 1 or more"),
    ],
)
def test_a_bad_setting_is_named(override, message):
    with pytest.raises(UserError, match=message):
        load_params(ROOT / "params.yaml", [override])


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder; give a model folder"):
        find_model(str(tmp_path / "x"), "", PARAMS, tmp_path)
    with pytest.raises(UserError, match="expected models:/NAME@ALIAS"):
        find_model("models:/", "", PARAMS, tmp_path)


def test_a_server_without_a_model_is_not_ready():
    import asyncio

    from kserve.model_repository import ModelRepository

    from segraft.serving.guard import Door
    from segraft.serving.server import Plane

    assert asyncio.run(Plane(ModelRepository(), Door(PARAMS.serve.limits, "")).ready()) is False


def run(*argv: str, **how) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "segraft", "serve", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **how)


def test_a_broken_model_folder_ends_the_server_with_one_sentence(tmp_path: Path):
    done = run(str(tmp_path), "-S", "serve.runtime=torch")
    assert done.returncode == 65 and "not a model folder" in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken_ends_the_server_with_one_sentence(server, model_folder):
    port = server.url.rpartition(":")[2]
    done = run(
        str(model_folder), "-S", f"serve.http_port={port}", "-S", "serve.grpc_port=0", "-S", "serve.runtime=torch"
    )
    assert done.returncode == 65 and "is another server running?" in done.stderr and "Traceback" not in done.stderr


def test_a_runtime_whose_library_is_not_installed_is_said_so(server, model_folder):
    code = "import sys; sys.modules['torch'] = None; from segraft.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", str(model_folder), "-S", "serve.runtime=auto"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 65 and "serve.runtime: 'torch': no torch here" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_itself_imports_neither_torch_nor_mlflow():
    code = "import segraft.serving.server, sys; print([m for m in ('torch', 'mlflow', 'openvino') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_kserve_s_own_flags_are_not_ours(tmp_path: Path):
    """KServe parses sys.argv when it is imported; ours must not reach it."""
    done = run(str(tmp_path), "--http_port=1")
    assert done.returncode == 2 and "unrecognized arguments: --http_port=1" in done.stderr
