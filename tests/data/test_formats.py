"""Every adapter keeps one contract on a tiny tree of its own layout; then what list_samples makes of a listing."""

import os
import random
import re
import typing
from collections import Counter
from pathlib import Path

import pytest

from segraft.data.formats import bucket, list_samples
from segraft.data.formats.camvid32 import segnet_split
from segraft.data.formats.folder import other_masks
from segraft.errors import UserError
from segraft.params import Dataset, FormatName, load_params

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def dataset(format: str, folder: dict | None = None, **changes) -> Dataset:
    base = PARAMS.data.target
    folder = base.folder.model_copy(update=folder or {})
    return base.model_copy(update={"format": format, "folder": folder, "include": ("*",), "holdout": 0.0} | changes)


def make(root: Path, *paths: str, text: str = "") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def listed(root: Path, format: str, folder: dict | None = None, **changes):
    return list_samples(root, dataset(format, folder, **changes)).samples


def splits(samples) -> dict[str, list[str]]:
    return {split: [s.id for s in samples if s.split == split] for split in ("train", "val", "test")}


# format → image → (mask, id, split, group, tags)
CITY = "gtFine/train/{0}/{0}_000001_000019_gtFine_labelIds.png"
TREES = {
    "cityscapes": {
        "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png": (
            CITY.format("aachen"), "aachen_000001_000019", "train", "aachen_000001", ()),
        "leftImg8bit/train/night/night_000001_000019_leftImg8bit.png": (
            CITY.format("night"), "night_000001_000019", "train", "night_000001", ("night",)),
        "leftImg8bit/test/night-rain/night-rain_000002_000019_leftImg8bit.png": (
            "gtFine/test/night-rain/night-rain_000002_000019_gtFine_labelIds.png",
            "night-rain_000002_000019", "test", "night-rain_000002", ("night", "rain")),
    },
    "acdc": {
        "rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png": (
            "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelTrainIds.png",
            "GOPR0475_frame_000041", "train", "GOPR0475", ("fog",)),
        "rgb_anon/night/val/GOPR0376/GOPR0376_frame_000001_rgb_anon.png": (
            "gt/night/val/GOPR0376/GOPR0376_frame_000001_gt_labelTrainIds.png",
            "GOPR0376_frame_000001", "val", "GOPR0376", ("night",)),
    },
    "bdd100k": {
        "images/10k/train/0004a4c0-d4dff0ad.jpg": (
            "labels/sem_seg/masks/train/0004a4c0-d4dff0ad.png", "0004a4c0-d4dff0ad", "train", "0004a4c0-d4dff0ad", ()),
        "images/10k/val/7d06fefd-f7be05a6.jpg": (
            "labels/sem_seg/masks/val/7d06fefd-f7be05a6.png", "7d06fefd-f7be05a6", "val", "7d06fefd-f7be05a6", ()),
    },
    "camvid": {
        "train/0006R0_f00930.png": ("trainannot/0006R0_f00930.png", "0006R0_f00930", "train", "0006R0", ("clear",)),
        "test/0001TP_008550.jpg": ("testannot/0001TP_008550.png", "0001TP_008550", "test", "0001TP", ("dusk",)),
    },
    "camvid32": {
        f"701_StillsRaw_full/{name}.png": (f"LabeledApproved_full/{name}_L.png", name, split, name[:6], tags)
        for name, split, tags in (
            ("0001TP_008520", "train", ("dusk",)), ("0001TP_008550", "test", ("dusk",)),
            ("0016E5_08159", "val", ("clear",)), ("0016E5_08640", "train", ("clear",)),
        )
    },
    "voc": {
        f"JPEGImages/{name}.jpg": (f"SegmentationClass/{name}.png", name, split, name, ())
        for name, split in (("2007_000032", "train"), ("2007_000033", "val"))
    },
    "ade20k": {
        "images/training/ADE_train_00000001.jpg": (
            "annotations/training/ADE_train_00000001.png", "ADE_train_00000001", "train", "ADE_train_00000001", ()),
        "images/validation/ADE_val_00000001.jpg": (
            "annotations/validation/ADE_val_00000001.png", "ADE_val_00000001", "val", "ADE_val_00000001", ()),
    },
    "cocostuff": {
        f"images/{split}2017/{name}.jpg": (f"stuffthingmaps/{split}2017/{name}.png", name, split, name, ())
        for name, split in (("000000000009", "train"), ("000000000139", "val"))
    },
    "pets": {
        f"images/{name}.jpg": (f"annotations/trimaps/{name}.png", name, split, name, ())
        for name, split in (("Abyssinian_100", "train"), ("Abyssinian_201", "test"))
    },
    "folder": {
        f"images/{split}/{name}.jpg": (f"masks/{split}/{name}.png", name, split, name, ())
        for name, split in (("a", "train"), ("b c", "val"), ("d[1]", "test"))
    },
}  # fmt: skip
LISTS = {
    "voc": {"ImageSets/Segmentation/train.txt": "2007_000032\n", "ImageSets/Segmentation/val.txt": "2007_000033\n"},
    "pets": {"annotations/trainval.txt": "Abyssinian_100 1 1 1\n", "annotations/test.txt": "Abyssinian_201 1 1 1\n"},
}
ENCODINGS = {"acdc": "trainIds", "bdd100k": "trainIds", "camvid32": "colors"}


def build(root: Path, format: str) -> Path:
    for image, (mask, *_) in TREES[format].items():
        make(root, image, mask)
    for path, text in LISTS.get(format, {}).items():
        make(root, path, text=text)
    return root


def test_every_format_has_a_tree():
    assert {*TREES, "none", "joint"} == set(typing.get_args(FormatName)), "a joint source is several of the others"


@pytest.mark.parametrize("format", TREES)
class TestAdapter:
    def test_lists_what_is_there(self, tmp_path, format):
        listing = list_samples(build(tmp_path, format), dataset(format))
        found = {s.image: (s.mask, s.id, s.split, s.group, s.tags) for s in listing.samples}
        assert found == TREES[format]
        assert listing.orphans == ()
        assert listing.encoding == ENCODINGS.get(format, "ids")

    def test_order_is_split_then_id(self, tmp_path, format):
        samples = listed(build(tmp_path, format), format)
        order = ["train", "val", "test"]
        assert list(samples) == sorted(samples, key=lambda s: (order.index(s.split), s.id))

    def test_mask_without_image_is_an_orphan(self, tmp_path, format):
        build(tmp_path, format)
        mask = Path(next(iter(TREES[format].values()))[0])
        stranger = str(mask.with_name(f"zz{mask.name}"))
        make(tmp_path, stranger)
        assert list_samples(tmp_path, dataset(format)).orphans == (stranger,)

    def test_image_without_mask_is_listed(self, tmp_path, format):
        build(tmp_path, format)
        image, (mask, *_) = next(iter(TREES[format].items()))
        (tmp_path / mask).unlink()
        assert (image, mask) in {(s.image, s.mask) for s in listed(tmp_path, format)}

    def test_hidden_files_are_passed_over(self, tmp_path, format):
        build(tmp_path, format)
        for image, (mask, *_) in TREES[format].items():
            for path in map(Path, (image, mask)):
                make(tmp_path, str(path.with_name(f"._{path.name}")))
        listing = list_samples(tmp_path, dataset(format))
        assert len(listing.samples) == len(TREES[format])
        assert listing.orphans == ()

    @pytest.mark.timeout(20)
    def test_opens_no_image(self, tmp_path, format):
        build(tmp_path, format)
        for image, (mask, *_) in TREES[format].items():
            for path in (tmp_path / image, tmp_path / mask):
                path.unlink()
                os.mkfifo(path)  # to open one would wait for ever
        assert len(listed(tmp_path, format)) == len(TREES[format])

    def test_wrong_folder_is_explained(self, tmp_path, format):
        make(tmp_path, "elsewhere/x.jpg")
        with pytest.raises(UserError, match=r"no images of format .*; expected .*; found elsewhere"):
            listed(tmp_path, format)


def test_cityscapes_hidden_test_is_left_out(tmp_path):
    build(tmp_path, "cityscapes")
    make(tmp_path, "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png")
    make(tmp_path, "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png")
    make(tmp_path, "gtFine/test/bonn/bonn_000000_000019_gtFine_labelIds.png")
    listing = list_samples(tmp_path, dataset("cityscapes"))
    assert {s.image for s in listing.samples} == set(TREES["cityscapes"])
    assert listing.orphans == ()


@pytest.mark.parametrize(
    ("format", "image"),
    [
        ("acdc", "rgb_anon/fog/test/G1/G1_frame_000001_rgb_anon.png"),
        ("bdd100k", "images/10k/test/x-y.jpg"),
        ("cityscapes", "leftImg8bit/test/ulm/ulm_000000_000019_leftImg8bit.png"),
    ],
)
def test_unlabelled_test_is_left_out(tmp_path, format, image):
    tree = {path: facts for path, facts in TREES[format].items() if facts[2] != "test"}
    for path, (mask, *_) in tree.items():
        make(tmp_path, path, mask)
    make(tmp_path, image)
    assert {s.image for s in listed(tmp_path, format)} == set(tree)


def test_acdc_label_ids_where_there_are_no_train_ids(tmp_path):
    for image, (mask, *_) in TREES["acdc"].items():
        make(tmp_path, image, mask.replace("labelTrainIds", "labelIds"))
    listing = list_samples(tmp_path, dataset("acdc"))
    assert listing.encoding == "ids"
    assert all((tmp_path / s.mask).exists() for s in listing.samples)


def test_camvid32_has_the_split_of_segnet(camvid):
    samples = listed(camvid, "camvid")
    assert Counter(s.split for s in samples) == {"train": 367, "val": 101, "test": 233}
    assert all(segnet_split(s.id) == s.split for s in samples)


def test_voc_takes_sbd_when_it_is_there(tmp_path):
    build(tmp_path, "voc")
    make(tmp_path, "JPEGImages/2008_000008.jpg", "SegmentationClassAug/2008_000008.png")
    make(tmp_path, "SegmentationClassAug/2007_000032.png", "SegmentationClassAug/2009_000009.png")
    make(tmp_path, "ImageSets/Segmentation/trainaug.txt", text="2007_000032\n2008_000008\n")
    listing = list_samples(tmp_path, dataset("voc"))
    assert [(s.split, s.mask) for s in listing.samples] == [
        ("train", "SegmentationClassAug/2007_000032.png"),
        ("train", "SegmentationClassAug/2008_000008.png"),
        ("val", "SegmentationClass/2007_000033.png"),
    ]
    assert listing.orphans == ("SegmentationClassAug/2009_000009.png",)


def test_voc_test_only_where_it_has_masks(tmp_path):
    build(tmp_path, "voc")
    make(tmp_path, "JPEGImages/2007_1.jpg", "JPEGImages/2008_1.jpg", "SegmentationClass/2007_1.png")
    make(tmp_path, "ImageSets/Segmentation/test.txt", text="2007_1\n2008_1\n")
    assert splits(listed(tmp_path, "voc"))["test"] == ["2007_1"]


def test_cocostuff_masks_may_lie_in_annotations(tmp_path):
    build(tmp_path, "cocostuff")
    (tmp_path / "stuffthingmaps").rename(tmp_path / "annotations")
    assert all((tmp_path / s.mask).exists() for s in listed(tmp_path, "cocostuff"))


def test_split_file_cannot_lead_out(tmp_path):
    build(tmp_path, "voc")
    make(tmp_path, "ImageSets/Segmentation/val.txt", text="../../etc/passwd\n")
    with pytest.raises(UserError, match=r"val.txt: ../../etc/passwd: leads out"):
        listed(tmp_path, "voc")


class TestFolder:
    def test_nested(self, tmp_path):
        make(tmp_path, "images/train/drive1/1.jpg", "images/train/2.jpg", "labels/train/drive1/1_m.png")
        folder = {"images": "images/{split}/**/*.jpg", "masks": "labels/{split}/{dir}/{stem}_m.png"}
        listing = list_samples(tmp_path, dataset("folder", folder))
        found = {s.id: (s.image, s.mask, s.group) for s in listing.samples}
        assert found == {
            "2": ("images/train/2.jpg", "labels/train/2_m.png", "2"),
            "drive1_1": ("images/train/drive1/1.jpg", "labels/train/drive1/1_m.png", "drive1"),
        }
        make(tmp_path, "labels/train/drive2/9_m.png", "labels/train/drive2/readme.txt")
        assert list_samples(tmp_path, dataset("folder", folder)).orphans == ("labels/train/drive2/9_m.png",)

    def test_patterns_may_begin_at_the_folder_itself(self, tmp_path):
        make(tmp_path, "images/train/1.jpg", "masks/train/1.png", "masks/train/2.png")
        folder = {"images": "./images/{split}/*", "masks": "./masks/{split}//{stem}.png"}
        listing = list_samples(tmp_path, dataset("folder", folder))
        assert [(s.image, s.mask) for s in listing.samples] == [("images/train/1.jpg", "masks/train/1.png")]
        assert listing.orphans == ("masks/train/2.png",)

    def test_masks_beside_images(self, tmp_path):
        make(tmp_path, "all/a.png", "all/a_mask.png", "all/b.png", "all/b_mask.png", "all/notes.txt")
        listing = list_samples(tmp_path, dataset("folder", {"images": "all/*", "masks": "all/{stem}_mask.png"}))
        assert {(s.image, s.mask) for s in listing.samples} == {
            ("all/a.png", "all/a_mask.png"),
            ("all/b.png", "all/b_mask.png"),
        }
        assert listing.orphans == ()

    def test_split_files_of_which_none_is_there_are_named(self, tmp_path):
        make(tmp_path, "i/a.jpg", "m/a.png", "splits/train.txt")
        folder = {"images": "i/*", "masks": "m/{stem}.png", "split_files": "split/{split}.txt"}
        with pytest.raises(UserError, match=r"split_files: split/\{split\}.txt: none of split/train.txt, split/val"):
            listed(tmp_path, "folder", folder)

    def test_split_files(self, tmp_path):
        make(tmp_path, *(f"i/{name}" for name in ("a.jpg", "b b.jpg", "c.png", "unused.png")))
        make(tmp_path, "s/train.txt", text="a\nb b\n\n")
        make(tmp_path, "s/test.txt", text="c.png\n")
        folder = {"images": "i/*", "masks": "m/{name}.png", "split_files": "s/{split}.txt"}
        samples = listed(tmp_path, "folder", folder)
        assert splits(samples) == {"train": ["a", "b b"], "val": [], "test": ["c"]}
        assert samples[0].mask == "m/a.jpg.png"
        make(tmp_path, "s/val.txt", text="a\nx\ny\n")
        with pytest.raises(UserError, match=r"s/val.txt: 2 names match no image of folder.images: x, y"):
            listed(tmp_path, "folder", folder)

    def test_split_files_name_each_image_once(self, tmp_path):
        make(tmp_path, "i/a/0.jpg", "i/b/0.jpg", "i/b/1.jpg", "i/2.jpg")
        make(tmp_path, "s/train.txt", text="a/0\nb/0\n1\n1\nb/1.jpg\n")
        folder = {"images": "i/**/*", "masks": "m/{dir}/{stem}.png", "split_files": "s/{split}.txt"}
        assert [s.image for s in listed(tmp_path, "folder", folder)] == ["i/a/0.jpg", "i/b/0.jpg", "i/b/1.jpg"]
        make(tmp_path, "s/val.txt", text="0\n")
        with pytest.raises(UserError, match=r"s/val.txt: 0 is i/a/0.jpg or i/b/0.jpg; name its folder, too"):
            listed(tmp_path, "folder", folder)

    def test_suffixes_count_in_any_case(self, tmp_path):
        make(tmp_path, "i/a.JPG", "i/b.jpg", "m/a.PNG", "m/b.png")
        listing = list_samples(tmp_path, dataset("folder", {"images": "i/*.jpg", "masks": "m/{stem}.png"}))
        assert {s.image for s in listing.samples} == {"i/a.JPG", "i/b.jpg"}
        assert listing.orphans == ("m/a.PNG",), "so that validate can say what is there instead"

    def test_split_files_may_leave_images_out_and_begin_with_a_byte_order_mark(self, tmp_path):
        make(tmp_path, *(f"{folder}/{name}.png" for folder in "im" for name in "abc"), "m/d.png")
        make(tmp_path, "s/train.txt", text="\ufeffa\nb\n")
        folder = {"images": "i/*", "masks": "m/{stem}.png", "split_files": "s/{split}.txt"}
        listing = list_samples(tmp_path, dataset("folder", folder))
        assert [sample.id for sample in listing.samples] == ["a", "b"] and listing.orphans == ("m/d.png",)

    def test_drawn_split_keeps_groups_whole_and_never_moves(self, tmp_path):
        make(tmp_path, *(f"i/v{video:03}_{frame}.jpg" for video in range(300) for frame in range(3)))
        folder = {"images": "i/*", "masks": "m/{stem}.png", "group": "^(v[0-9]+)_"}
        samples = listed(tmp_path, "folder", folder)
        split_of = {}
        for s in samples:
            assert s.group == s.id[:4]
            assert split_of.setdefault(s.group, s.split) == s.split
        shares = Counter(split_of.values())
        assert shares["train"] == pytest.approx(210, abs=25)
        assert shares["val"] == pytest.approx(45, abs=20)
        for path in random.Random(0).sample(sorted((tmp_path / "i").iterdir()), 400):
            path.unlink()
        assert all(split_of[s.group] == s.split for s in listed(tmp_path, "folder", folder))

    @pytest.mark.parametrize(
        ("image", "pattern", "cause"),
        [
            ("images/train/a b/1.jpg", "images/{split}/*", r"1 image files lie deeper, .*/a b/1.jpg: use .*/\*\*/\*$"),
            ("images/1.jpg", "images/{split}/*", r"lie in no folder of a split, .* images/1.jpg: use images/\*$"),
            ("images/val/1.jpg", "images/*", r"lie in a folder for each split, .*: use images/{split}/\*$"),
            ("images/train/1.heic", "images/{split}/*", r"1 files match but end in .heic; read are .jpg, .*\.jfif"),
        ],
    )  # fmt: skip
    def test_why_a_pattern_finds_no_image(self, tmp_path, image, pattern, cause):
        make(tmp_path, image)
        expected = rf"expected {re.escape(pattern)} \(folder.images\); found images; .*{cause}"
        with pytest.raises(UserError, match=expected):
            listed(tmp_path, "folder", {"images": pattern})

    def test_images_that_no_split_file_names_are_counted(self, tmp_path):
        make(tmp_path, "i/a.jpg", "s/train.txt")
        with pytest.raises(UserError, match="found i, s; 1 images match, but each is a mask or in no split file"):
            listed(tmp_path, "folder", {"images": "i/*", "masks": "m/{stem}.png", "split_files": "s/{split}.txt"})

    def test_a_mask_of_an_image_that_is_not_read_names_it(self, tmp_path):
        make(tmp_path, *(f"images/train/{name}" for name in ("a.jfif", "b.gif", "c.heic", "notes.txt")))
        make(tmp_path, *(f"masks/train/{name}.png" for name in "abcd"))
        listing = list_samples(tmp_path, dataset("folder"))
        assert [sample.id for sample in listing.samples] == ["a", "b"]
        assert listing.orphans == ("masks/train/c.png", "masks/train/d.png")
        assert listing.unread["masks/train/c.png"] == "images/train/c.heic"
        assert "masks/train/d.png" not in listing.unread

    @pytest.mark.parametrize(
        ("masks", "images", "found"),
        [
            ("labels/train/{}_m.PNG", "images/{{split}}/*", "labels/{split}/{stem}_m.PNG"),
            ("masks/train/line 1/{}.png", "images/{{split}}/**/*", "masks/{split}/{dir}/{stem}.png"),
            ("masks/train/x.png", "images/{{split}}/*", None),
        ],
    )
    def test_a_pattern_that_leads_to_the_masks(self, tmp_path, masks, images, found):
        below = "line 1/" if "**" in images else ""
        for name in ("7", "17", "27"):
            make(tmp_path, f"images/train/{below}{name}.jpg", masks.format(name), f"labels/{name}.json")
        folder = PARAMS.data.target.folder.model_copy(update={"images": images.format(), "masks": "masks/{name}.png"})
        assert other_masks(tmp_path, folder) == found

    @pytest.mark.parametrize(
        ("knobs", "complaint"),
        [
            ({"images": "../x/*.jpg"}, "folder.images: ../x/\\*.jpg: leads out"),
            ({"masks": "/etc/{stem}.png"}, "folder.masks: .*leads out"),
            ({"masks": "m/{stm}.png"}, r"unknown \['stm'\]"),
            ({"masks": "m/mask.png"}, "all images share one mask"),
            ({"split_files": "{split}.txt"}, "both name the splits"),
            ({"group": "(unclosed"}, "not a regular expression"),
        ],
    )
    def test_bad_knobs(self, tmp_path, knobs, complaint):
        make(tmp_path, "images/train/a.jpg")
        with pytest.raises(UserError, match=complaint):
            listed(tmp_path, "folder", knobs)

    def test_names_that_clash_survive(self, tmp_path):
        make(tmp_path, "images/train/c2.png", "images/train/C2.png", "images/train/c2.jpg", "images/val/c2.png")
        samples = listed(tmp_path, "folder")
        assert len({s.id for s in samples}) == 4
        assert {s.id: s.image for s in samples} == {
            "C2": "images/train/C2.png",
            "c2@train.png": "images/train/c2.png",
            "c2@train.jpg": "images/train/c2.jpg",
            "c2@val": "images/val/c2.png",
        }

    def test_listed_in_two_splits_survives(self, tmp_path):
        make(tmp_path, "i/a.png")
        make(tmp_path, "s/train.txt", text="a\n")
        make(tmp_path, "s/val.txt", text="a\n")
        folder = {"images": "i/*", "masks": "m/{name}", "split_files": "s/{split}.txt"}
        assert len({s.id for s in listed(tmp_path, "folder", folder)}) == 2

    def test_links_are_followed_but_not_in_circles(self, tmp_path):
        make(tmp_path, "images/train/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
        (tmp_path / "images/train/link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "images/train/broken.jpg").symlink_to("nowhere")
        samples = listed(tmp_path, "folder", {"images": "images/{split}/**/*.jpg"})
        images = {s.image for s in samples}
        assert {"images/train/broken.jpg", "images/train/link/b.jpg", "images/train/link/deep/c.jpg"} < images
        assert len(samples) < 10

    def test_links_to_themselves_are_listed_as_files(self, tmp_path):
        make(tmp_path, "images/train/a.jpg", "masks/train/a.png")
        for circle in ("images/train/b.jpg", "masks/train/c.png"):
            (tmp_path / circle).symlink_to(tmp_path / circle)
        listing = list_samples(tmp_path, dataset("folder", {"images": "images/{split}/*"}))
        assert [s.image for s in listing.samples] == ["images/train/a.jpg", "images/train/b.jpg"]
        assert listing.orphans == ("masks/train/c.png",)

    @pytest.mark.parametrize("circle", ["images", "split"])
    def test_a_link_to_itself_in_place_of_a_folder_or_a_split_file_is_explained(self, tmp_path, circle):
        (tmp_path / circle).symlink_to(circle)
        folder = {"images": "images/*", "masks": "masks/{name}", "split_files": circle if circle == "split" else None}
        with pytest.raises(UserError, match=f"{circle}: Too many levels of symbolic links"):
            listed(tmp_path, "folder", folder)


class TestListSamples:
    def video(self, tmp_path, **counts):
        """CamVid's layout: split → frames of one sequence each, numbered on."""
        for split, count in counts.items():
            make(tmp_path, *(f"{split}/{split.upper()}_{i}.png" for i in range(count)))
        return tmp_path

    def test_none_is_no_dataset(self, tmp_path):
        assert list_samples(tmp_path / "nowhere", dataset("none")).samples == ()

    def test_include(self, tmp_path):
        root = self.video(tmp_path, train=3, val=2)
        make(root, "valannot/x.txt")
        assert splits(listed(root, "camvid", include=("VAL_*", "*_1"))) == {
            "train": ["TRAIN_1"], "val": ["VAL_0", "VAL_1"], "test": []}  # fmt: skip
        with pytest.raises(UserError, match=r"5 images, but include=\['night_\*'\] matches none; .* such as TRAIN_0"):
            listed(root, "camvid", include=("night_*",))

    def test_holdout_takes_the_end_of_a_sequence(self, tmp_path):
        root = self.video(tmp_path, train=20)
        make(root, "test/T_0.png", "testannot/T_0.png")
        found = splits(listed(root, "camvid", holdout=0.25))
        assert len(found["val"]) in (5, 6)
        cut = 20 - len(found["val"])
        assert sorted(found["train"]) == sorted(f"TRAIN_{i}" for i in range(cut))
        assert found["test"] == ["T_0"]

    def test_holdout_with_a_test_joins_the_given_val_to_train(self, tmp_path):
        root = self.video(tmp_path, train=20, val=20)
        make(root, "test/T_0.png", "testannot/T_0.png")
        found = splits(listed(root, "camvid", holdout=0.25))
        assert {name.split("_")[0] for name in found["train"]} == {"TRAIN", "VAL"}
        assert {name.split("_")[0] for name in found["val"]} == {"TRAIN", "VAL"}
        assert sum(map(len, found.values())) == 41

    def test_holdout_without_a_test_makes_the_given_val_it(self, tmp_path):
        found = splits(listed(self.video(tmp_path, train=20, val=3), "camvid", holdout=0.25))
        assert found["test"] == ["VAL_0", "VAL_1", "VAL_2"]
        assert found["val"] and all(name.startswith("TRAIN") for name in found["val"])

    def test_holdout_draws_among_images_that_stand_alone(self, tmp_path):
        make(tmp_path, *(f"images/train/{i}.jpg" for i in range(1000)))
        val = set(splits(listed(tmp_path, "folder", holdout=0.2))["val"])
        assert len(val) == pytest.approx(200, abs=40)
        assert val > set(splits(listed(tmp_path, "folder", holdout=0.1))["val"])

    def test_limit_is_spread_over_train_alone(self, tmp_path):
        make(tmp_path, *(f"images/train/{i:02}.jpg" for i in range(20)), "images/val/v.jpg")
        found = splits(listed(tmp_path, "folder", limit=4))
        assert found == {"train": ["00", "05", "10", "15"], "val": ["v"], "test": []}

    def test_bucket_is_the_same_for_ever(self):
        assert bucket("a") == pytest.approx(0xCA978112CA1BBD / 2**56)  # the sha256 of "a" begins so
        assert 0 <= bucket("\udc80") < 1
