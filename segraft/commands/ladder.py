"""Measure what the source is worth: several ways to fine-tune, at one compute budget, over label budgets and seeds.

Needs the packed data and the pretrained model, as `dvc repro` leaves them. Every cell's result is kept: say it again
after an interruption, or with more seeds, and it goes on. docs/ladder.md explains the rungs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segraft.errors import UserError
from segraft.params import load_params


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft ladder`."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--source", type=Path, default=Path("data/packed/source"), help="the packed source dataset")
    parser.add_argument("--target", type=Path, default=Path("data/packed/target"), help="the packed target dataset")
    parser.add_argument("--pretrained", type=Path, default=Path("models/pretrained"), help="the source model")
    parser.add_argument("--work", type=Path, default=Path("build/ladder"), help="results of cells (build/ladder)")
    parser.add_argument("--report", type=Path, default=Path("reports/ladder"), help="folder to write (reports/ladder)")


def main(args: argparse.Namespace) -> None:
    """Climb, compare and write the report.

    Raises:
        UserError: the data, the model or the knobs do not allow it.
    """
    params = load_params(args.params, args.set)

    from segraft.checkpoint import read_card
    from segraft.data.packed import PackedDataset
    from segraft.ladder.cells import Data, climb, source_pixels
    from segraft.ladder.report import told, write
    from segraft.ladder.table import outcome
    from segraft.steps import beside

    target = PackedDataset(args.target)
    if not len(target.split("train")):
        raise UserError(f"{args.target}: no train images; a ladder needs a labelled target")
    if not any(target.split("test").card.class_pixels):
        raise UserError(f"{args.target}: no test labels; every rung is scored on them, so give the target a test split")
    if read_card(args.pretrained).provenance.get("dataset") == target.card.fingerprint:
        raise UserError(f"{args.pretrained}: learned from {args.target} itself; give the source model")
    pixels = source_pixels(args.pretrained, args.source)
    if not pixels:
        raise UserError(f"{args.pretrained}: was not trained on a source; there is nothing to measure the worth of")
    results = climb(Data(params, args.target, args.pretrained, pixels, args.work))
    if not results:
        raise UserError("ladder.rungs: every rung was left out, each for the reason above; name others")
    found = outcome(results)
    with beside(args.report) as made:
        write(found, made)
    print("\n".join([*told(found), str(args.report / "ladder.html")]))
