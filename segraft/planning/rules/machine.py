"""Rules that need batch size, speed and compute: BatchNorm, steps, what is learned beside the labels, the schedule."""

from __future__ import annotations

from segraft.ladder.rungs import SELF_TRAINED_STEP
from segraft.planning.facts import Facts
from segraft.planning.rules.rule import SOME, Rule, always, is_

LEAST_BATCH = 4
SMALL_BATCH = 8
"""Below it, the statistics of BatchNorm are noisy (Wu & He 2018)."""
LOWER = 2.5
"""A range test is not exact: a rate is kept unless it finds one that is so many times lower, or a higher one."""
EPOCHS = (6, 10)
"""Fewest and most looks at val."""


def steps_for(f: Facts) -> int:
    """What the data is worth, as far as the compute goes."""
    return max(1, min(f.steps, f.wanted))


def epochs_for(f: Facts) -> int:
    """The most of six to ten that leave the fewest steps over, or as many as there are steps."""
    steps, (least, most) = steps_for(f), EPOCHS
    return min(range(min(least, steps), min(most, steps) + 1), key=lambda epochs: (steps % epochs, -epochs))


def spare(f: Facts) -> str:
    """The compute in words."""
    return f"the compute allows {f.steps} of {f.wanted} steps on labels alone"


MACHINE = (
    Rule(
        "finetune.batch_size",
        lambda f: f.batch,
        lambda f: f.capped,
        lambda f: f"as many pixels as batches of {f.batch} see now: larger ones would leave fewer steps",
        "Shallue et al. 2019",
    ),
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
        lambda f: f"{f.images} images want {f.wanted} steps, the compute allows {f.steps}",
        "Kolesnikov et al. 2020",
    ),
    Rule(
        "finetune.schedule",
        is_("poly"),
        lambda f: f.short,
        lambda f: f"{f.steps} of {f.wanted} steps: a short budget is best spent on a straight way down",
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
        lambda f: f.short,
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
        lambda f: min(0.9999, round(1 - 4 / max(8, steps_for(f)), 4)),
        always,
        lambda f: f"remembers a quarter of {steps_for(f)} steps",
        "Tarvainen & Valpola 2017",
    ),
    Rule(
        "finetune.source_share",
        is_(0.25),
        lambda f: bool(f.mixed) and f.images <= SOME and not f.short,
        lambda f: f"{f.mixed} source images are packed with the {f.images} of the target, and there are steps to spare",
        "Hoyer et al. 2022",
    ),
    Rule(
        "finetune.source_share",
        is_(0.0),
        always,
        lambda f: f"{f.mixed} source images are packed with {f.images} of the target; {spare(f)}",
        "Hoyer et al. 2022",
    ),
    Rule(
        "finetune.self_train.weight",
        is_(1.0),
        lambda f: f.unlabelled >= f.images and f.val > 0 and f.steps >= SELF_TRAINED_STEP * f.wanted,
        lambda f: f"{f.unlabelled} unlabelled images, {f.val} of val to see that it does no harm",
        "Tranheden et al. 2021",
    ),
    Rule(
        "finetune.self_train.weight",
        is_(0.0),
        always,
        lambda f: f"{f.unlabelled} unlabelled images, {f.images} labelled, {f.val} of val; {spare(f)}",
        "Tranheden et al. 2021",
    ),
)

RATE = (
    Rule(
        "finetune.lr",
        lambda f: f.lr_before,
        lambda f: f.lr is not None and f.lr_before / LOWER <= f.lr < f.lr_before,
        lambda f: f"kept: {f.lr_why}, too little less to be sure of, and too low costs more than too high",
        "Smith 2017",
    ),
    Rule(
        "finetune.lr",
        lambda f: f.lr_before if f.lr is None else float(f"{f.lr:.2g}"),
        always,
        lambda f: f.lr_why,
        "Smith 2017",
    ),
)
"""Decided by the range test, which runs with all of the above."""
