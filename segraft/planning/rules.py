"""The rules: knob, value, when, why, whose. The first of a knob that applies decides; docs/planner.md explains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segraft.planning.facts import Facts

FEW, SOME = 10, 100
"""Labelled images up to which a target is few-shot, and small."""
LEAST_BATCH = 4
SMALL_BATCH = 8
"""Below it, the statistics of BatchNorm are noisy (Wu & He 2018)."""
SHORT, PASSES = 500, 20
"""BiT-HyperRule's steps for a small dataset, and how often a larger one is seen."""
EPOCHS = 10
DEFAULT_ENCODER_LR = 0.5


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    knob: str
    """dotted name in params.yaml"""
    value: Callable[[Facts], Any]
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    """with the figure that decided"""
    source: str


@dataclass(frozen=True)
class Choice:
    """A knob as it was decided."""

    knob: str
    value: Any
    why: str
    source: str


def decide(rules: Sequence[Rule], facts: Facts) -> list[Choice]:
    """The first rule of each knob that applies; a knob of which none applies is left as it is."""
    chosen: dict[str, Choice] = {}
    for rule in rules:
        if rule.knob not in chosen and rule.when(facts):
            chosen[rule.knob] = Choice(rule.knob, rule.value(facts), rule.why(facts), rule.source)
    return list(chosen.values())


def is_(value: Any) -> Callable[[Facts], Any]:
    """The same value whatever the facts."""
    return lambda facts: value


def always(facts: Facts) -> bool:
    """Of a knob's last rule."""
    return True


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def crop_for(f: Facts) -> list[int]:
    """Height and width: 5/8 of the image, or one and a half times the typical object; whole 32s within the image."""
    sides = [max(0.625 * size, 1.5 * extent) for size, extent in zip(f.size, f.extent, strict=True)]
    return [
        int(min(max(32, round(side / 32) * 32), max(32, size // 32 * 32)))
        for side, size in zip(sides, f.size, strict=True)
    ]


def steps_for(f: Facts) -> int:
    """What the data is worth, as far as the compute goes."""
    return max(1, min(f.steps, wanted_steps(f)))


def epochs_for(f: Facts) -> int:
    """Ten, or as many as there are steps."""
    return min(EPOCHS, steps_for(f))


def wanted_steps(f: Facts) -> int:
    """500, or twenty passes over a larger dataset."""
    return max(SHORT, PASSES * f.images // max(1, f.batch))


DATA = (
    Rule(
        "augment.crop",
        crop_for,
        always,
        lambda f: f"images are {_by(f.size)}, the median object of 3/4 of the classes {_by(f.extent)}",
        "Chen et al. 2017",
    ),
    Rule(
        "augment.online.rare_crop",
        is_(0.5),
        lambda f: f.rare_share < 0.25,
        lambda f: f"a class is in {f.rare_share:.0%} of the images alone",
        "Xie et al. 2021",
    ),
    Rule(
        "finetune.freeze",
        is_("encoder"),
        lambda f: f.images <= FEW and not f.shifted,
        lambda f: f"{f.images} images cannot move the encoder for the better, and need not: {f.gap}",
        "Kumar et al. 2022",
    ),
    Rule(
        "finetune.freeze",
        is_("gradual"),
        lambda f: f.images <= FEW and bool(f.source),
        lambda f: f"{f.images} images: the head settles before it pulls at the encoder, which must move: {f.gap}",
        "Howard & Ruder 2018",
    ),
    Rule(
        "finetune.freeze",
        is_("none"),
        always,
        lambda f: f"{f.images} images are enough to move all layers",
        "Kornblith et al. 2019",
    ),
    Rule(
        "finetune.lora_rank",
        is_(0),
        lambda f: f.images <= FEW and (not f.shifted or bool(f.source)),
        lambda f: "the encoder is frozen, at first at least",
        "Hu et al. 2022",
    ),
    Rule(
        "finetune.thaw",
        is_(0.25),
        lambda f: f.images <= FEW and f.shifted and bool(f.source),
        lambda f: "most of the run is for the whole network",
        "Howard & Ruder 2018",
    ),
    Rule(
        "finetune.encoder_lr",
        is_(0.1),
        lambda f: f.images <= SOME and not f.shifted,
        lambda f: f"the encoder fits already: {f.gap}",
        "Li et al. 2020a",
    ),
    Rule(
        "finetune.encoder_lr",
        is_(DEFAULT_ENCODER_LR),
        always,
        lambda f: f"the encoder has to move: {f.gap}",
        "Li et al. 2020a",
    ),
    Rule(
        "finetune.layer_decay",
        is_(0.75),
        lambda f: f.images <= SOME,
        lambda f: f"{f.images} images: early layers are general, and move less",
        "Yosinski et al. 2014; Clark et al. 2020",
    ),
    Rule("finetune.layer_decay", is_(1.0), always, lambda f: f"{f.images} images", "Clark et al. 2020"),
    Rule(
        "finetune.l2_sp",
        is_(0.1),
        lambda f: f.images <= SOME and bool(f.source) and not f.shifted,
        lambda f: f"{f.images} images, and a source that fits: {f.gap}",
        "Li et al. 2018",
    ),
    Rule(
        "finetune.l2_sp", is_(0.0), always, lambda f: f"nothing close enough to hold on to: {f.gap}", "Li et al. 2018"
    ),
    Rule(
        "finetune.source_share",
        is_(0.25),
        lambda f: bool(f.mixed) and f.images <= SOME,
        lambda f: f"{f.mixed} source images are packed with the {f.images} of the target",
        "Hoyer et al. 2022",
    ),
    Rule(
        "finetune.source_share",
        is_(0.0),
        always,
        lambda f: f"{f.mixed} source images are packed with {f.images} of the target",
        "Hoyer et al. 2022",
    ),
    Rule(
        "finetune.self_train.weight",
        is_(1.0),
        lambda f: f.unlabelled >= f.images and f.val > 0,
        lambda f: f"{f.unlabelled} unlabelled images, {f.val} of val to see that it does no harm",
        "Tranheden et al. 2021",
    ),
    Rule(
        "finetune.self_train.weight",
        is_(0.0),
        always,
        lambda f: f"{f.unlabelled} unlabelled images, {f.images} labelled, {f.val} of val",
        "Tranheden et al. 2021",
    ),
    Rule(
        "finetune.class_weights",
        is_("none"),
        lambda f: f.imbalance < 5,
        lambda f: f"the commonest class has {f.imbalance:.3g} times the pixels of the rarest",
        "Eigen & Fergus 2015",
    ),
    Rule(
        "finetune.class_weights",
        is_("inverse_sqrt"),
        always,
        lambda f: f"the commonest class has {f.imbalance:.3g} times the pixels of the rarest",
        "Mahajan et al. 2018",
    ),
    Rule(
        "finetune.loss",
        is_({"cross_entropy": 1.0, "lovasz": 0.5}),
        lambda f: f.imbalance >= 100,
        lambda f: f"IoU counts the rarest class, {f.imbalance:.3g} times fewer pixels, as much as the commonest",
        "Berman et al. 2018",
    ),
    Rule(
        "finetune.loss",
        is_({"cross_entropy": 1.0}),
        always,
        lambda f: f"the commonest class has {f.imbalance:.3g} times the pixels of the rarest",
        "Berman et al. 2018",
    ),
)
"""Decided by the data alone."""

MACHINE = (
    Rule(
        "finetune.batch_size",
        lambda f: f.batch,
        always,
        lambda f: f"{f.images_per_second:.3g} images/s; the fastest batch makes {f.fastest:.3g}",
        "Masters & Luschi 2018",
    ),
    Rule(
        "finetune.batch_norm",
        is_("train"),
        lambda f: not f.norms,
        lambda f: "the network has no BatchNorm",
        "Wu & He 2018",
    ),
    Rule(
        "finetune.batch_norm",
        is_("frozen"),
        lambda f: f.batch < SMALL_BATCH and not f.shifted,
        lambda f: f"batches of {f.batch} are noisier than the source's statistics, which fit: {f.gap}",
        "Wu & He 2018",
    ),
    Rule(
        "finetune.batch_norm",
        is_("reestimate"),
        lambda f: f.batch < LEAST_BATCH,
        lambda f: f"batches of {f.batch} are too small, and the source's statistics do not fit: {f.gap}",
        "Li et al. 2017",
    ),
    Rule(
        "finetune.batch_norm",
        is_("train"),
        always,
        lambda f: f"batches of {f.batch}; statistics have to follow the target: {f.gap}",
        "Wu & He 2018",
    ),
    Rule(
        "finetune.epochs",
        epochs_for,
        always,
        lambda f: f"looks at val; the best of them is kept (val has {f.val} images)",
        "Prechelt 1998",
    ),
    Rule(
        "finetune.steps_per_epoch",
        lambda f: steps_for(f) // epochs_for(f),
        always,
        lambda f: f"{f.images} images want {wanted_steps(f)} steps, the compute allows {f.steps}",
        "Kolesnikov et al. 2020",
    ),
    Rule(
        "finetune.schedule",
        is_("poly"),
        lambda f: f.steps < wanted_steps(f),
        lambda f: f"{f.steps} of {wanted_steps(f)} steps: a short budget is best spent on a straight way down",
        "Li et al. 2020b",
    ),
    Rule(
        "finetune.schedule",
        is_("cosine"),
        always,
        lambda f: f"{steps_for(f)} steps are enough",
        "Loshchilov & Hutter 2017",
    ),
    Rule(
        "finetune.power",
        is_(1.0),
        lambda f: f.steps < wanted_steps(f),
        lambda f: "poly of power 1 is linear",
        "Li et al. 2020b",
    ),
    Rule(
        "finetune.warmup",
        is_("linear"),
        always,
        lambda f: "a fresh optimizer's first steps are its worst",
        "Goyal et al. 2017",
    ),
    Rule(
        "finetune.warmup_steps",
        lambda f: max(1, steps_for(f) // 10),
        always,
        lambda f: f"a tenth of {steps_for(f)} steps",
        "Goyal et al. 2017",
    ),
    Rule(
        "finetune.ema",
        lambda f: round(1 - 4 / max(8, steps_for(f)), 4),
        always,
        lambda f: f"remembers a quarter of {steps_for(f)} steps",
        "Tarvainen & Valpola 2017",
    ),
)
"""Decided once batch size and speed are measured."""

RATE = (
    Rule(
        "finetune.lr",
        lambda f: float(f"{f.lr:.2g}"),
        lambda f: f.lr is not None,
        lambda f: f"the loss was lowest at {10 * (f.lr or 0):.2g} as the rate rose; a tenth of it",
        "Smith 2017",
    ),
    Rule(
        "finetune.lr",
        lambda f: f.lr_before,
        always,
        lambda f: "kept: the loss did not fall while the rate rose",
        "Smith 2017",
    ),
)
"""Decided by the range test, which runs with all of the above."""
RULES = (*DATA, *MACHINE, *RATE)
