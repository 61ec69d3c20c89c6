"""Find the most accurate form of a model that fits a budget of time, size and lost accuracy.

Tries every pruning level of --levels, and a student on each encoder of --students, on every runtime of
export.runtimes. A pruned model trains on with the knobs of finetune; a student learns from the model with them. Draws
the Pareto front. Say it again with another budget: what was trained and measured is kept.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from segraft.errors import UserError
from segraft.params import load_params


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft compress`."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--model", type=Path, default=Path("models/finetuned"), help="model folder to compress")
    parser.add_argument("--dataset", type=Path, default=Path("data/packed/target"), help="the packed target dataset")
    parser.add_argument("--out", type=Path, default=Path("build/compressed"), help="folder of the front and the model")
    parser.add_argument("--max-ms", type=float, default=math.inf, help="milliseconds for one image of the val split")
    parser.add_argument("--max-mb", type=float, default=math.inf, help="megabytes of the files that are served")
    parser.add_argument("--max-miou-loss", type=float, default=math.inf, help="points of mIoU that may be lost")
    parser.add_argument(
        "--levels", type=float, nargs="+", default=[0.25, 0.5, 0.7], help="shares to prune (0.25 0.5 0.7)"
    )
    parser.add_argument(
        "--prune", choices=["channels", "weights"], default="channels", help="what is pruned (channels)"
    )
    parser.add_argument(
        "--students", nargs="+", default=[], metavar="ENCODER", help="encoders of students that learn from the model"
    )


def main(args: argparse.Namespace) -> None:
    """Search, and say what was chosen.

    Raises:
        UserError: nothing fits, or a level or a knob is wrong.
    """
    if any(not 0 <= level < 1 for level in args.levels):
        raise UserError(f"--levels {args.levels}: each must be at least 0 and below 1")
    for name in ("max_ms", "max_mb"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")
    if math.isnan(args.max_miou_loss):
        raise UserError("--max-miou-loss nan: give a number of points")
    params = load_params(args.params, args.set)
    from segraft.compression.search import Budget, Search, compress

    what = (tuple(args.levels), args.prune, tuple(args.students))
    search = Search(args.model, args.dataset, *what, params.model, params.finetune, params.export)
    best = compress(search, Budget(args.max_ms, args.max_mb, args.max_miou_loss), args.out)
    cost = f"{best.latency_ms:.1f} ms, {best.size_mb:.1f} MB, {best.miou_loss:.2f} points of mIoU lost"
    print(f"chosen: {best.runtime}, {best.form}: {cost}")
    print(f"  {args.out / 'model'}: serve it, register it; {args.out / 'pareto.svg'}: what else there is")
