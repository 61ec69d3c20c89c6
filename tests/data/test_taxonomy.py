"""The taxonomies that ship are complete and resolve; bad ones are refused with the reason."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from segraft.data.taxonomy import UNKNOWN, kin, load_taxonomy
from segraft.errors import UserError

FOLDER = Path(__file__).parents[2] / "data/taxonomies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
MAPS = [(name, other) for name in NAMES for other in load_taxonomy(FOLDER, name).maps]
TINY = {"name": "tiny", "classes": [{"name": "a", "color": [1, 2, 3], "ids": [5]}, {"name": "b", "color": [4, 5, 6]}]}


def load(name):
    return load_taxonomy(FOLDER, name)


def write(folder: Path, **changes) -> Path:
    spec = TINY | changes
    (folder / f"{spec['name']}.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.mark.parametrize(
    ("name", "classes", "first_id"),
    [
        ("cityscapes", 19, 7),
        ("camvid", 11, 0),
        ("voc", 21, 0),
        ("ade20k", 150, 1),
        ("cocostuff", 171, 0),
        ("pets", 2, 2),
    ],
)
def test_label_sets(name, classes, first_id):
    taxonomy = load(name)
    assert len(taxonomy.classes) == classes
    assert [len(ids) for ids in taxonomy.class_ids] == [1] * classes
    assert taxonomy.class_ids[0] == (first_id,)


def test_every_format_has_its_taxonomy():
    assert {"cityscapes", "camvid", "camvid32", "voc", "ade20k", "cocostuff", "pets"} <= set(NAMES)


def test_ids_as_published():
    assert [ids[0] for ids in load("cityscapes").class_ids] == [
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]  # fmt: skip
    assert set(load("cityscapes").void.ids) == set(range(31)) - {i for (i,) in load("cityscapes").class_ids}
    assert [ids[0] for ids in load("ade20k").class_ids] == list(range(1, 151))
    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}  # COCO's category ids without a class
    assert [ids[0] for ids in load("cocostuff").class_ids] == [i - 1 for i in range(1, 183) if i not in unused]


def test_voc_colours_are_the_palette_of_its_masks():
    def bit(value, place):
        return (value >> place) & 1

    for index, entry in enumerate(load("voc").classes):
        color = [sum(bit(index, 3 * k + channel) << (7 - k) for k in range(3)) for channel in range(3)]
        assert list(entry.color) == color


@pytest.mark.parametrize("name", NAMES)
def test_tables_agree_with_the_file(name):
    taxonomy = load(name)
    table = taxonomy.lookup("ids")
    for index, entry in enumerate(taxonomy.classes):
        assert all(table[i] == index for i in entry.ids)
        assert all(taxonomy.color_lookup()[(r << 16) | (g << 8) | b] == index for r, g, b in entry.colors)
    assert all(table[i] == 255 for i in taxonomy.void.ids)
    known = sum(map(len, taxonomy.class_ids)) + len(taxonomy.void.ids)
    assert np.count_nonzero(table != UNKNOWN) == known
    own = taxonomy.lookup("trainIds")
    assert own[:256].tolist() == [*range(len(taxonomy.classes)), *[UNKNOWN] * (255 - len(taxonomy.classes)), 255]
    assert taxonomy.palette[: len(taxonomy.classes)].tolist() == [list(c.color) for c in taxonomy.classes]


def test_maps_are_declared():
    assert {("camvid", "cityscapes"), ("camvid", "camvid32"), ("cityscapes", "camvid"), ("voc", "cocostuff")} <= {*MAPS}


@pytest.mark.parametrize(("name", "other"), MAPS)
def test_every_declared_map_is_complete(name, other):
    ours, theirs = load(name), load(other)
    table = ours.map_from(theirs)
    declared = ours.maps[other]
    for index, theirs_name in enumerate(theirs.names):
        wanted = declared.get(theirs_name, declared.get("*"))
        assert table[index] == (255 if wanted is None else ours.names.index(wanted))
    assert (table[len(theirs.names) :] == 255).all()
    assert len(set(table[: len(theirs.names)]) - {255}) >= 2, "a map that leads to one class teaches nothing"


def test_cityscapes_as_camvid():
    camvid, cityscapes = load("camvid"), load("cityscapes")
    table = camvid.map_from(cityscapes)
    pairs = {theirs: camvid.names[table[i]] for i, theirs in enumerate(cityscapes.names) if table[i] != 255}
    assert pairs["rider"] == pairs["motorcycle"] == pairs["bicycle"] == "bicyclist"
    assert pairs["wall"] == "building" and pairs["terrain"] == "tree" and pairs["traffic light"] == "sign"
    assert "train" not in pairs and len(pairs) == 18


def test_camvids_two_readings_of_the_original_agree():
    """Colours read as camvid, or read as camvid32 and then mapped: the same class."""
    camvid, original = load("camvid"), load("camvid32")
    table = camvid.map_from(original)
    merged = {color: int(table[index]) if index < 31 else 255 for color, index in original.color_lookup().items()}
    assert camvid.color_lookup() == merged


def test_map_to_itself_changes_nothing():
    table = load("voc").map_from(load("voc"))
    assert table[:22].tolist() == [*range(21), 255]


def test_no_map(tmp_path):
    with pytest.raises(UserError, match=r"data/taxonomies/ade20k.yaml: maps.voc: missing"):
        load("ade20k").map_from(load("voc"))


def test_map_with_a_class_left_out_or_unknown(tmp_path):
    write(tmp_path, name="other")
    taxonomy = load_taxonomy(write(tmp_path, maps={"other": {"a": "b", "zebra": None}}), "tiny")
    with pytest.raises(UserError, match=r"maps.other: classes left out: \['b'\]; not in other: \['zebra'\]"):
        taxonomy.map_from(load_taxonomy(tmp_path, "other"))


def test_map_that_names_a_class_too_many(tmp_path):
    write(tmp_path, name="other")
    taxonomy = load_taxonomy(write(tmp_path, maps={"other": {"*": "b", "zebra": None}}), "tiny")
    with pytest.raises(UserError, match=r"classes left out: \[\]; not in other: \['zebra'\]"):
        taxonomy.map_from(load_taxonomy(tmp_path, "other"))


COARSE = {
    "name": "coarse",
    "classes": [{"name": n, "color": [9, 9, k]} for k, n in enumerate(("living", "dead", "sky"))],
}
FINE = {
    "name": "fine",
    "classes": [{"name": n, "color": [k, 0, 0]} for k, n in enumerate(("cat", "dog", "rock", "sea"))],
}
BACKWARDS = {"fine": {"cat": "living", "dog": "living", "rock": "dead", "sea": None}}
"""How coarse reads fine: it merges two classes, and knows nothing of the sea."""


def pair(folder, forwards=None):
    """The two taxonomies; coarse always has a map from fine, fine one from coarse if it is given."""
    write(folder, **COARSE, maps=BACKWARDS)
    write(folder, **FINE, maps={} if forwards is None else {"coarse": forwards})
    return load_taxonomy(folder, "fine"), load_taxonomy(folder, "coarse")


def test_joint_labels_by_the_map_backwards(tmp_path):
    fine, coarse = pair(tmp_path)
    table, several = fine.joint_from(coarse)
    assert table[:4].tolist() == [255, 2, 255, 255] and (table[4:] == 255).all()
    assert several == {0: (0, 1)}


def test_joint_labels_by_both_maps(tmp_path):
    """What the own map says counts; backwards, only what merges is read: a single class was left out on purpose."""
    fine, coarse = pair(tmp_path, {"living": None, "dead": None, "sky": "sea"})
    table, several = fine.joint_from(coarse)
    assert table[:3].tolist() == [255, 255, 3] and several == {0: (0, 1)}
    fine, coarse = pair(tmp_path, {"living": "dog", "dead": "rock", "sky": None})
    table, several = fine.joint_from(coarse)
    assert table[:3].tolist() == [1, 2, 255] and several == {}


def test_joint_labels_by_the_own_map_alone_or_of_the_same_taxonomy(tmp_path):
    fine, coarse = pair(tmp_path)
    table, several = coarse.joint_from(fine)
    assert table[:4].tolist() == [0, 0, 1, 255] and several == {}
    table, several = coarse.joint_from(coarse)
    assert table[:4].tolist() == [0, 1, 2, 255] and several == {}


def test_joint_labels_without_any_map(tmp_path):
    fine, _ = pair(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match=r"fine.yaml: maps.tiny: missing; .*or, in tiny.yaml, the other way round"):
        fine.joint_from(load_taxonomy(tmp_path, "tiny"))


def test_kin_are_linked_by_the_map_of_either(tmp_path):
    write(tmp_path)  # nobody's kin
    fine, coarse = pair(tmp_path)
    links = {("cat", "living"), ("dog", "living"), ("rock", "dead")}
    assert kin(tmp_path, coarse) == {"fine": tuple(sorted(links))}
    assert kin(tmp_path, fine) == {"coarse": tuple(sorted((c, f) for f, c in links))}
    fine, _ = pair(tmp_path, {"*": "rock", "sky": None})
    both = {(c, f) for f, c in links} | {("living", "rock"), ("dead", "rock")}
    assert kin(tmp_path, fine) == {"coarse": tuple(sorted(both))}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"maps": {"voc": {"cat": "lion"}}}, "maps.voc leads to lion, which is no class of tiny"),
        ({"void": {"ids": [5]}}, "id given twice: 5"),
        ({"void": {"colors": [[4, 5, 6]]}}, r"color given twice: \(4, 5, 6\)"),
        ({"classes": [TINY["classes"][0]] * 2}, "class name given twice: a"),
        ({"classes": TINY["classes"][:1]}, "classes: .*at least 2"),
        ({"ignore_index": 11}, "ignore_index: .*255"),
        ({"colours": []}, "colours: unknown key"),
    ],
)
def test_bad_taxonomy(tmp_path, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        load_taxonomy(write(tmp_path, **changes), "tiny")


def test_no_such_taxonomy(tmp_path):
    with pytest.raises(UserError, match=r"cars.yaml: no such taxonomy; there are tiny"):
        load_taxonomy(write(tmp_path), "cars")


def test_file_and_name_must_agree(tmp_path):
    write(tmp_path).joinpath("tiny.yaml").rename(tmp_path / "small.yaml")
    with pytest.raises(UserError, match="'tiny' must be the file's own name, 'small'"):
        load_taxonomy(tmp_path, "small")
