"""The command line: `segraft STEP --in PATH --out PATH`, its flags read off the step's signature."""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from segraft import __version__
from segraft.errors import UserError
from segraft.processes import collect_rarely, ended_by_sigterm
from segraft.steps import STEPS, Spec, run, spec, write_json

EXIT_DATA, EXIT_IO = 65, 74  # sysexits.h: EX_DATAERR, EX_IOERR
EXIT_PIPE = 128 + signal.SIGPIPE
REFUSED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)
"""What a disk says for which the user can do something."""

COMMANDS = {
    "fetch": "download a public dataset into data/ (needs a network)",
    "tune": "search for finetune's best knobs on val (needs Optuna); or write the search for Katib",
    "plan": "say which steps would run, and why, before anything starts",
    "plan-transfer": "measure data and machine, and choose the knobs of fine-tuning",
    "ladder": "measure what the source is worth, at one compute budget and several label budgets",
    "serve": "answer at a KServe endpoint: JSON, binary tensors, gRPC, image files",
    "deploy": "put a registered model behind the endpoint of a cluster, or print the manifests",
    "predict": "segment images by a server, or by a model folder without one",
    "compress": "prune, quantise and choose within a budget of time, size and lost accuracy",
    "triton": "write a Triton model repository from an exported model",
}
"""Commands that are not steps; command X-Y is `segraft.commands.X_Y`: `arguments(parser)` and `main(args)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = next(iter(argv), "")  # an option before it is the overview's, which knows none of a step's
    try:
        if name in (*COMMANDS, *STEPS):
            with ended_by_sigterm():
                return (_command if name in COMMANDS else _step)(name, argv[1:])
        _overview().parse_args(argv)
        _overview().print_help()
        return 0
    except UserError as error:
        print(f"segraft {name}: {error}", file=sys.stderr)
        return EXIT_DATA
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):  # it was some other pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        print(f"segraft {name}: {refused_file(error)}: {error.strerror}", file=sys.stderr)
        return EXIT_IO


def refused_file(error: OSError) -> str:
    """What the disk refused; of a copy, the file that was to be written rather than the one that was read."""
    return str(error.filename2 or error.filename or "output")


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the other end of a pipe was closed, as `| head` does when it has enough."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _overview() -> argparse.ArgumentParser:
    lines = [f"  {name:<10} see `segraft {name} --help`" for name in STEPS]
    lines += ["", "commands:"] + [f"  {name:<13} {text}" for name, text in COMMANDS.items()]
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

    command = importlib.import_module(f"segraft.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"segraft {name}", description=command.__doc__)
    command.arguments(parser)
    command.main(parser.parse_args(argv))
    return 0


def _step(name: str, argv: list[str]) -> int:
    step = spec(name)
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
    collect_rarely()
    with _paths(step, args) as paths:
        metrics = run(step.name, {name: params.section(name) for name in step.sections}, paths)
    if args.metrics and _leads():
        write_json(args.metrics, metrics)
    return 0


def _leads() -> bool:
    """Whether this is the only process of the step, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _paths(step: Spec, args: argparse.Namespace) -> Iterator[dict[str, str | Path]]:
    """The step's paths by name. Processes that train together all make the same: only the first one's is kept."""
    paths: dict[str, str | Path] = {name: getattr(args, name) for name in step.paths}
    if _leads():
        yield paths
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield paths | {name: Path(folder, name) for name, kind in step.paths.items() if kind == "out"}


if __name__ == "__main__":
    sys.exit(main())
