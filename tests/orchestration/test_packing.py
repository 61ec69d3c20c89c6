"""The bodies of pack, join and augment_target, on the dataset of the augment step's tests."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from segraft.data.packed import PackedDataset
from segraft.orchestration.component import MADE_OF, MD5, STORE, locate
from segraft.orchestration.digest import digest
from segraft.orchestration.packing import augment_target, join, pack
from tests.components.test_run import artifact
from tests.steps.test_augment import AUGMENT, DATA, world  # noqa: F401


@pytest.fixture
def given(world):  # noqa: F811
    """What the components share."""
    taxonomies = {file.name: file.read_text() for file in (world / "taxonomies").iterdir()}
    sides = {name: artifact(dsl.Dataset, world / name) for name in ("source", "target", "manifest")}
    sides["source"].metadata[MD5] = digest(world / "source")
    sections = {"data": DATA.model_dump_json(), "augment": AUGMENT.model_dump_json(by_alias=True)}
    return sections | {"taxonomies": json.dumps(taxonomies), "build": "{}", **sides}


def outputs(folder):
    kinds = {"packed_target": dsl.Dataset, "sheet": dsl.Artifact, "page": dsl.HTML, "metrics": dsl.Metrics}
    return {name: artifact(kind, folder / name) for name, kind in kinds.items()}


@pytest.mark.parametrize("stored", [False, True])
def test_parts_are_joined_and_the_target_is_packed_beside_them(given, tmp_path, monkeypatch, stored):
    if stored:
        monkeypatch.setenv(STORE, str(tmp_path / "store"))
    parts = [artifact(dsl.Dataset, tmp_path / f"part-{number}") for number in range(2)]
    for number, part in enumerate(parts):
        pack({**given, "part": f"{number}/2", "packed": part})
    source = artifact(dsl.Dataset, tmp_path / "packed_source")
    join(parts, source)
    made = outputs(tmp_path / "out")
    augment_target({**given, "packed_source": source, **made})
    for packed in (source, made["packed_target"]):
        assert packed.metadata[MD5] == digest(Path(locate(packed)))
        assert Path(packed.path).is_dir() is not stored and PackedDataset(locate(packed)).card.splits
    assert made["sheet"].metadata[MADE_OF]["source"] == given["source"].metadata[MD5]
    samples = PackedDataset(locate(source)).card.splits["train"].samples
    assert made["metrics"].metadata["source_train"] == samples
    assert not [path for path in tmp_path.rglob(".*")], "nothing unfinished is left behind"


def test_a_step_that_fails_in_the_middle_leaves_no_output(given, tmp_path, capsys):
    made = outputs(tmp_path / "out")
    with pytest.raises(SystemExit):
        augment_target({**given, "packed_source": artifact(dsl.Dataset, tmp_path / "gone"), **made})
    assert "gone" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
