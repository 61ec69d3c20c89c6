"""The command line: `segraft STEP --in PATH --out PATH`, its flags read off the step's signature."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segraft import __version__
from segraft.errors import UserError
from segraft.steps import STEPS, Spec, run, spec, write_json

EXIT_DATA, EXIT_IO = 65, 74  # sysexits.h: EX_DATAERR, EX_IOERR

COMMANDS = {
    "fetch": "download a public dataset into data/ (needs a network)",
}
"""Commands that are not steps; command X is `segraft.commands.X`: `arguments(parser)` and `main(args)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = next((word for word in argv if not word.startswith("-")), "")
    try:
        if name in COMMANDS:
            return _command(name, argv[argv.index(name) + 1 :])
        if name in STEPS:
            return _step(spec(name), argv[argv.index(name) + 1 :])
        _overview().parse_args(argv)
        _overview().print_help()
        return 0
    except UserError as error:
        print(f"segraft {name}: {error}", file=sys.stderr)
        return EXIT_DATA
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        print(f"segraft {name}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return EXIT_IO


def _overview() -> argparse.ArgumentParser:
    lines = [f"  {name:<10} see `segraft {name} --help`" for name in STEPS]
    lines += ["", "commands:"] + [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="segraft",
        usage="segraft STEP [-S section.key=value ...] --PATH ...",
        description="Graft a segmentation model from a large source dataset onto a small target domain.\n"
        "`dvc repro` runs every step in order; this runs one.",
        epilog="\n".join(["steps, in pipeline order:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"segraft {__version__}")
    parser.add_argument("step", nargs="?", choices=[*STEPS, *COMMANDS], help=argparse.SUPPRESS)
    return parser


def _command(name: str, argv: list[str]) -> int:
    import importlib

    command = importlib.import_module(f"segraft.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"segraft {name}", description=command.__doc__)
    command.arguments(parser)
    command.main(parser.parse_args(argv))
    return 0


def _step(step: Spec, argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"segraft {step.name}",
        description=step.summary,
        epilog=f"knobs: the sections {', '.join(step.sections)} of the params file",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--metrics", type=Path, help="write the step's metrics to this JSON file")
    for name, kind in step.paths.items():
        text = step.path_help.get(name, "")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, required=True, metavar=kind.upper(), help=text)
    args = parser.parse_args(argv)

    from segraft.params import load_params

    params = load_params(args.params, args.set)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    metrics = run(
        step.name,
        {name: params.section(name) for name in step.sections},
        {name: getattr(args, name) for name in step.paths},
    )
    if args.metrics:
        write_json(args.metrics, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
