"""What augment packs for transfer: the source's own classes, its samples beside the target's, unlabelled images."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from segraft.data.unlabelled import unlabelled
from segraft.errors import UserError
from tests.steps.test_augment import DATA, augment, world  # noqa: F401
from tests.training.conftest import disc


def test_a_further_split_holds_source_samples_in_the_target_s_classes(world, tmp_path):  # noqa: F811
    metrics, source, target = augment(world, tmp_path, source_samples=3)
    packed = list(target.split("source"))
    assert metrics["target_source"] == 3 and metrics["target_train"] == 4
    originals = {sample.id: sample for sample in source.split("train")}
    assert all(np.array_equal(s.mask, originals[s.id].mask) for s in packed)
    assert [s.id for s in packed] == [disc(seed).id for seed in (0, 2, 5)], "evenly spaced"
    assert augment(world, tmp_path / "all", source_samples=99)[0]["target_source"] == 8


def test_the_source_may_keep_its_own_classes_and_both_know_how_they_are_linked(world, tmp_path):  # noqa: F811
    _, source, target = augment(world, tmp_path, source_classes="own", source_samples=1)
    assert [c.name for c in source.card.classes] == ["soil", "ball", "moon"]
    assert (source.split("train")[0].mask[1:4] == 2).all(), "the moon is a class of its own"
    assert target.card.kin == {"fine": (("ball", "thing"), ("soil", "ground"))}
    assert source.card.kin == {"coarse": (("ground", "soil"), ("thing", "ball"))}
    assert set(np.unique(target.split("source")[0].mask)) == {0, 1, 255}


def test_the_rest_beyond_the_label_budget_is_packed_without_labels(world, tmp_path):  # noqa: F811
    from segraft.steps import run
    from tests.steps.test_augment import AUGMENT, PARAMS

    data = DATA.model_copy(update={"target": DATA.target.model_copy(update={"limit": 1})})
    given = {name: world / name for name in ("source", "target", "taxonomies")}
    checked = {"manifest": tmp_path / "manifest", "report": tmp_path / "report"}
    run("validate", {"data": data, "validate": PARAMS.section("validate")}, given | checked)
    made = {"packed_source": tmp_path / "s", "packed_target": tmp_path / "t", "sheet": tmp_path / "sheet.png"}
    knobs = AUGMENT.model_copy(update={"unlabelled": "rest"})
    metrics = run("augment", {"data": data, "augment": knobs}, given | {"manifest": tmp_path / "manifest"} | made)
    assert (metrics["target_train"], metrics["target_unlabelled"]) == (1, 3)


def test_unlabelled_images_are_found_by_a_glob_and_hold_no_label(world, tmp_path):  # noqa: F811
    folder = world / "target" / "bare" / "drive"
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "a.png"), np.full((80, 96, 3), 7, np.uint8))
    metrics, _, target = augment(world, tmp_path, unlabelled="bare/**/*.png")
    (sample,) = target.split("unlabelled")
    assert metrics["target_unlabelled"] == 1 and (sample.mask == 255).all() and sample.image.shape == (80, 96, 3)
    assert target.card.splits["unlabelled"].class_pixels == (0, 0)


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("nowhere/*.png", r"augment\.unlabelled: nowhere/\*\.png: no image of .* besides those of train, val and test"),
        ("images/train/*", r"augment\.unlabelled: .* besides those of train, val and test"),
        ("rest", r"augment\.unlabelled: rest: .* rest if data\.target\.limit leaves some out"),
        ("../target/images/*", "leads out of the dataset's folder"),
    ],
)
def test_no_unlabelled_image_is_one_clear_error(world, tmp_path, glob, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        augment(world, tmp_path, unlabelled=glob)


def test_masks_of_samples_that_are_left_out_are_no_unlabelled_images(world):  # noqa: F811
    every = [path.relative_to(world / "target").as_posix() for path in sorted((world / "target/images").rglob("*.png"))]
    chosen = DATA.target.model_copy(update={"include": (every[0].split("/")[-1].removesuffix(".png"),)})
    files = SimpleNamespace(root=world / "target", rows=[{"image": every[0]}])
    assert [make.args[1] for make in unlabelled(files, chosen, "*s/**/*.png")] == every[1:]
