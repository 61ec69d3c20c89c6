"""Rules that look at the data, and at whether there are steps to spare: crop, what learns how fast, and the loss."""

from __future__ import annotations

from segraft.planning.facts import Facts
from segraft.planning.rules.rule import FEW, SOME, Rule, always, is_

DEFAULT_ENCODER_LR = 0.5


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def crop_for(f: Facts) -> list[int]:
    """Height and width: the largest of 5/8 of the image, 3/2 of the typical object and now; in 32s within the image."""
    sides = [max(0.625 * size, 1.5 * extent, now) for size, extent, now in zip(f.size, f.extent, f.crop, strict=True)]
    return [
        int(min(max(32, round(side / 32) * 32), max(32, size // 32 * 32)))
        for side, size in zip(sides, f.size, strict=True)
    ]


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
        lambda f: f.images <= FEW and bool(f.source) and not f.short,
        lambda f: f"{f.images} images: the head settles before it pulls at the encoder, which must move: {f.gap}",
        "Howard & Ruder 2018",
    ),
    Rule(
        "finetune.freeze",
        is_("none"),
        lambda f: f.short,
        lambda f: f"{f.images} images; {f.steps} of {f.wanted} steps: layers that wait fall behind",
        "Li et al. 2020b",
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
        lambda f: f.images <= FEW and (not f.shifted or (bool(f.source) and not f.short)),
        lambda f: "the encoder is frozen, at first at least",
        "Hu et al. 2022",
    ),
    Rule(
        "finetune.thaw",
        is_(0.25),
        lambda f: f.images <= FEW and f.shifted and bool(f.source) and not f.short,
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
        is_(1.0),
        lambda f: f.images <= FEW and not f.shifted,
        lambda f: "the encoder is frozen",
        "Kumar et al. 2022",
    ),
    Rule(
        "finetune.layer_decay",
        is_(0.75),
        lambda f: f.images <= SOME and not f.short,
        lambda f: f"{f.images} images: early layers are general, and move less",
        "Yosinski et al. 2014; Clark et al. 2020",
    ),
    Rule(
        "finetune.layer_decay",
        is_(1.0),
        always,
        lambda f: f"{f.images} images, {f.steps} of {f.wanted} steps: all layers have to get as far as they can",
        "Clark et al. 2020",
    ),
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
