"""Measure the packed data and this machine, and write a params file with the fine-tuning knobs that suit them.

Each choice stands in the file with the figure that decided it; docs/planner.md has the rules and their sources. Edit
it, or use it: `segraft finetune --params …`, or copy it over params.yaml and say `dvc repro`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from segraft.errors import UserError
from segraft.params import load_params


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft plan-transfer`."""
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="the knobs to start from (params.yaml)"
    )
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--source", type=Path, default=Path("data/packed/source"), help="the packed source dataset")
    parser.add_argument("--target", type=Path, default=Path("data/packed/target"), help="the packed target dataset")
    parser.add_argument("--manifest", type=Path, default=Path("data/manifest"), help="folder of the manifests")
    parser.add_argument("--pretrained", type=Path, default=Path("models/pretrained"), help="model folder to start from")
    parser.add_argument(
        "--minutes", type=float, help="of training on this machine (as many pixels as finetune sees now)"
    )
    parser.add_argument("--plan", type=Path, default=Path("build/plan.yaml"), help="where to write (build/plan.yaml)")


def main(args: argparse.Namespace) -> None:
    """Plan and write; the measurements go beside, as JSON.

    Raises:
        UserError: data or model are missing or do not fit together.
    """
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise UserError(f"--minutes {args.minutes:g}: give a number above 0")
    if args.plan.suffix == ".json":
        raise UserError(f"--plan {args.plan}: the measurements go there; name a .yaml file, for the plan is one")
    params = load_params(args.params, args.set)
    for path, made_by in ((args.manifest / "target.parquet", "validate"), (args.pretrained, "pretrain")):
        if not path.exists():
            raise UserError(f"{path}: not found; run the {made_by} step")

    from segraft.data.manifest import read_manifest
    from segraft.data.packed import PackedDataset
    from segraft.planning.plan import Inputs, changes, plan
    from segraft.planning.write import commented, write_text
    from segraft.steps import write_json

    target = PackedDataset(args.target)
    packed_crop = target.card.crop
    manifest = read_manifest(args.manifest, "target")
    made = plan(Inputs(params, PackedDataset(args.source), target, manifest, args.pretrained), args.minutes)
    write_text(args.plan, commented(args.params.read_text(encoding="utf-8"), made.choices, args.set))
    write_json(args.plan.with_suffix(".json"), made.as_json())
    for choice in changes(params, made.choices):
        print(f"{choice.knob}: {choice.value}  # {choice.why} [{choice.source}]")
    print(f"{args.plan}: the whole plan; {args.plan.with_suffix('.json')}: what was measured")
    if made.facts.crop != packed_crop:
        print(
            f"the crop changes from {list(packed_crop)}: `cp {args.plan} params.yaml && dvc repro` packs the data again"
        )
