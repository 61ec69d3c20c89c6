"""Serve a registered model at a KServe endpoint on a cluster. See docs/serving.md.

MODEL is models:/NAME@ALIAS or models:/NAME/VERSION of the registry. Knobs are the section `deploy` of params.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft deploy`."""
    parser.add_argument("model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--storage", default="", metavar="URI", help="a copy of the model folder that pods can reach")
    parser.add_argument("--dry-run", action="store_true", help="print the manifests; needs no cluster")
    parser.add_argument("--force", action="store_true", help="take over fields that someone else has set")


def main(args: argparse.Namespace) -> None:
    """Print the manifests, or apply them and wait."""
    import yaml

    from segraft.deploy import find, render, roll_out
    from segraft.params import load_params

    params = load_params(args.params, args.set)
    if args.dry_run:
        resources = render(find(args.model, params.deploy, params.tracking, args.storage), params.deploy)
        print(yaml.safe_dump_all(resources, sort_keys=False), end="")
    else:
        print(roll_out(args.model, params.deploy, params.tracking, args.storage, args.force))
