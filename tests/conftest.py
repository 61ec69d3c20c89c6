"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

from tests.evaluation.fixtures import evaluated, report, transfer  # noqa: F401
from tests.exported import learned  # noqa: F401


@pytest.fixture(scope="session")
def camvid():
    """The real CamVid in SegNet's layout; it may not be handed on, so it is looked for and not shipped."""
    default = Path(__file__).parents[2] / "shared/data/camvid"
    root = Path(os.environ.get("SEGRAFT_CAMVID", default))
    if not (root / "trainannot").is_dir():
        pytest.skip(f"no CamVid at {root}; set SEGRAFT_CAMVID to its folder")
    return root


@pytest.fixture
def own_environment(monkeypatch):
    """Nothing of the caller's MLflow."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
