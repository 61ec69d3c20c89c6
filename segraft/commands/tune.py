"""Search for finetune's best knobs on val, in the space of params.yaml's section tune.

Needs the packed target and a model to start from, as `dvc repro` leaves them. Say it again after an interruption, or
with more trials, and it goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from segraft.params import load_params


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft tune`."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--dataset", type=Path, default=Path("data/packed/target"), help="the packed target dataset")
    parser.add_argument("--pretrained", type=Path, default=Path("models/pretrained"), help="model folder to start from")
    parser.add_argument("--folder", type=Path, default=Path("build/tune"), help="the study and its trials (build/tune)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--katib", type=Path, metavar="FILE", help="write the search as a Katib Experiment, and stop")
    instead.add_argument("--trial", metavar="NAME", help="one training as it is set; prints what Katib collects")


def main(args: argparse.Namespace) -> None:
    """Search, render the Experiment, or run one of its trials.

    Raises:
        UserError: the space, the data or a training is wrong.
    """
    params = load_params(args.params, args.set)
    if args.katib:
        from segraft.tuning.katib import write_katib

        write_katib(params, args.dataset, args.pretrained, args.katib)
        print(f"{args.katib}: kubectl apply -f it where Katib runs")
        return

    from segraft.tuning.search import ended, one_trial, search
    from segraft.tuning.trial import Bench

    bench = Bench(args.params, tuple(args.set), args.dataset, args.pretrained, args.folder)
    if args.trial:
        one_trial(params, bench, args.trial)
        return
    study = search(params, bench)
    best = " ".join(f"-S finetune.{key}={json.dumps(value)}" for key, value in study.best_params.items())
    print(f"best of {len(ended(study))} trials: mIoU {100 * study.best_value:.2f} % on val, with")
    print(f"  dvc exp run {best}")
