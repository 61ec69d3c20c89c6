"""The YAML of docs/own-data.md is valid as it stands, and its worked example lists what it says."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from segraft.data.formats import list_samples
from segraft.data.formats._tree import IMAGE_SUFFIXES
from segraft.data.taxonomy import Taxonomy, load_taxonomy
from segraft.params import Params, build

ROOT = Path(__file__).parents[2]
BLOCKS = [
    yaml.safe_load(text)
    for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/own-data.md").read_text(), flags=re.DOTALL)
]
SECTIONS = [block["data"] for block in BLOCKS if "data" in block]


def params(sections: dict) -> Params:
    """params.yaml with the sections of a documented block in place of its own."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    return build(Params, values | {"data": values["data"] | sections}, "")


@pytest.mark.parametrize("sections", SECTIONS)
def test_sections_are_params(sections):
    params(sections)


def test_taxonomy_and_its_map():
    parts, maps = (next(block for block in BLOCKS if key in block) for key in ("classes", "maps"))
    taxonomy = build(Taxonomy, parts | maps, "parts")
    taxonomy.map_from(load_taxonomy(ROOT / "data/taxonomies", "cityscapes"))
    assert params(SECTIONS[0]).data.target.taxonomy == taxonomy.name


def test_masks_of_0_and_255_are_read_by_the_second_taxonomy():
    cracks = build(Taxonomy, [block for block in BLOCKS if "classes" in block][1], "cracks")
    assert cracks.lookup("ids")[[0, 255]].tolist() == [0, 1]


def test_suffixes_that_are_read_are_listed():
    text = (ROOT / "docs/own-data.md").read_text()
    assert (
        tuple(re.findall(r"`(\.\w+)`", text.partition("**What is read**")[2].partition("; other")[0])) == IMAGE_SUFFIXES
    )


def test_folder_of_the_tour(tmp_path):
    for split in ("train", "val", "test"):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            (tmp_path / kind / split).mkdir(parents=True)
            (tmp_path / kind / split / f"{split}1.{suffix}").touch()
    listing = list_samples(tmp_path, params(SECTIONS[0]).data.target)
    assert Counter(s.split for s in listing.samples) == {"train": 1, "val": 1, "test": 1}
    assert listing.orphans == () and all((tmp_path / s.mask).exists() for s in listing.samples)


def test_day_to_dusk(camvid):
    data = params(SECTIONS[-1]).data
    day, dusk = (list_samples(camvid, dataset) for dataset in (data.source, data.target))
    assert Counter(s.split for s in day.samples) == {"train": 305, "val": 101}
    assert Counter(s.split for s in dusk.samples) == {"train": 53, "val": 9, "test": 62}
    assert {s.tags for s in day.samples} == {("clear",)} and {s.tags for s in dusk.samples} == {("dusk",)}


def test_tables_name_every_format_and_taxonomy():
    text = (ROOT / "docs/own-data.md").read_text()
    formats = {path.stem for path in (ROOT / "segraft/data/formats").glob("[a-z]*.py")}
    assert all(f"`{name}`" in text or f"format: {name}" in text for name in formats)
    text = (ROOT / "docs/taxonomies.md").read_text()
    assert all(f"| `{path.stem}` |" in text for path in (ROOT / "data/taxonomies").glob("*.yaml"))
