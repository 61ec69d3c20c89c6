import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
PLATFORMS = ("overlays/cpu", "overlays/gpu", "overlays/local")
ENDPOINTS = ("endpoint/cpu", "endpoint/gpu", "endpoint/local")
TUNING = "tuning"
CHECKOV = ["uv", "tool", "run", "--quiet", "--from", "checkov==3.3.30"]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of k8s/ with fresh credentials, as an admin has it."""
    copy = tmp_path_factory.mktemp("cluster") / "k8s"
    shutil.copytree(K8S, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["./credentials"], cwd=copy, check=True)
    return copy


@pytest.fixture(scope="session")
def kustomize():
    """Folder → its resources, as `kubectl kustomize` gives them."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if not shutil.which(command[0]):
        pytest.skip("neither kubectl nor kustomize is on PATH")

    def render(folder):
        done = subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True)
        return list(yaml.safe_load_all(done.stdout))

    return render


@pytest.fixture(scope="session")
def rendered(tree, kustomize):
    """Overlay → its resources."""
    return {name: kustomize(tree / name) for name in (*PLATFORMS, *ENDPOINTS, TUNING)}


@pytest.fixture(params=[*PLATFORMS, *ENDPOINTS, TUNING])
def resources(request, rendered):
    return rendered[request.param]


@pytest.fixture(params=PLATFORMS)
def platform(request, rendered):
    return rendered[request.param]


@pytest.fixture(scope="session")
def checkov():
    """The policy checker's command; it wants other versions of our packages, so it has an environment of its own."""
    if shutil.which("checkov"):
        return ["checkov"]
    asked = subprocess.run([*CHECKOV, "python", "-c", "pass"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"checkov is neither on PATH nor to be had: {asked.stderr.strip()[-200:]}")
    return [*CHECKOV, "checkov"]
