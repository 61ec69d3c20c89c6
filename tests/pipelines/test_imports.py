"""Imports go one way: pipelines → components → segraft."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("package", "above"), [("segraft", "components|pipelines"), ("components", "pipelines")])
def test_a_package_imports_nothing_from_those_above_it(package, above):
    for path in (ROOT / package).rglob("*.py"):
        assert not re.search(rf"^\s*(import|from) ({above})\b", path.read_text(), re.M), path
