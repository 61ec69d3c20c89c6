from pathlib import Path

import cv2
import numpy as np
import pytest

from segraft.data.formats import list_samples
from segraft.data.streets import conditions, labels
from segraft.data.streets.canvas import Camera, Canvas, Light
from segraft.data.streets.grid import ground_grid
from segraft.data.streets.pen import Pen
from segraft.data.streets.render import render
from segraft.data.streets.write import plan, write_scenes
from segraft.errors import UserError
from segraft.params import StreetSet, load_params
from segraft.steps import run

SIZE = (64, 128)
CONDITIONS = ("dusk", "night", "rain", "fog", "snow", "night-rain")
CAMERA = Camera(height=96, width=192, focal=160, u0=90, v0=40, eye=1.5, roll=0.02, lateral=1.0, yaw=0.05, bend=0.004)


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def street_set(train=0, val=0, test=0, turns=("clear",)):
    return StreetSet(train=train, val=val, test=test, conditions=turns)


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.png"))}


@pytest.fixture(scope="module")
def day():
    return render(3, (0, 5), (128, 256), "clear")


def test_the_same_seed_key_and_size_give_the_same_bytes(day):
    again, other_key, other_seed = (render(s, k, (128, 256)) for s, k in ((3, (0, 5)), (3, (0, 6)), (4, (0, 5))))
    assert again.image.tobytes() == day.image.tobytes()
    assert again.labels.tobytes() == day.labels.tobytes()
    assert np.array_equal(again.depth, day.depth)
    assert not np.array_equal(other_key.labels, day.labels)
    assert not np.array_equal(other_seed.labels, day.labels)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_changes_the_image_and_nothing_else(day, condition):
    frame = render(3, (0, 5), (128, 256), condition)
    assert np.array_equal(frame.labels, day.labels)
    assert np.array_equal(frame.depth, day.depth)
    assert np.abs(frame.image.astype(int) - day.image).mean() > 8
    assert frame.image.std() > 5


def test_every_class_is_drawn_often_and_nothing_undeclared_is():
    masks = [render(1, (i,), (128, 256)).labels for i in range(60)]
    shown = np.array([np.bincount(mask.ravel(), minlength=256) > 0 for mask in masks])
    assert set(np.flatnonzero(shown.any(0))) == {*labels.CLASSES, *labels.VOID}
    assert shown[:, labels.CLASSES].mean(0).min() >= 0.05
    road = np.mean([mask == labels.ROAD for mask in masks])
    assert 0.2 < road < 0.5


def test_ground_pixels_lie_where_the_camera_sees_them():
    grid = ground_grid(CAMERA)
    for row, column in ((12, 20), (30, 100), (55, 180)):
        u, v = CAMERA.point(float(grid.s[row, column]), 0.0, float(grid.z[row, column]))
        assert (u, v) == pytest.approx((column, row + grid.top), abs=0.05)


def test_many_points_and_one_point_are_projected_alike():
    places = np.array([(0.0, 0.0, 8.0), (-3.0, 2.5, 20.0), (5.0, 1.0, 0.1)])
    single = [CAMERA.point(*place) for place in places.tolist()]
    np.testing.assert_allclose(CAMERA.fixed(places) / 16, single, atol=1 / 16)


def test_the_depth_of_a_thing_is_where_it_stands_and_nearer_things_hide_farther_ones():
    canvas = Canvas(CAMERA, Light((0.0, 1.0, 0.0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), lit=True)
    for z, label, color in ((30.0, labels.BUS, (200, 0, 0)), (10.0, labels.PERSON, (0, 200, 0))):
        pen = Pen(canvas, 0.5, z)
        pen.layer(label)
        pen.poly([(-1, 0, 0), (1, 0, 0), (1, 3, 0), (-1, 3, 0)], color, glow=(9, 9, 9) if label == labels.BUS else None)
    mask, inverse = canvas.labels(), canvas.inverse_depth()
    assert np.count_nonzero(mask == labels.PERSON) > np.count_nonzero(mask == labels.BUS) > 0
    np.testing.assert_allclose(1 / inverse[mask == labels.PERSON], 10, rtol=1e-5)
    np.testing.assert_allclose(1 / inverse[mask == labels.BUS], 30, rtol=1e-5)
    assert canvas.glow[mask == labels.BUS].all() and not canvas.glow[mask == labels.PERSON].any()


def test_depth_is_infinite_in_the_sky_and_grows_up_the_road(day):
    assert np.isinf(day.depth[day.labels == labels.SKY]).all()
    assert np.isfinite(day.depth[day.labels == labels.CAR]).all()
    road = np.where(day.labels == labels.ROAD, day.depth, np.nan)
    rows = [np.nanmedian(row) for row in road if np.isfinite(row).sum() > 40]
    assert len(rows) > 20 and (np.diff(rows) < 0).all()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_works_on_any_image(condition):
    image = generator().integers(40, 220, (90, 160, 3), dtype=np.uint8)
    before = image.copy()
    first, again = (conditions.apply(image, condition, generator(1)) for _ in range(2))
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, again) and np.array_equal(image, before)
    assert np.abs(first.astype(int) - image).mean() > 8


def test_clear_is_a_copy(day):
    clear = conditions.apply(day.image, "clear", generator())
    assert np.array_equal(clear, day.image) and not np.shares_memory(clear, day.image)


def test_fog_hides_what_is_far():
    image = np.full((80, 160, 3), 30, np.uint8)
    depth = np.full((80, 160), 5, np.float32)
    depth[:, 80:] = 400
    foggy = conditions.apply(image, "fog", generator(), depth).astype(int)
    assert foggy[:, :70].mean() < 90 and foggy[:, 90:].mean() > 150


def test_night_is_dark_but_for_lamps():
    image = np.full((128, 256, 3), 150, np.uint8)
    lamps = np.zeros_like(image)
    lamps[30:34, 60:66] = (255, 200, 120)
    night = conditions.apply(image, "night", generator(), depth=np.full((128, 256), 60, np.float32), lamps=lamps)
    assert night[30:34, 60:66].mean() > 200
    assert night[:, 180:].mean() < 60
    around, away = night[24:28, 56:70].mean(), night[24:28, 186:200].mean()
    assert around > away + 20


def test_night_without_known_lamps_invents_some():
    image = np.full((128, 256, 3), 90, np.uint8)
    assert (conditions.apply(image, "night", generator()).max(2) > 200).sum() > 10


def test_wet_ground_mirrors_what_stands_on_it():
    image, ground = np.full((96, 192, 3), 100, np.uint8), np.zeros((96, 192), bool)
    ground[60:] = True
    image[30:60, 90:110] = (230, 20, 20)
    wet = conditions.apply(image, "rain", generator(), depth=np.full((96, 192), 12, np.float32), ground=ground).astype(
        int
    )
    redness = wet[64:76, :, 0] - wet[64:76, :, 2]
    assert redness[:, 94:106].mean() > redness[:, 20:60].mean() + 15


def test_the_bytes_on_disk_do_not_depend_on_the_workers(tmp_path):
    for workers in (1, 2):
        write_scenes(plan(tmp_path / str(workers), street_set(train=16), 5, 0, SIZE), "test", workers)
    assert len(files(tmp_path / "1")) == 32
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_more_scenes_leave_the_first_ones_as_they_were(tmp_path):
    for name, count in (("few", 2), ("many", 4)):
        write_scenes(plan(tmp_path / name, street_set(train=count, val=1, turns=("clear", "snow")), 5, 0, SIZE), "test")
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    assert few == {name: many[name] for name in few}


def test_the_layout_is_that_of_cityscapes(tmp_path):
    scenes = plan(tmp_path, street_set(train=2, val=1, test=2, turns=("clear", "night-rain")), 5, 0, SIZE)
    write_scenes(scenes, "test")
    ours = load_params(Path(__file__).parents[2] / "params.yaml").data.target
    dataset = ours.model_copy(update={"include": ("*",), "holdout": 0.0, "limit": None})
    listing = list_samples(tmp_path, dataset)
    assert not listing.orphans
    assert [(s.split, s.tags) for s in listing.samples] == [
        *(("train", ("clear",)), ("train", ("night", "rain"))),
        ("val", ("clear",)),
        *(("test", ("clear",)), ("test", ("night", "rain"))),
    ]
    assert len({s.id for s in listing.samples}) == len({s.group for s in listing.samples}) == 5
    assert {tmp_path / s.image for s in listing.samples} == {s.image for s in scenes}
    for scene in scenes:
        image, mask = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (scene.image, scene.mask))
        assert image.shape == (*SIZE, 3) and mask.shape == SIZE
        rendered = render(5, (0, ("train", "val", "test").index(scene.split), scene.index), SIZE, scene.condition)
        assert np.array_equal(image[..., ::-1], rendered.image) and np.array_equal(mask, rendered.labels)


@pytest.mark.parametrize("size", [(32, 64), (256, 128), (4096, 8192)])
def test_a_size_that_shows_no_street_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=r"streets\.size: \["):
        plan(tmp_path, street_set(train=1), 5, 0, size)


def test_the_step_writes_both_datasets(tmp_path):
    section = {
        "seed": 7,
        "size": SIZE,
        "source": {"train": 2, "val": 1, "test": 0, "conditions": ["clear"]},
        "target": {"train": 1, "val": 1, "test": 2, "conditions": ["night", "rain"]},
    }
    paths: dict[str, Path] = {"source": tmp_path / "source", "target": tmp_path / "target"}
    assert run("streets", {"streets": section}, paths) == {"source_images": 3, "target_images": 4}
    source, target = files(paths["source"]), files(paths["target"])
    assert len(source) == 6 and len(target) == 8
    assert not set(source.values()) & set(target.values())
    run("streets", {"streets": section}, paths)
    assert (files(paths["source"]), files(paths["target"])) == (source, target)
