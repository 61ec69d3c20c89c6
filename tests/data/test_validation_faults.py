"""Every fault is put into a sample of its own of one dataset; one run must name them all, and nothing else."""

import json
import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from tests.data import faults as f
from tests.data.blobs import make_blobs
from tests.data.validation_run import validate

E, W = "error", "warning"


@dataclass(frozen=True)
class Case:
    """A fault, what is to be found of the sample's mask and image, and a word of the remedy or of what was found."""

    inject: f.Inject
    mask: dict[str, str] = field(default_factory=dict)
    image: dict[str, str] = field(default_factory=dict)
    says: str = ""
    split: str = "train"
    suffix: str = ".png"


CASES = {
    # files
    "missing mask": Case(f.replace_file(lambda path: None, mask=True), mask={"missing_file": E}, says="no such file"),
    "empty image": Case(f.rewrite(lambda data: b""), image={"empty_file": E}, says="0 bytes"),
    "empty mask": Case(f.rewrite(lambda data: b"", mask=True), mask={"empty_file": E}),
    "truncated png": Case(f.rewrite(lambda data: data[: len(data) // 2]), image={"undecodable_file": E}),
    "truncated mask": Case(f.rewrite(lambda data: data[:-40], mask=True), mask={"undecodable_file": E}),
    "truncated jpeg": Case(
        f.both(f.change_image(lambda image: image, format="JPEG"), f.rewrite(lambda data: data[: len(data) // 2])),
        image={"undecodable_file": E, "wrong_suffix": W},
    ),
    "flipped byte": Case(
        f.rewrite(lambda data: data[:2000] + bytes([data[2000] ^ 255]) + data[2001:]), image={"undecodable_file": E}
    ),
    "web page": Case(f.rewrite(lambda data: b"<!doctype html><p>404"), image={"undecodable_file": E}, says="doctype"),
    "eps": Case(f.rewrite(lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n"), image={"undecodable_file": E}),
    "jpeg named png": Case(f.change_image(lambda image: image, format="JPEG", quality=95), image={"wrong_suffix": W}),
    "bomb": Case(f.rewrite(lambda data: f.bomb(30000, 30000)), image={"too_many_pixels": E}, says="max_pixels"),
    "bomb under Pillow's limit": Case(f.rewrite(lambda data: f.bomb(13000, 13000)), image={"too_many_pixels": E}),
    "mask bomb": Case(f.rewrite(lambda data: f.bomb(30000, 30000), mask=True), mask={"too_many_pixels": E}),
    "huge file": Case(f.replace_file(f.sparse), image={"oversized_file": E}),
    "link to a system file": Case(
        f.replace_file(lambda path: path.symlink_to("/etc/passwd")), image={"outside_root": E}, says="/etc/passwd"
    ),
    "link to an image outside": Case(f.replace_file(f.link_outside), image={"outside_root": E}),
    "dangling link": Case(f.replace_file(lambda path: path.symlink_to("nowhere")), image={"missing_file": E}),
    "pipe": Case(f.replace_file(lambda path: os.mkfifo(path)), image={"special_file": E}, says="pipe"),
    "pipe for a mask": Case(f.replace_file(lambda path: os.mkfifo(path), mask=True), mask={"special_file": E}),
    "socket": Case(f.replace_file(f.bind_socket), image={"special_file": E}, says="socket"),
    "folder for a mask": Case(f.replace_file(lambda path: path.mkdir(), mask=True), mask={"special_file": E}),
    "several frames (tiff)": Case(f.several_frames, image={"several_frames": E}, suffix=".tif"),
    "several frames (gif)": Case(f.animated_gif, image={"several_frames": E}),
    # images
    "16-bit grey": Case(
        f.change_image(lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)),
        image={"image_depth": E},
        says="16 bits",
    ),
    "16-bit rgb": Case(f.deep_rgb, image={"image_depth": E}),
    "float with nan": Case(
        f.change_image(f.not_a_number, format="TIFF"), image={"image_depth": E, "wrong_suffix": W}, says="3 of them NaN"
    ),
    "grey": Case(f.change_image(lambda image: image.convert("L")), image={"grey_image": W}),
    "grey and opaque": Case(f.change_image(lambda image: image.convert("LA")), image={"grey_image": W}),
    "grey and transparent": Case(
        f.change_image(lambda image: f.with_alpha(0)(image).convert("LA")), image={"transparent_image": E}
    ),
    "cmyk": Case(
        f.change_image(lambda image: image.convert("CMYK"), format="JPEG"),
        image={"image_colors": E, "wrong_suffix": W},
        says="CMYK",
    ),
    "opaque alpha": Case(f.change_image(f.with_alpha(255)), image={"opaque_alpha": W}),
    "transparent": Case(f.change_image(f.with_alpha(0)), image={"transparent_image": E}, says="from 0 to 255"),
    "palette": Case(f.change_image(lambda image: image.quantize(250)), image={"palette_image": W}),
    "one pixel": Case(
        f.both(
            f.change_image(lambda image: image.resize((1, 1))), f.change_mask(lambda mask: np.zeros((1, 1), np.uint8))
        ),
        image={"small_image": E, "constant_image": E},
        mask={"single_class": W},
    ),
    "black": Case(f.change_image(lambda image: Image.new("RGB", image.size)), image={"constant_image": E}),
    "bgr": Case(
        f.change_image(lambda image: Image.fromarray(np.asarray(image)[..., ::-1].copy())),
        image={"channel_order": W},
        says="BGR",
    ),
    # masks
    "bilinear": Case(f.change_mask(f.bilinear), mask={"interpolated_mask": E}, says="nearest"),
    "bilinear with 255": Case(
        f.change_mask(lambda mask: f.bilinear(f.with_value(255, 0.3)(mask))),
        mask={"unknown_codes": E, "interpolated_mask": E},
        says="nearest",
    ),
    "through jpeg": Case(
        f.change_mask(f.through_jpeg), mask={"unknown_codes": E, "interpolated_mask": E}, says="nearest"
    ),
    "jpeg": Case(
        f.both(f.change_mask(lambda mask: mask, format="JPEG")), mask={"lossy_mask": E, "wrong_suffix": W}, says="PNG"
    ),
    "colours": Case(f.change_mask(f.colored), mask={"colors_for_ids": E}, says="encoding: colors"),
    "ids saved as rgb": Case(
        f.change_mask(lambda mask: np.dstack([mask] * 3)), mask={"colors_for_ids": E}, says="three equal channels"
    ),
    "grey levels of colours": Case(
        f.change_mask(lambda mask: Image.fromarray(f.colored(mask)).convert("L")),
        mask={"unknown_codes": E},
        says="grey levels",
    ),
    "void stored as 11": Case(f.change_mask(f.with_value(11)), mask={"unknown_codes": E}, says="void: {ids: [11]}"),
    "counted from 1": Case(
        f.change_mask(lambda mask: mask + 1), mask={"unknown_codes": E}, says="count classes from 1"
    ),
    "id out of range": Case(f.change_mask(f.with_value(77)), mask={"unknown_codes": E}, says="77 (9.4 %)"),
    "two unknown ids": Case(
        f.change_mask(lambda mask: f.with_value(9, 0.1)(f.with_value(77, 0.2)(mask))),
        mask={"unknown_codes": E},
        says="as a class's ids",
    ),
    "0 and 255": Case(
        f.change_mask(lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8)),
        mask={"background_and_void": W, "single_class": W},
        says="255",
    ),
    "alpha": Case(
        f.change_mask(lambda mask: Image.fromarray(mask).convert("LA")), mask={"alpha_mask": E}, says="alpha"
    ),
    "colours and alpha": Case(
        f.change_mask(lambda mask: Image.fromarray(f.colored(mask)).convert("RGBA")), mask={"alpha_mask": E}
    ),
    "float ids": Case(
        f.change_mask(lambda mask: Image.fromarray(mask.astype(np.float32)), format="TIFF"),
        mask={"mask_depth": E, "wrong_suffix": W},
    ),
    "4-bit ids": Case(f.change_mask(lambda mask: mask * 17, bits=4), mask={"mask_depth": E}),
    "turned by exif": Case(f.exif_in_mask, mask={"undecodable_file": E}, says="EXIF"),
    "smaller": Case(
        f.change_mask(lambda mask: Image.fromarray(mask).resize((64, 48), Image.Resampling.NEAREST)),
        mask={"size_mismatch": E},
        says="64×48 pixels, its image 128×96",
    ),
    "transposed": Case(f.change_mask(lambda mask: mask.T.copy()), mask={"size_mismatch": E}, says="exchanged"),
    "shifted": Case(f.change_mask(lambda mask: np.roll(mask, 8, 1)), mask={"shifted_mask": W}, says="-8 px across"),
    "all void in train": Case(f.change_mask(lambda mask: np.full_like(mask, 255)), mask={"void_mask": E}),
    "all void in val": Case(
        f.change_mask(lambda mask: np.full_like(mask, 255)), mask={"void_mask_heldout": W}, split="val"
    ),
    "mostly void": Case(f.change_mask(f.with_value(255, 0.8)), mask={"much_void": W}, says="79%"),
    "background only": Case(f.change_mask(lambda mask: mask * 0), mask={"single_class": W}),
    # legal variants
    "legal: as it is": Case(lambda blobs, sample: None),
    "legal: palette indices": Case(f.change_mask(f.palette_mask)),
    "legal: 16-bit ids": Case(f.change_mask(lambda mask: mask.astype(np.uint16))),
    "legal: some void": Case(f.change_mask(f.with_value(255, 0.1))),
    "legal: exif rotation": Case(f.rotated_by_exif),
    "legal: square": Case(lambda b, s: f.square(b, s, False)),
    "legal: two classes": Case(f.change_mask(lambda mask: mask)),
    "legal: link within": Case(
        lambda b, s: (b.image(s).rename(b.root / f"{b.image(s).name}"), b.image(s).symlink_to(b.root / b.image(s).name))
    ),
    "legal: mask resized by nearest": Case(
        lambda b, s: [
            Image.open(path).resize((200, 150), how).save(path)
            for path, how in ((b.image(s), Image.Resampling.BICUBIC), (b.mask(s), Image.Resampling.NEAREST))
        ]
    ),
    "legal: val": Case(lambda blobs, sample: None, split="val"),
    "link to itself": Case(
        f.replace_file(lambda path: path.symlink_to(path.name)), image={"unreadable_file": E}, says="symbolic links"
    ),
    "mask that links to itself": Case(
        f.replace_file(lambda path: path.symlink_to(path.name), mask=True), mask={"unreadable_file": E}
    ),
}
CLEAN = 40


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    blobs = make_blobs(folder, train=len(CASES) + CLEAN, val=len(CASES) + 10, test=10)
    for index, case in enumerate(CASES.values()):
        case.inject(blobs, f"{case.split}/{index:02}")
    return validate(blobs, folder / "out")


@pytest.mark.parametrize("name", CASES)
def test_fault_is_found_and_nothing_else(outcome, name):
    case, index = CASES[name], list(CASES).index(name)
    found = outcome.rules_by_file()
    files = {
        f"images/{case.split}/{index:02}{case.suffix}": case.image,
        f"masks/{case.split}/{index:02}.png": case.mask,
    }
    assert {file: found.get(file, {}) for file in files} == files
    said = " ".join(one["message"] for one in outcome.told["findings"] if one["file"] in files)
    assert case.says in said


def test_no_finding_names_a_clean_file(outcome):
    faulty = {f"{case.split}/{index:02}" for index, case in enumerate(CASES.values()) if case.mask or case.image}
    named = {file.partition("/")[2].rpartition(".")[0] for file in outcome.rules_by_file() if file}
    assert named == faulty


def test_nothing_is_said_of_the_dataset_as_a_whole(outcome):
    assert "" not in outcome.rules_by_file()


def test_every_finding_has_a_remedy(outcome):
    assert all(one["found"] and one["remedy"] for one in outcome.told["findings"])


def test_findings_are_what_the_expectations_did_not_accept(outcome):
    docs = (outcome.report / "data_docs/index.html").read_text()
    assert "samples" in docs
    failed = {rule["rule"]: rule["findings"] for rule in outcome.told["rules"] if rule["findings"]}
    assert sum(failed.values()) == len(outcome.told["findings"]) == outcome.told["errors"] + outcome.told["warnings"]
    assert set(failed) == {rule for rules in outcome.rules_by_file().values() for rule in rules}


def test_report_is_one_file_that_loads_nothing(outcome):
    page = (outcome.report / "index.html").read_text()
    assert "http:" not in page and "https:" not in page and "<script" not in page
    assert page.count("data:image/jpeg;base64,") >= 40
    for rules in outcome.rules_by_file().values():
        assert all(f'id="{rule}"' in page for rule in rules)


def test_json_is_strict(outcome):
    json.loads((outcome.report / "validate.json").read_text(), parse_constant=lambda name: pytest.fail(name))
