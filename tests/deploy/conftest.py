import pytest

from segraft.deploy.version import Version
from segraft.params import load_params
from tests.deploy.api import start
from tests.k8s.conftest import K8S

VERSION = Version("segraft", "3", "champion", "ab" * 32, "s3://mlflow/1/run/artifacts/model-0/data")


@pytest.fixture
def knobs(monkeypatch):
    """The section `deploy` with changes, in the project's folder."""
    monkeypatch.chdir(K8S.parent)
    return lambda *changes: load_params(K8S.parent / "params.yaml", [f"deploy.{change}" for change in changes]).deploy


@pytest.fixture
def api():
    server = start()
    yield server
    server.shutdown()
    server.server_close()
