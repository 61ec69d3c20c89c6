"""Every rule, declared once: what is expected of which table, how grave a breach is, and what the user reads of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import Column

from segraft.data.formats._tree import IMAGE_SUFFIXES
from segraft.data.validation.expectations import ExpectColumnListsToBeEmpty, ExpectColumnValuesNotToBeLowOutliers
from segraft.data.validation.probes import RAMPS
from segraft.params import Validate

Severity = Literal["error", "warning"]
ERROR: Severity = "error"
WARNING: Severity = "warning"
ADVICE = {"large_image"}
"""Warnings that `strict` does not make errors: what they advise is done in knobs that validate does not see."""


@dataclass(frozen=True)
class Rule:
    """One rule; `file`, `found` and `remedy` are templates over the columns of the row that broke it."""

    name: str
    table: str
    severity: Severity
    expectation: Any
    """of Great Expectations"""
    file: str
    found: str
    remedy: str
    picture: Literal["image", "mask", "pair", ""] = ""
    """what of the sample the report shows"""
    twin: str = ""
    """column with the position of a second sample to show"""

    def stops(self, strict: bool) -> bool:
        """Whether the pipeline stops where it is broken."""
        return self.severity == ERROR or (strict and self.name not in ADVICE)


def rules(knobs: Validate) -> list[Rule]:
    """All rules, in the order of the report, with the thresholds of the params."""
    return [
        *_dataset_rules(),
        *_file_rules(),
        *_image_rules(knobs),
        *_mask_rules(knobs),
        *_leak_rules(),
        *_split_rules(knobs),
        *_class_rules(),
        *_drift_rules(knobs),
    ]


def _image(name: str, severity: Severity, expectation: Any, found: str, remedy: str, twin: str = "") -> Rule:
    return Rule(name, "samples", severity, expectation, "{image}", found, remedy, "image", twin)


def _mask(name: str, severity: Severity, expectation: Any, found: str, remedy: str, twin: str = "") -> Rule:
    return Rule(name, "samples", severity, expectation, "{mask}", found, remedy, "pair", twin)


def _whole(name: str, table: str, severity: Severity, expectation: Any, found: str, remedy: str) -> Rule:
    """Of no single file."""
    return Rule(name, table, severity, expectation, "", found, remedy)


def _never(column: str, value: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeInSet(column=column, value_set=[value])


def _null(column: str) -> Any:
    return gxe.ExpectColumnValuesToBeNull(column=column)


def _at_most(column: str, limit: float) -> Any:
    return gxe.ExpectColumnValuesToBeBetween(column=column, max_value=limit)


def _at_least(column: str, limit: float) -> Any:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=limit)


def _dataset_rules() -> list[Rule]:
    table = [
        ("unlisted_dataset", "trouble", "{trouble}", "fix {section} in params.yaml, or the folder"),
        ("misplaced_masks", "misplaced", "{misplaced}", "{misplaced_remedy}"),
        ("unmapped_taxonomy", "unmapped", "{unmapped}", "complete the map in the target's taxonomy"),
        (
            "one_based_ids",
            "one_based",
            "{one_based}: the masks seem to count classes from 1",
            "subtract 1 from the masks, or give the classes in the taxonomy the ids that the masks hold",
        ),
    ]
    warnings = [
        ("grey_dataset", "grey", "{grey}", "nothing to do if colours are not meant; they are read as three equal ones"),
        (
            "large_image",
            "large",
            "{large}; whole, each takes gigabytes of memory and minutes on a CPU",
            "set augment.size, or evaluate.window, unless one of them is set",
        ),
    ]
    return [
        _whole(name, "datasets", severity, _null(column), found, remedy)
        for severity, rows in ((ERROR, table), (WARNING, warnings))
        for name, column, found, remedy in rows
    ]


FILE_FAULTS = {
    "bad_name": "rename the file",
    "missing_file": "add the file, or remove its partner",
    "outside_root": "copy the file into the dataset (only the dataset's own folder may be a link)",
    "special_file": "replace it with the image itself",
    "empty_file": "restore the file, or remove the sample",
    "oversized_file": "remove the file, or raise validate.max_pixels",
    "unreadable_file": "fix its permissions or the disk",
    "too_many_pixels": "make the image smaller, or raise validate.max_pixels if it is what it should be",
    "several_frames": "save the frame that is meant as a file of its own",
    "undecodable_file": "restore the file from its original, or remove the sample",
}
"""Rule → remedy, for files that cannot be used; facts record the first that a file breaks."""


def _file_rules() -> list[Rule]:
    faults = [
        Rule(name, "files", ERROR, _never("fault", name), "{file}", "{kind}: {found}", remedy)
        for name, remedy in FILE_FAULTS.items()
    ]
    return [
        *faults,
        Rule(
            "orphan_mask",
            "files",
            ERROR,
            _never("kind", "orphan"),
            "{file}",
            "{found}",
            f"add the image (read are {', '.join(IMAGE_SUFFIXES)}), or remove the mask",
        ),
        Rule(
            "same_name",
            "files",
            ERROR,
            _null("same_name"),
            "{file}",
            "its name is that of {same_name} but for case, Unicode form or suffix",
            "rename one of them: on other systems they are one file, or share one mask",
            "image",
        ),
        Rule(
            "wrong_suffix",
            "files",
            WARNING,
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="format", column_B="usual_format", ignore_row_if="either_value_is_missing"
            ),
            "{file}",
            "the content is {format}, the name says {usual_format}",
            "rename the file; it is read by its content",
        ),
    ]


IMAGE_KINDS: dict[str, tuple[Severity, str]] = {
    "image_depth": (ERROR, "save the image with 8 bits a channel, scaled as you mean it"),
    "image_colors": (ERROR, "convert the image to RGB with its colour profile"),
    "transparent_image": (ERROR, "flatten the image onto a background, and save it as RGB"),
    "opaque_alpha": (WARNING, "save the image as RGB; the alpha channel is left out"),
    "palette_image": (WARNING, "save the image as RGB; its palette is applied"),
    "grey_image": (WARNING, "remove the image if colours are meant; it is read as three equal channels"),
}


def _image_rules(knobs: Validate) -> list[Rule]:
    kinds = [
        _image(name, severity, _never("image_kind", name), "{image_found}", remedy)
        for name, (severity, remedy) in IMAGE_KINDS.items()
    ]
    return [
        *kinds,
        _image(
            "small_image",
            ERROR,
            _at_least("shorter_side", knobs.min_size),
            "{image_size} pixels",
            f"both sides must have {knobs.min_size} pixels; remove the sample, or lower validate.min_size",
        ),
        _image(
            "constant_image",
            ERROR,
            _at_least("spread", 1.0),
            "all pixels are alike (their standard deviation is {spread:.2g} of 255)",
            "remove the sample: there is nothing to see",
        ),
        _image(
            "channel_order",
            WARNING,
            _at_least("channel_order", -0.5),
            "its classes have the colours of the other images with red and blue exchanged",
            "check whether the image was saved as BGR",
        ),
    ]


MASK_KINDS = {
    "lossy_mask": "export the mask again, as PNG; its codes are not what was drawn",
    "alpha_mask": "save the mask without alpha",
    "mask_depth": "save ids as 8- or 16-bit grey, colours as 8-bit RGB",
    "colors_for_ids": "convert the mask to ids; with format: folder, encoding: colors reads colours",
    "ids_for_colors": "with format: folder, set encoding: ids or trainIds, or convert the mask to colours",
    "binary_mask": "write the foreground's id (usually 1), or, if 255 is the foreground, give that class ids: [255] in "
    "the taxonomy and take 255 out of void",
}


def _mask_rules(knobs: Validate) -> list[Rule]:
    kinds = [
        _mask(name, ERROR, _never("mask_kind", name), "{mask_found}", remedy) for name, remedy in MASK_KINDS.items()
    ]
    train = Column("split") == "train"
    return [
        *kinds,
        _mask(
            "size_mismatch",
            ERROR,
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="mask_size", column_B="image_size", ignore_row_if="either_value_is_missing"
            ),
            "the mask has {mask_size} pixels, its image {image_size}{turned}",
            "export the pair again with one size (masks with nearest neighbour)",
        ),
        _mask(
            "unknown_codes", ERROR, ExpectColumnListsToBeEmpty(column="unknown"), "{unknown_found}", "{unknown_remedy}"
        ),
        _mask(
            "interpolated_mask",
            ERROR,
            _at_most("ramp_share", RAMPS),
            "{ramp_share:.0%} of its steps between classes pass through ids in between, as interpolation makes them",
            "resize masks with nearest neighbour only, and keep them as PNG",
        ),
        _mask(
            "thin_class",
            WARNING,
            _at_most("thin_share", RAMPS),
            "{thin_share:.0%} of its steps between classes pass through one id in between, as through a thin class",
            "nothing to do if it was drawn; if masks were resized, do it with nearest neighbour",
        ),
        _mask(
            "background_and_void",
            WARNING,
            _never("mask_kind", "background_and_void"),
            "{mask_found}, unlike the dataset's other masks",
            "check whether 255 is meant for what nobody labelled, or for a class; then write its id",
        ),
        _mask(
            "void_mask",
            ERROR,
            gxe.ExpectColumnValuesToBeBetween(column="void_share", max_value=1, strict_max=True, row_condition=train),
            "every pixel is ignored",
            "label the image, or take it out of train: its loss is not a number",
        ),
        _mask(
            "void_mask_heldout",
            WARNING,
            gxe.ExpectColumnValuesToBeBetween(
                column="void_share", max_value=1, strict_max=True, row_condition=Column("split") != "train"
            ),
            "every pixel is ignored",
            "label the image: it adds nothing to a score",
        ),
        _mask(
            "much_void",
            WARNING,
            _at_most("some_void", knobs.max_void),
            "{some_void:.0%} of the pixels are ignored",
            "check the mask, or raise validate.max_void",
        ),
        _mask(
            "single_class",
            WARNING,
            _at_least("classes_shown", 2),
            "one class only",
            "check that the mask is not an empty export",
        ),
        _mask(
            "shifted_mask",
            WARNING,
            _null("shift"),
            "edges of image and mask agree better with the mask moved by {shift}",
            "check how image and mask were cropped or resized",
        ),
        _mask(
            "foreign_mask",
            WARNING,
            ExpectColumnValuesNotToBeLowOutliers(column="agreement", deviations=2.5, share=0.25),
            "its boundaries follow no edges of the image, unlike the dataset's other masks",
            "check whether it is the mask of another image, or turned",
        ),
        _mask(
            "same_mask",
            WARNING,
            _null("same_mask"),
            "pixel for pixel the mask of {same_mask}",
            "check which of the two images it belongs to",
            twin="same_mask_row",
        ),
    ]


def _leak_rules() -> list[Rule]:
    return [
        _image(
            "leak",
            ERROR,
            _null("leak"),
            "in split {split}, and pixel for pixel {leak}",
            "remove one of the two: a score on seen images says nothing",
            twin="leak_row",
        ),
        _image(
            "near_twin",
            WARNING,
            _null("near_twin"),
            "in split {split}, and nearly the same picture as {near_twin}",
            "keep the images of one scene in one split",
            twin="near_twin_row",
        ),
        _image(
            "repeated_image",
            WARNING,
            _null("repeat"),
            "pixel for pixel {repeat}, in the same split",
            "remove one of the two, or it counts twice",
            twin="repeat_row",
        ),
        _whole(
            "many_near_twins",
            "splits",
            ERROR,
            _at_most("near_twins", 0.1),
            "{near_twins:.0%} of the images of {split} have a near twin in another split",
            "split by sequence, not by frame",
        ),
        _whole(
            "divided_sequence",
            "sequences",
            WARNING,
            _at_most("splits", 1),
            "sequence {sequence} is in several splits: {where}",
            "keep a sequence in one split, or read the score with that in mind",
        ),
    ]


def _split_rules(knobs: Validate) -> list[Rule]:
    return [
        _whole(
            "few_samples",
            "splits",
            ERROR,
            _at_least("samples", knobs.min_samples),
            "{samples} samples in {split}",
            f"each split needs {knobs.min_samples}; {{more}}",
        ),
        _whole(
            "mostly_single_class",
            "splits",
            ERROR,
            _at_most("single_class", 0.9),
            "{single_class:.0%} of the masks of {split} show one class only",
            "check how the masks were exported",
        ),
    ]


def _class_rules() -> list[Rule]:
    table: list[tuple[str, Severity, str, str]] = [
        (
            "untrained_class",
            ERROR,
            "class {class} is in no train image, but in other splits",
            "move images that show it to train, or take the class out of the taxonomy",
        ),
        (
            "class_missing",
            ERROR,
            "class {class}, common in train, is in no image of {split}",
            "check the labels of {split}: without the class its score is undefined",
        ),
        (
            "class_absent",
            WARNING,
            "class {class} is in none of the {of} images of {split}",
            "its score is undefined; or, if the split is train, zero unless the source teaches the class",
        ),
        (
            "unused_class",
            WARNING,
            "class {class} is in no image at all",
            "check the taxonomy; the model will never predict the class",
        ),
        ("rare_class", WARNING, "class {class} is in {images} images of train", "label more images that show it"),
    ]
    return [
        _whole(name, "classes", severity, _never("state", name), found, remedy)
        for name, severity, found, remedy in table
    ]


def _drift_rules(knobs: Validate) -> list[Rule]:
    return [
        _whole(
            "drift",
            "drift",
            WARNING,
            _at_most("deviations", knobs.drift),
            "{statistic}: {source:.1f} in the source, {target:.1f} in the target, {deviations:.1f} deviations apart",
            "expect the source model to do badly as it is; augment.simulate brings the source nearer",
        )
    ]
