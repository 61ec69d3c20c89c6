import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
PLATFORMS = ("overlays/cpu", "overlays/gpu", "overlays/local")
ENDPOINTS = ("endpoint/cpu", "endpoint/gpu", "endpoint/local")


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of k8s/ with fresh credentials, as an admin has it."""
    copy = tmp_path_factory.mktemp("cluster") / "k8s"
    shutil.copytree(K8S, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["./credentials"], cwd=copy, check=True)
    return copy


@pytest.fixture(scope="session")
def rendered(tree):
    """Overlay → its resources, as `kubectl kustomize` gives them."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if not shutil.which(command[0]):
        pytest.skip("neither kubectl nor kustomize is on PATH")
    return {name: _render([*command, str(tree / name)]) for name in (*PLATFORMS, *ENDPOINTS)}


def _render(command):
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@pytest.fixture(params=[*PLATFORMS, *ENDPOINTS])
def resources(request, rendered):
    return rendered[request.param]


@pytest.fixture(params=PLATFORMS)
def platform(request, rendered):
    return rendered[request.param]
