"""Two source datasets, one of which only knows that a ball or a moon is a thing: checked, packed, trained on."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from segraft.data.loader import Loader
from segraft.data.packed import PackedDataset
from segraft.data.taxonomy import Taxonomy, load_taxonomy
from segraft.errors import UserError
from segraft.params import JointSet, Source, build
from segraft.steps import run
from tests.steps.test_augment import AUGMENT, COARSE, FINE, PARAMS, dataset, write, write_taxonomies
from tests.training.test_run import MODEL, TRAINING

TAXONOMIES = Path(__file__).parents[2] / "data/taxonomies"
ROUGH = COARSE | {"name": "rough", "maps": {"fine": {"soil": "ground", "ball": "thing", "moon": "thing"}}}


def joint(**changes: object) -> Source:
    sets = [{"path": "named", "taxonomy": "fine", "share": 3.0}, {"path": "unnamed", "taxonomy": "rough", "share": 1.0}]
    bare = dataset("fine").model_dump()
    return build(
        Source,
        dataset("fine", "source").model_dump() | {"format": "joint", "sets": [bare | one for one in sets]} | changes,
        "data.source",
    )


DATA = PARAMS.data.model_copy(update={"source": joint(), "target": dataset("fine")})


def run_validate(root: Path, out: Path) -> None:
    paths = {name: root / name for name in ("source", "target", "taxonomies")}
    paths |= {"manifest": out / "manifest", "report": out / "report"}
    run("validate", {"data": DATA, "validate": PARAMS.section("validate")}, paths)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Both in one folder, and a target of the finer classes; packed."""
    root = tmp_path_factory.mktemp("world")
    write_taxonomies(root, FINE, ROUGH)
    write(root / "source" / "named", 0, 6)
    write(root / "source" / "unnamed", 300, 9)
    write(root / "target", 1000, 4)
    run_validate(root, root)
    given = {name: root / name for name in ("source", "target", "taxonomies", "manifest")}
    made = {"packed_source": root / "packed", "packed_target": root / "packed_target", "sheet": root / "sheet.png"}
    whole = AUGMENT.online.model_copy(update={"scale": (1.0, 1.0), "rotate": 0.0})  # a crop is all of an image
    simulate = AUGMENT.simulate.model_copy(update={"night": 1.0})
    changes = {"source_samples": 4, "simulate": simulate, "crop": (72, 100), "online": whole}
    knobs = AUGMENT.model_copy(update=changes)
    metrics = run("augment", {"data": DATA, "augment": knobs}, given | made)
    return root, metrics


def test_a_label_that_merges_several_classes_stays_one_of_these_and_none_is_made_up(world):
    packed = PackedDataset(world[0] / "packed")
    assert packed.card.coarse[0].model_dump() == {"name": "ball or moon", "members": (1, 2)}
    named, unnamed = (next(iter(packed.split(split))).mask for split in ("train", "joint-1"))
    assert set(np.unique(named)) == {0, 1, 2, 255}
    assert set(np.unique(unnamed)) == {0, 3, 255} and (unnamed[1:4] == 3).all(), "soil has a name in both"
    assert packed.card.splits["joint-1"].class_pixels[1:] == (0, 0), "a coarse pixel is no pixel of a class"


def test_what_is_scored_holds_classes_alone(world):
    packed = PackedDataset(world[0] / "packed")
    assert len(packed.split("val")) == 4
    assert {value for sample in packed.split("val") for value in np.unique(sample.mask)} == {0, 1, 2, 255}
    mixed = PackedDataset(world[0] / "packed_target").split("source")
    assert len(mixed) == 4 and max(np.unique(s.mask)[-2] for s in mixed) < 3


def test_each_dataset_is_drawn_from_by_its_share_whatever_its_size(world):
    packed = PackedDataset(world[0] / "packed")
    assert packed.card.shares == {"train": 0.75, "joint-1": 0.25}
    loader = Loader(packed, 8, seed=1)
    coarse = [bool((mask == 3).any()) for step in range(10) for mask in loader.batch(step).masks]
    assert sum(coarse) == pytest.approx(20, abs=1)
    halves = Loader(packed, 8, 1, part=(0, 2)), Loader(packed, 8, 1, part=(1, 2))
    for step in (0, 7):
        parts = np.concatenate([half.batch(step).images for half in halves])
        assert np.array_equal(loader.batch(step).images, parts), "every process draws its part of the same batch"


def test_classes_are_weighed_as_often_as_they_are_drawn(world):
    packed = PackedDataset(world[0] / "packed")
    loader = Loader(packed, 8, seed=1)
    cards = [packed.card.splits[split] for split in ("train", "joint-1")]
    share = [np.array(card.class_pixels) / sum(card.class_pixels) for card in cards]
    expected = 0.75 * share[0] + 0.25 * share[1]
    assert np.allclose(np.array(loader.card.class_pixels) / sum(loader.card.class_pixels), expected, atol=1e-6)
    assert len(loader) == world[1]["source_train"] + world[1]["source_joint-1"] == 14 + 20


def test_it_is_simulated_and_shown_like_any_source(world):
    packed = PackedDataset(world[0] / "packed")
    assert sum("+night" in sample.id for sample in packed.split("joint-1")) > 0
    assert cv2.imread(str(world[0] / "sheet.png")).shape[0] > 1000


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A model that learned from both, and its log below logs/."""
    folder = tmp_path_factory.mktemp("trained")
    paths = {"dataset": world[0] / "packed", "work": folder / "work", "weights": folder / "model"}
    training = TRAINING.model_copy(update={"loss": {"cross_entropy": 1.0, "dice": 0.5}, "precision": "fp32"})
    run("pretrain", {"model": MODEL, "pretrain": training}, paths | {"log": folder / "logs/pretrain"})
    return folder


def test_training_learns_from_both(trained):
    history = [json.loads(line) for line in (trained / "logs/pretrain/history.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < 0.7 * losses[0]


def test_the_report_tells_of_each_dataset(world, trained, tmp_path):
    paths = dict.fromkeys(("pretrained", "baseline", "finetuned"), trained / "model")
    paths |= {"dataset": world[0] / "packed_target", "logs": trained / "logs"}
    paths |= {"manifest": world[0] / "manifest", "validation": world[0] / "report"}
    paths |= {"scores": tmp_path / "scores.json", "report": tmp_path / "report.html", "plots": tmp_path / "plots"}
    run("evaluate", {"evaluate": PARAMS.evaluate}, paths)
    table = paths["report"].read_text().partition('aria-label="Datasets"')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="num">(\d+)<.*?<td>(\w+)</td>', table, re.S)
    assert rows == [("source/named", "6", "fine"), ("source/unnamed", "9", "rough"), ("target", "4", "fine")]


def test_validate_reads_every_dataset_and_names_the_broken_file(world, tmp_path):
    for name in ("source", "target", "taxonomies"):
        shutil.copytree(world[0] / name, tmp_path / name)
    broken = next((tmp_path / "source/unnamed/images/train").iterdir())
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match=f"source/unnamed/images/train/{broken.name}: "):
        run_validate(tmp_path, tmp_path)


def test_label_sets_that_no_map_links_are_told_before_anything_is_packed(world, tmp_path):
    for name in ("source", "target", "taxonomies"):
        shutil.copytree(world[0] / name, tmp_path / name)
    (tmp_path / "taxonomies/rough.yaml").write_text(yaml.safe_dump(ROUGH | {"maps": {}}))
    with pytest.raises(UserError, match=r"fine\.yaml: maps\.rough: missing; .* in rough\.yaml, the other way round"):
        run_validate(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": []}, "joint needs some"),
        ({"format": "folder"}, "no other has any"),
        ({"sets": [dataset("fine").model_dump() | {"path": "a", "share": 0}]}, "share"),
        ({"sets": [dataset("fine").model_dump() | {"path": "../a", "share": 1}]}, "path"),
        ({"sets": [dataset("fine").model_dump() | {"path": "a", "share": 1}] * 2}, "path given twice: a"),
        ({"sets": [dataset("fine", format="none").model_dump() | {"path": "a", "share": 1}]}, "must be a dataset"),
    ],
)
def test_bad_sets_say_what_is_wrong(changes, message):
    with pytest.raises(UserError, match=message):
        joint(**changes)


def test_the_target_is_one_dataset():
    with pytest.raises(ValidationError, match="only the source may be several"):
        type(DATA)(source=DATA.source, target=dataset("fine", format="joint"))
    assert JointSet.model_fields["share"].description


def test_the_shipped_taxonomies_tell_what_is_coarse():
    cityscapes, camvid, streets = (load_taxonomy(TAXONOMIES, name) for name in ("cityscapes", "camvid", "streets"))

    def coarse(other: Taxonomy) -> dict[str, set[str]]:
        several = cityscapes.joint_from(other)[1]
        return {other.names[label]: {cityscapes.names[i] for i in members} for label, members in several.items()}

    assert coarse(streets)["vehicle"] == {"car", "truck", "bus", "train"}
    assert coarse(camvid) == {
        "sign": {"traffic light", "traffic sign"},
        "bicyclist": {"rider", "motorcycle", "bicycle"},
    }
    table, several = cityscapes.joint_from(cityscapes)
    assert not several and table[:19].tolist() == list(range(19))
    assert cityscapes.joint_from(streets)[0][streets.names.index("sky")] == cityscapes.names.index("sky")
