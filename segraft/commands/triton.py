"""Write a Triton model repository (ONNX graph and config.pbtxt) from an exported model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from segraft.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft triton`."""
    parser.add_argument("exported", type=Path, help="model folder that the export step wrote")
    parser.add_argument("repository", type=Path, help="the model repository to write into")
    parser.add_argument("--name", default="segraft", help="the model's name in it (segraft)")
    parser.add_argument("--version", type=int, default=1, help="its version (1)")
    parser.add_argument("--max-batch", type=int, default=8, help="images that one execution takes (8)")
    parser.add_argument("--delay", type=int, default=2000, help="microseconds that a request waits for others (2000)")
    parser.add_argument("--instances", type=int, default=1, help="copies of the model on each device (1)")
    parser.add_argument("--tensorrt", choices=["FP32", "FP16"], default="", help="run on TensorRT, in this precision")


def main(args: argparse.Namespace) -> None:
    """Write it and say where."""
    from segraft.export.triton import Triton, write_repository

    for name in ("version", "max_batch", "instances"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be 1 or more")
    if args.delay < 0:
        raise UserError(f"--delay {args.delay}: must be 0 or more")
    how = Triton(args.name, args.version, args.max_batch, args.delay, args.instances, args.tensorrt)
    print(f"{write_repository(args.exported, args.repository, how)}: for `tritonserver --model-repository`")
