"""What is wrong with a dataset as a whole: splits, leaks, names, classes, drift, encodings."""

import shutil
import unicodedata

import numpy as np
import pytest
import yaml
from PIL import Image

from segraft.data.formats import list_samples
from segraft.data.taxonomy import Taxonomy
from segraft.data.validation.listings import Given, drawn, more_samples
from segraft.errors import UserError
from segraft.params import Dataset, load_params
from segraft.steps import run
from tests.data.blobs import COLORS, TAXONOMY, Blobs, make_blobs, scene
from tests.data.validation_run import FOLDER, PARAMS, Outcome, given, validate


def copy_sample(blobs: Blobs, sample: str, other: str) -> None:
    shutil.copyfile(blobs.image(sample), blobs.image(other))
    shutil.copyfile(blobs.mask(sample), blobs.mask(other))


def write_sample(blobs: Blobs, name: str, seed: int) -> None:
    image, mask = scene(seed)
    Image.fromarray(image).save(blobs.image(name))
    Image.fromarray(mask).save(blobs.mask(name))


def edit_masks(blobs: Blobs, split: str, work) -> None:
    for path in sorted((blobs.root / "masks" / split).iterdir()):
        Image.fromarray(work(np.asarray(Image.open(path)))).save(path)


def rules(outcome: Outcome) -> set[tuple[str, str, str]]:
    """(rule, severity, file)."""
    return {(one["rule"], one["severity"], one["file"]) for one in outcome.told["findings"]}


@pytest.fixture
def blobs(tmp_path):
    return make_blobs(tmp_path / "blobs")


def test_clean_source_and_target_have_no_findings(blobs, tmp_path):
    """Not even of a sequence that the user's own `holdout` divides."""
    for index in range(8):
        write_sample(blobs, f"train/c{index}", 71_000 + index)
    source = make_blobs(tmp_path / "source", seed=50_000)
    outcome = validate(blobs, tmp_path, "data.target.folder.group='^c'", "data.target.holdout=0.25", source=source)
    assert outcome.told["findings"] == [] and outcome.message == "" and outcome.told["passed"]


def test_leaks_and_names(blobs, tmp_path):
    copy_sample(blobs, "train/00", "val/exact")
    copy_sample(blobs, "train/01", "train/again")
    noisy = np.asarray(Image.open(blobs.image("train/02"))).astype(int) + np.random.default_rng(0).integers(
        -2, 3, (96, 128, 3)
    )
    copy_sample(blobs, "train/02", "test/near")
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(blobs.image("test/near"))
    write_sample(blobs, "train/swapped", 70_000)
    shutil.copyfile(blobs.mask("train/03"), blobs.mask("train/swapped"))
    for index in range(3):
        write_sample(blobs, f"train/c{index}", 71_000 + index)
        write_sample(blobs, f"test/c{index}", 72_000 + index)
    write_sample(blobs, "train/C2", 73_000)
    for form, seed in (("NFC", 74_000), ("NFD", 75_000)):
        write_sample(blobs, f"train/{unicodedata.normalize(form, 'é')}", seed)
    Image.fromarray(scene(76_000)[0]).save(blobs.image("train/04").with_suffix(".jpg"))
    write_sample(blobs, "train/bad\nname", 77_000)
    shutil.copyfile(blobs.mask("val/00"), blobs.mask("val/orphan"))
    group = r"data.target.folder.group='^c'"
    outcome = validate(blobs, tmp_path, group)
    nfc, nfd = (unicodedata.normalize(form, "images/train/é.png") for form in ("NFC", "NFD"))
    assert rules(outcome) == {
        ("leak", "error", "images/val/exact.png"),
        ("repeated_image", "warning", "images/train/again.png"),
        ("near_twin", "warning", "images/test/near.png"),
        ("same_mask", "warning", "masks/train/swapped.png"),
        ("foreign_mask", "warning", "masks/train/swapped.png"),
        ("same_mask", "warning", "masks/train/04.png"),
        ("same_name", "error", "images/train/c2.png"),
        ("same_name", "error", "images/train/C2.png"),
        ("same_name", "error", nfc),
        ("same_name", "error", nfd),
        ("same_name", "error", "images/train/04.png"),
        ("same_name", "error", "images/train/04.jpg"),
        ("foreign_mask", "warning", "masks/train/04.png"),
        ("bad_name", "error", "images/train/bad\\nname.png"),
        ("bad_name", "error", "masks/train/bad\\nname.png"),
        ("orphan_mask", "error", "masks/val/orphan.png"),
        ("divided_sequence", "warning", ""),
    }
    assert "target: images/train/00.png" in outcome.of("leak")[0]["found"]
    assert "3 images in train, 3 images in test" in outcome.of("divided_sequence")[0]["found"]


def test_many_near_twins_are_an_error(blobs, tmp_path):
    for index in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10):  # the hash of 05 has too few bits to tell
        pixels = np.asarray(Image.open(blobs.image(f"train/{index:02}"))).astype(int)
        Image.fromarray(np.clip(pixels + 1, 0, 255).astype(np.uint8)).save(blobs.image(f"test/t{index}"))
        shutil.copyfile(blobs.mask(f"train/{index:02}"), blobs.mask(f"test/t{index}"))
    outcome = validate(blobs, tmp_path)
    assert len(outcome.of("near_twin")) == 10
    (finding,) = outcome.of("many_near_twins")
    assert finding["severity"] == "error" and "62% of the images of test" in finding["found"]


def test_empty_dataset_does_not_hide_the_faults_of_the_other(blobs, tmp_path):
    source = make_blobs(tmp_path / "source", seed=50_000)
    shutil.rmtree(blobs.root)
    blobs.root.mkdir()
    source.image("train/00").write_bytes(b"")
    outcome = validate(blobs, tmp_path, source=source)
    assert {(one["dataset"], one["rule"]) for one in outcome.told["findings"]} == {
        ("target", "unlisted_dataset"),
        ("source", "empty_file"),
    }
    assert str(blobs.root) in outcome.of("unlisted_dataset")[0]["found"]


@pytest.mark.parametrize("knob", ["images=Images/{split}/*", "masks=masks/x.png"])
def test_a_target_that_cannot_be_listed_is_said_so_without_a_source(blobs, tmp_path, knob):
    outcome = validate(blobs, tmp_path, f"data.target.folder.{knob}")
    assert outcome.message and [one["rule"] for one in outcome.told["findings"]] == ["unlisted_dataset"]


def test_masks_whose_foreground_is_255_are_an_error_and_one_of_background_and_void_is_not(blobs, tmp_path):
    def void(mask):
        return np.where(mask == 2, 255, 0).astype(np.uint8)

    one = blobs.mask("train/00")
    Image.fromarray(void(np.asarray(Image.open(one)))).save(one)
    found = validate(blobs, tmp_path / "one").rules_by_file()["masks/train/00.png"]
    assert found["background_and_void"] == "warning" and "error" not in found.values()
    for split in ("train", "val", "test"):
        edit_masks(blobs, split, void)
    outcome = validate(blobs, tmp_path / "all")
    assert len(outcome.of("binary_mask")) == 23, "the first one holds 0 alone by now"
    assert not outcome.of("background_and_void") and "write the foreground's id" in outcome.message
    assert "ids: [255]" in outcome.message and not outcome.of("unused_class")
    classes = [{"name": name, "color": list(c), "ids": [i]} for name, c, i in zip("ab", COLORS, (0, 255), strict=False)]
    (blobs.taxonomies / "blobs.yaml").write_text(yaml.safe_dump({"name": "blobs", "classes": classes}))
    assert validate(blobs, tmp_path / "as told").told["errors"] == 0


def test_what_the_source_s_test_lacks_is_nobody_s_loss(blobs, tmp_path):
    source = make_blobs(tmp_path / "source", seed=50_000)
    edit_masks(source, "test", lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    outcome = validate(blobs, tmp_path, source=source)
    assert not [one for one in outcome.told["findings"] if "class" in one["rule"] and one["dataset"] == "source"]


def test_classes_missing_from_splits(blobs, tmp_path):
    edit_masks(blobs, "train", lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    edit_masks(blobs, "test", lambda mask: np.where(mask == 4, 0, mask).astype(np.uint8))
    outcome = validate(blobs, tmp_path)
    assert [one["found"] for one in outcome.of("untrained_class")] == [
        "class car is in no train image, but in other splits"
    ]
    assert [one["found"] for one in outcome.of("class_missing")] == [
        "class wall, common in train, is in no image of test"
    ]
    assert {one["severity"] for one in outcome.told["findings"]} == {"error"}


def test_class_that_a_small_split_lacks_by_chance_is_a_warning(tmp_path):
    blobs = make_blobs(tmp_path / "few", train=8, val=4, test=6)
    for split, wall, car in (("train", 4, 0), ("val", 0, 0), ("test", 0, 1)):  # images that keep the class
        for index, path in enumerate(sorted((blobs.root / "masks" / split).iterdir())):
            gone = [3] * (index >= car) + [4] * (index >= wall)
            mask = np.asarray(Image.open(path))
            Image.fromarray(np.where(np.isin(mask, gone), 0, mask).astype(np.uint8)).save(path)
    outcome = validate(blobs, tmp_path)
    assert outcome.told["passed"] and {one["found"] for one in outcome.of("class_absent")} == {
        "class car is in none of the 8 images of train",
        "class wall is in none of the 4 images of val",
        "class wall is in none of the 6 images of test",
    }


def test_rare_and_unused_classes(blobs, tmp_path):
    first = np.asarray(Image.open(blobs.mask("train/00")))

    def drop(mask):
        gone = (2,) if (mask == first).all() else (2, 3)
        return np.where(np.isin(mask, gone), 0, mask).astype(np.uint8)

    for split in ("train", "val", "test"):
        edit_masks(blobs, split, drop)
    outcome = validate(blobs, tmp_path)
    assert {(one["rule"], one["severity"]) for one in outcome.told["findings"]} >= {
        ("rare_class", "warning"),
        ("unused_class", "warning"),
        ("class_absent", "warning"),
    }
    assert outcome.of("unused_class")[0]["found"] == "class tree is in no image at all"
    assert outcome.of("rare_class")[0]["found"] == "class car is in 1 images of train"


def test_masks_counted_from_1_though_every_id_is_known(blobs, tmp_path):
    taxonomy = TAXONOMY | {"void": {"ids": [5], "colors": [[0, 0, 0]]}}
    (blobs.taxonomies / "blobs.yaml").write_text(yaml.safe_dump(taxonomy))
    for split in ("train", "val", "test"):
        edit_masks(blobs, split, lambda mask: mask + 1)
    outcome = validate(blobs, tmp_path)
    assert [(one["severity"], one["found"]) for one in outcome.of("one_based_ids")] == [
        ("error", "ids 1 to 5, and 0 in no mask: the masks seem to count classes from 1")
    ]


def test_masks_of_one_class_only(blobs, tmp_path):
    for index in range(20):
        write_sample(blobs, f"train/x{index}", 80_000 + index)
    edit_masks(blobs, "train", lambda mask: mask * 0)
    outcome = validate(blobs, tmp_path)
    assert len(outcome.of("single_class")) == 32
    assert outcome.of("mostly_single_class")[0]["severity"] == "error"


def test_drift_is_a_warning_with_a_figure_and_a_missing_map_an_error(blobs, tmp_path):
    source = make_blobs(tmp_path / "source", seed=50_000)
    for path in sorted((blobs.root / "images").rglob("*.png")):
        Image.fromarray(np.asarray(Image.open(path)) // 3).save(path)
    (blobs.taxonomies / "other.yaml").write_text(yaml.safe_dump(TAXONOMY | {"name": "other"}))
    outcome = validate(blobs, tmp_path, "data.source.taxonomy=other", source=source)
    (finding,) = outcome.of("unmapped_taxonomy")
    assert finding["dataset"] == "source" and "blobs.yaml: maps.other" in finding["found"]
    assert {one["severity"] for one in outcome.of("drift")} == {"warning"}
    found = {one["found"].partition(":")[0] for one in outcome.of("drift")}
    assert {"brightness", "contrast"} <= found
    (row,) = (row for row in outcome.told["drift"] if row["statistic"] == "brightness")
    assert row["source"] > 2 * row["target"] and row["deviations"] > 2
    assert sum(row["source_histogram"]) == pytest.approx(1, abs=0.01)
    page = (outcome.report / "index.html").read_text()
    assert page.count("<svg") == len(outcome.told["drift"]) == 5


def test_colour_masks(blobs, tmp_path):
    colors = np.array([*COLORS, (0, 0, 0)], np.uint8)
    for path in sorted((blobs.root / "masks").rglob("*.png")):
        Image.fromarray(colors[np.asarray(Image.open(path))]).save(path)
    paths = [blobs.mask(f"train/{index:02}") for index in range(5)]
    mask = Image.open(paths[0])
    small = mask.resize((64, 48), Image.Resampling.NEAREST)
    small.resize(mask.size, Image.Resampling.BILINEAR).save(paths[0])
    Image.fromarray(scene(1)[1]).save(paths[1])
    unknown = np.asarray(Image.open(paths[2])).copy()
    unknown[:10] = (1, 2, 3)
    Image.fromarray(unknown).save(paths[2])
    Image.open(paths[3]).quantize(16).save(paths[3])  # a palette that keeps the colours is legal
    outcome = validate(blobs, tmp_path, "data.target.folder.encoding=colors")
    assert rules(outcome) == {
        ("unknown_codes", "error", "masks/train/00.png"),
        ("ids_for_colors", "error", "masks/train/01.png"),
        ("unknown_codes", "error", "masks/train/02.png"),
    }
    smooth, odd = outcome.of("unknown_codes")
    assert "nearest" in smooth["remedy"] and "#010203 (10 %)" in odd["found"] and "void.colors" in odd["remedy"]


def test_what_the_source_has_to_do_with_the_target(blobs, tmp_path):
    """It may show what the target's train split lacks, and must not show what is tested."""
    source = make_blobs(tmp_path / "source", seed=50_000)
    for kind in ("image", "mask"):
        shutil.copyfile(getattr(source, kind)("train/00"), getattr(blobs, kind)("test/00"))
        shutil.copyfile(getattr(source, kind)("train/01"), getattr(blobs, kind)("train/01"))
        shutil.copyfile(getattr(source, kind)("test/02"), getattr(blobs, kind)("train/02"))
    edit_masks(blobs, "train", lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    outcome = validate(blobs, tmp_path, source=source)
    found = [(one["dataset"], one["rule"], one["severity"], one["file"]) for one in outcome.told["findings"]]
    assert found == [("target", "leak", "error", "images/test/00.png"), ("target", "class_absent", "warning", "")]


def test_empty_splits(blobs, tmp_path):
    for split in ("train", "test"):
        shutil.rmtree(blobs.root / "images" / split)
        shutil.rmtree(blobs.root / "masks" / split)
    found = validate(blobs, tmp_path).of("few_samples")
    assert [(one["severity"], one["found"]) for one in found] == [
        ("error", "0 samples in train"),
        ("error", "0 samples in test"),
    ]
    assert [one["remedy"].partition("; ")[2] for one in found] == [
        "add images to train",
        "add one, or set data.target.holdout to 0.1: the given val becomes test, and a new val is cut from train",
    ]


def target_of(**changes) -> Dataset:
    return load_params(PARAMS, [*FOLDER, *(f"data.target.{key}={value}" for key, value in changes.items())]).data.target


def more(tmp_path, split: str, counts: dict[str, int], **changes) -> str:
    """What few_samples advises for a split of a dataset with so many images in each folder."""
    for folder, count in counts.items():
        for index in range(count):
            path = tmp_path / f"images/{folder}/{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    knobs = load_params(
        PARAMS, [*FOLDER, *(f"data.target.{key}={value}" for key, value in changes.items())]
    ).data.target
    one = Given(tmp_path, knobs, Taxonomy.model_validate(TAXONOMY), list_samples(tmp_path, knobs), None)
    return f"{drawn(one)}; {more_samples('target', one, split)}"


ANY = {"folder.images": "images/**/*", "folder.masks": "masks/{dir}/{stem}.png"}


def test_what_to_do_about_a_small_split_depends_on_how_it_came_about(tmp_path):
    folders = more(tmp_path / "a", "test", {"steel": 6, "brass": 6}, **ANY, holdout=0.2)
    assert folders.startswith("drawn by folder: 2 groups, ") and "holdout 0.2 cuts val out of train" in folders
    advice = 'unless these are videos, patients or the like, set data.target.folder.group: ".+"'
    assert folders.endswith(f"there are only 2; {advice}, which draws each image by itself")
    alone = {"folder.group": ".+"}
    assert more(tmp_path / "a", "test", {}, **ANY, **alone) == (
        "drawn for each image by itself; splits are drawn by name, and there are only 12 images; add some, or give the "
        "splits in folders"
    )
    given_splits = {"train": 9}
    assert more(tmp_path / "b", "val", given_splits).endswith("set data.target.holdout to 0.1: val is cut from train")
    assert more(tmp_path / "b", "val", {}, holdout=0.01).endswith("raise data.target.holdout")
    assert more(tmp_path / "b", "test", {}, holdout=0.2).endswith("takes the given val for it, and none is given")
    assert more(tmp_path / "b", "train", {}, limit=3).endswith("raise data.target.limit, the label budget")
    assert more(tmp_path / "b", "train", {}).startswith("as the dataset gives them; add images")


def test_images_in_folders_that_are_only_an_order_can_be_drawn_one_by_one(tmp_path):
    more(tmp_path, "train", {f"f{index}": 20 for index in range(3)}, **ANY)
    knobs = target_of(**ANY)
    single = target_of(**ANY, **{"folder.group": ".+"})
    groups = [{sample.group for sample in list_samples(tmp_path, one).samples} for one in (knobs, single)]
    assert list(map(len, groups)) == [3, 60], "though names recur in every folder"
    assert {sample.split for sample in list_samples(tmp_path, single).samples} == {"train", "val", "test"}


def test_the_page_says_how_splits_came_about_and_sizes_as_width_and_height(blobs, tmp_path):
    outcome = validate(blobs, tmp_path)
    page = (outcome.report / "index.html").read_text()
    assert "<dd>As the dataset gives them</dd>" in page and "<dd>128×96 (24)</dd>" in page


@pytest.mark.parametrize("left", [0, 1])
def test_masks_that_nearly_all_lie_elsewhere_are_one_finding(blobs, tmp_path, left):
    for split in ("train", "val", "test"):
        for mask in (blobs.root / "masks" / split).iterdir():
            mask.rename(mask.with_name(f"{mask.stem}_mask.PNG"))
    if left:
        blobs.mask("val/00").with_name("00_mask.PNG").rename(blobs.mask("val/00"))
    outcome = validate(blobs, tmp_path)
    (finding,) = outcome.told["findings"]
    assert (finding["rule"], finding["severity"]) == ("misplaced_masks", "error")
    lost = "23 of 24 images have no mask at" if left else "no image has its mask at"
    assert finding["found"] == (
        f"{lost} folder.masks = masks/{{split}}/{{stem}}.png (for example images/train/00.png → masks/train/00.png); "
        "files there look like 00_mask.PNG"
    )
    assert finding["remedy"] == "change data.target.folder.masks, for example to masks/{split}/{stem}_mask.PNG"


def test_masks_without_a_folder_are_one_finding_that_says_what_is_there(blobs, tmp_path):
    (blobs.root / "masks").rename(blobs.root / "labels")
    (finding,) = validate(blobs, tmp_path).told["findings"]
    assert f"there is no such folder, only images, labels in {blobs.root}" in finding["found"]
    assert finding["remedy"].endswith("for example to labels/{split}/{stem}.png")


def test_a_few_masks_that_are_missing_are_named_one_by_one(blobs, tmp_path):
    for index in range(5):
        blobs.mask(f"train/{index:02}").unlink()
    outcome = validate(blobs, tmp_path)
    assert len(outcome.of("missing_file")) == 5 and not outcome.of("misplaced_masks")


def test_a_mask_whose_image_is_not_read_names_it(blobs, tmp_path):
    blobs.image("train/00").rename(blobs.image("train/00").with_suffix(".heic"))
    (finding,) = validate(blobs, tmp_path).told["findings"]
    assert finding["rule"] == "orphan_mask" and ".jfif" in finding["remedy"]
    assert finding["found"] == "a mask whose image, images/train/00.heic, has a suffix that is not read"


def test_the_report_survives_names_that_no_text_can_hold(blobs, tmp_path):
    blobs.mask("train/00").rename(blobs.mask("train/00").with_name("\udcff.png"))
    outcome = validate(blobs, tmp_path)
    assert [one["file"] for one in outcome.of("orphan_mask")] == ["masks/train/\\udcff.png"]
    (blobs.root / "images").rename(blobs.root / "\udcff")
    assert "found masks, \\udcff" in validate(blobs, tmp_path / "none").of("unlisted_dataset")[0]["found"]


def test_a_dataset_that_is_grey_is_one_warning_and_an_image_that_is_grey_is_one_too(blobs, tmp_path):
    def grey(count):
        for path in sorted((blobs.root / "images").rglob("*.png"))[:count]:
            Image.open(path).convert("L").save(path)

    grey(12)
    half = validate(blobs, tmp_path / "half")
    assert len(half.of("grey_image")) == 12 and not half.of("grey_dataset")
    grey(24)
    outcome = validate(blobs, tmp_path / "all")
    assert rules(outcome) == {("grey_dataset", "warning", "")}
    assert outcome.of("grey_dataset")[0]["found"] == "24 of 24 images have one channel"


def test_images_that_are_too_large_for_a_network_are_one_warning(blobs, tmp_path):
    for path, how in ((blobs.image("train/00"), Image.Resampling.BICUBIC), (blobs.mask("train/00"), 0)):
        Image.open(path).resize((3700, 2800), how).save(path)
    outcome = validate(blobs, tmp_path)
    (finding,) = outcome.of("large_image")
    assert finding["severity"] == "warning" and finding["file"] == ""
    assert "1 of 24 images have more than 10 megapixels, up to 3700×2800" in finding["found"]
    assert "augment.size, or evaluate.window" in finding["remedy"]
    assert outcome.told["warnings"] == 1 and not validate(blobs, tmp_path, "validate.strict=true").message, (
        "strict cannot see that a knob says what to do about it"
    )


def test_ids_that_are_scaled_are_unknown_and_nothing_else(blobs, tmp_path):
    for split in ("train", "val", "test"):
        edit_masks(blobs, split, lambda mask: (mask * 60).astype(np.uint8))
    outcome = validate(blobs, tmp_path)
    assert {one["rule"] for one in outcome.told["findings"]} == {"unknown_codes"}
    assert len(outcome.told["findings"]) == 24


def test_masks_of_other_images_and_transposed_ones(tmp_path):
    blobs = make_blobs(tmp_path / "many", train=60, seed=3000)
    wrong = {f"masks/train/{index:02}.png" for index in range(12)}
    for index in range(9):
        Image.fromarray(scene(90_000 + index)[1]).save(blobs.mask(f"train/{index:02}"))
    for index in range(9, 15):  # squares, where no size tells; the last three are as they should be
        for path in (blobs.image(f"train/{index:02}"), blobs.mask(f"train/{index:02}")):
            Image.open(path).crop((0, 0, 96, 96)).save(path)
        if index < 12:
            path = blobs.mask(f"train/{index:02}")
            Image.open(path).transpose(Image.Transpose.TRANSPOSE).save(path)
    outcome = validate(blobs, tmp_path)
    found = outcome.rules_by_file()
    assert set(found) <= wrong and len(found) >= 11
    assert {rule for rules in found.values() for rule in rules} <= {"foreign_mask", "shifted_mask"}
    assert outcome.told["passed"]


def test_images_that_differ_in_their_suffix_have_masks_of_their_own(blobs, tmp_path):
    """Where the mask is named by the whole name of the image."""
    for split in ("train", "val", "test"):
        for mask in (blobs.root / "masks" / split).iterdir():
            mask.rename(mask.with_name(f"{mask.stem}.png.png"))
    image, mask = scene(70_500)
    Image.fromarray(image).save(blobs.root / "images/train/00.bmp")
    Image.fromarray(mask).save(blobs.root / "masks/train/00.bmp.png")
    assert not validate(blobs, tmp_path, "data.target.folder.masks=masks/{split}/{name}.png").of("same_name")
    shutil.copyfile(blobs.root / "images/train/01.png", blobs.root / "images/train/01.bmp")
    shared = validate(blobs, tmp_path / "again", "data.target.folder.masks=masks/{split}/{stem}.png.png")
    assert [one["file"] for one in shared.of("same_name")]


def test_a_strip_is_a_finding_and_a_stray_taxonomy_is_told_before_augment(blobs, tmp_path):
    strip = np.zeros((2, 600), np.uint8)
    Image.fromarray(strip).convert("RGB").save(blobs.image("train/strip"))
    Image.fromarray(strip).save(blobs.mask("train/strip"))
    assert validate(blobs, tmp_path).of("small_image")
    (blobs.taxonomies / "._blobs.yaml").write_bytes(b"\x00\x05\x16\x07\xff")  # macOS leaves such beside every file
    assert validate(blobs, tmp_path).of("small_image")
    shutil.copyfile(blobs.taxonomies / "blobs.yaml", blobs.taxonomies / "old.yaml")
    with pytest.raises(UserError, match=r"old\.yaml: name: 'blobs' must be the file's own name"):
        run("validate", *given(blobs, tmp_path / "told"))
