"""README names files that exist, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "data").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_lists_every_step_and_names_every_top_level_folder():
    text = (ROOT / "README.md").read_text()
    from segraft.steps import STEPS

    assert " ".join(STEPS) in text
    folders = {p.name for p in (ROOT / "segraft").iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert {f for f in folders if f not in text} <= {"commands"}
