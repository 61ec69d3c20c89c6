"""From validated files to packed datasets, through the door."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segraft.data.manifest import read_rows
from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.params import Folder, load_params
from segraft.steps import run
from tests.training.conftest import disc

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
FOLDER = Folder(
    images="images/{split}/*", masks="masks/{split}/{stem}.png", split_files=None, group=None, encoding="ids"
)
FINE = {
    "name": "fine",
    "void": {"ids": [0]},
    "classes": [
        {"name": "soil", "color": [90, 60, 30], "ids": [1]},
        {"name": "ball", "color": [230, 30, 30], "ids": [7]},
        {"name": "moon", "color": [200, 200, 200], "ids": [9]},
    ],
}
COARSE = {
    "name": "coarse",
    "void": {"ids": [0]},
    "classes": [
        {"name": "thing", "color": [255, 0, 0], "ids": [7, 9]},
        {"name": "ground", "color": [0, 0, 255], "ids": [1]},
    ],
    "maps": {"fine": {"soil": "ground", "ball": "thing", "moon": None}},
}
IDS = np.zeros(256, np.uint8)
IDS[[0, 1]] = 1, 7


def write(root: Path, first: int, train: int) -> Path:
    for split, start, count in (("train", first, train), ("val", first + 50, 2), ("test", first + 70, 2)):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for seed in range(start, start + count):
            sample = disc(seed)
            cv2.imwrite(str(root / "images" / split / f"{sample.id}.png"), sample.image[..., ::-1])
            mask = IDS[sample.mask] * (sample.mask != 255)
            mask[1:4] = 9
            cv2.imwrite(str(root / "masks" / split / f"{sample.id}.png"), mask)
    return root


def dataset(taxonomy: str, role: str = "target", **changes: object):
    changes = {"format": "folder", "taxonomy": taxonomy, "folder": FOLDER, **changes}
    return getattr(PARAMS.data, role).model_copy(update=changes)


DATA = PARAMS.data.model_copy(update={"source": dataset("fine", "source"), "target": dataset("coarse")})
AUGMENT = PARAMS.augment.model_copy(update={"crop": (64, 64), "shard_mb": 1})


def write_taxonomies(root: Path, *taxonomies: dict[str, object]) -> None:
    (root / "taxonomies").mkdir()
    for taxonomy in taxonomies:
        (root / "taxonomies" / f"{taxonomy['name']}.yaml").write_text(yaml.safe_dump(taxonomy))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A source and a target of discs with taxonomies of their own, validated."""
    root = tmp_path_factory.mktemp("world")
    write_taxonomies(root, FINE, COARSE)
    write(root / "source", 0, 8)
    write(root / "target", 1000, 4)
    names = ("source", "target", "taxonomies", "manifest", "report")
    run("validate", {"data": DATA, "validate": PARAMS.section("validate")}, {name: root / name for name in names})
    return root


def augment(world: Path, out: Path, data=DATA, **changes: object):
    given = {name: world / name for name in ("source", "target", "taxonomies", "manifest")}
    made = {"packed_source": out / "s", "packed_target": out / "t", "sheet": out / "sheet.png"}
    metrics = run("augment", {"data": data, "augment": AUGMENT.model_copy(update=changes)}, given | made)
    return metrics, PackedDataset(out / "s"), PackedDataset(out / "t")


def test_labels_arrive_in_the_target_s_classes(world, tmp_path):
    metrics, source, target = augment(world, tmp_path)
    assert [c.name for c in source.card.classes] == [c.name for c in target.card.classes] == ["thing", "ground"]
    assert (metrics["target_train"], metrics["target_val"], metrics["target_test"]) == (4, 2, 2)
    truth = disc(1000).mask
    mask = target.split("train")[0].mask
    assert (mask[4:][truth[4:] == 1] == 0).all() and (mask[4:][truth[4:] == 0] == 1).all()
    assert (mask[0] == 255).all() and (mask[1:4] == 0).all(), "void is ignored; the target's moon is a thing"
    assert (source.split("train")[0].mask[1:4] == 255).all(), "the source's moon maps to nothing"


def test_simulation_adds_the_asked_share_to_the_source_and_keeps_labels(world, tmp_path):
    shares = AUGMENT.simulate.model_copy(update={"night": 0.5, "rain": 0.25, "fog": 0.25})
    metrics, source, _ = augment(world, tmp_path, simulate=shares)
    samples = {s.id: s for s in source.split("train")}
    assert metrics["source_train"] == 16 and metrics["target_train"] == 4
    added = [s for s in samples.values() if "+" in s.id]
    assert sorted(s.tags[-1] for s in added) == ["fog"] * 2 + ["night"] * 4 + ["rain"] * 2
    for sample in added:
        original = samples[sample.id.split("+")[0]]
        assert np.array_equal(sample.mask, original.mask) and not np.array_equal(sample.image, original.image)
    assert metrics["source_val"] == 2, "only train is multiplied"


def test_copy_paste_multiplies_the_target(world, tmp_path):
    knobs = AUGMENT.copy_paste.model_copy(update={"copies": 2, "classes": ("thing",)})
    metrics, _, target = augment(world, tmp_path, copy_paste=knobs)
    assert metrics["target_train"] == 12
    pasted = [s for s in target.split("train") if "pasted" in s.tags]
    plain = {s.id: s for s in target.split("train")}
    assert all((s.mask == 0).sum() >= (plain[s.id.split("+")[0]].mask == 0).sum() for s in pasted)
    with pytest.raises(UserError, match=r"copy_paste.classes: \['cow'\]: not in coarse"):
        augment(world, tmp_path / "x", copy_paste=knobs.model_copy(update={"classes": ("cow",)}))


def test_the_same_seed_packs_the_same_bytes_and_another_does_not(world, tmp_path):
    prints = [augment(world, tmp_path / str(n), seed=seed)[1].card.fingerprint for n, seed in enumerate((7, 7, 8))]
    assert prints[0] == prints[1] != prints[2]


def test_offline_resize(world, tmp_path):
    _, _, target = augment(world, tmp_path, size=(48, 64))
    sample = target.split("test")[1]
    assert sample.image.shape == (48, 64, 3) and set(np.unique(sample.mask)) <= {0, 1, 255}


def test_contact_sheet_shows_both_datasets(world, tmp_path):
    augment(world, tmp_path)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 1000 and sheet.shape[0] > 1000 and sheet.std() > 20


def test_without_a_source_there_is_only_the_target(world, tmp_path):
    data = DATA.model_copy(update={"source": dataset("fine", "source", format="none")})
    names = ("source", "target", "taxonomies")
    paths = {name: world / name for name in names} | {"manifest": tmp_path / "m", "report": tmp_path / "r"}
    run("validate", {"data": data, "validate": PARAMS.section("validate")}, paths)
    given = {name: world / name for name in names} | {"manifest": tmp_path / "m"}
    made = {"packed_source": tmp_path / "s", "packed_target": tmp_path / "t", "sheet": tmp_path / "sheet.png"}
    metrics = run("augment", {"data": data, "augment": AUGMENT}, given | made)
    assert metrics["source_train"] == 0 and metrics["target_train"] == 4 and (tmp_path / "sheet.png").is_file()


def test_a_mask_changed_after_validate_is_refused(world, tmp_path):
    mask = sorted((world / "target/masks/test").iterdir())[0]
    before = mask.read_bytes()
    cv2.imwrite(str(mask), np.full((72, 100), 33, np.uint8))
    try:
        with pytest.raises(UserError, match=rf"{mask.name}: has changed since validate read it"):
            augment(world, tmp_path)
    finally:
        mask.write_bytes(before)
    assert not (tmp_path / "t").exists()


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"source\.parquet: no such file; the validate step writes it"):
        read_rows(tmp_path, "source")
