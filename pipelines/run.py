"""Run a pipeline on this machine, in containers, or on a Kubeflow cluster.

The steps are those of `dvc repro`, and so are the results; params.yaml holds every knob. A step runs only if its
params, its data or its code are not those of an earlier run: --plan says which would, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path[0] = str(PROJECT)  # a script finds its own folder first; the project is what it needs

from pipelines.keep import KEEP  # noqa: E402
from segraft.__main__ import EXIT_DATA, EXIT_IO, REFUSED, refused_file  # noqa: E402
from segraft.errors import UserError  # noqa: E402
from segraft.params import Params, load_params  # noqa: E402

if TYPE_CHECKING:
    from pipelines.graph import Target

EXAMPLES = """
examples:
  python pipelines/run.py --local                          the whole transfer, here
  python pipelines/run.py --local --plan                   what would run, and why; nothing starts
  python pipelines/run.py --local -S finetune.lr=0.001     one knob changed: fine-tunes, evaluates, registers
  python pipelines/run.py finetune --local --model models:/segraft@champion
  python pipelines/run.py sweep --local                    the settings of params.yaml's sweep; the best is registered
  python pipelines/run.py --containers                     each step in a container of cluster.image
  python pipelines/run.py --compile transfer.yaml          a file to upload in the Kubeflow UI
  python pipelines/run.py --host https://kubeflow.example.org/pipeline --namespace team
  python pipelines/run.py --host … --schedule "0 3 * * 1"  each Monday at three

environment, for --host:
  KF_PIPELINES_ENDPOINT        the host, if --host is given without one
  KF_PIPELINES_TOKEN           a bearer token; or
  KF_PIPELINES_SA_TOKEN_PATH   a file that holds one (Kubeflow notebooks have it)
  KF_PIPELINES_NAMESPACE       the namespace, if --namespace is not given
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python pipelines/run.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", nargs="?", default="transfer", help="transfer (everything), finetune or sweep")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="on this machine, each step a process")
    where.add_argument("--containers", action="store_true", help="on this machine, each step a container (DOCKER_HOST)")
    where.add_argument("--compile", type=Path, metavar="FILE", help="write the pipeline as YAML, and stop")
    where.add_argument(
        "--host", nargs="?", const="", metavar="URL", help="on the Kubeflow Pipelines that answers there"
    )
    parser.add_argument("--plan", action="store_true", help="with --local or --containers: say what would run, and why")
    parser.add_argument("--json", action="store_true", help="with --plan: as JSON")
    parser.add_argument(
        "--keep",
        type=_at_least_one,
        default=KEEP,
        metavar="N",
        help=f"with --local or --containers: keep the outputs of the newest N good runs ({KEEP})",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the knobs (params.yaml)")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one knob")
    parser.add_argument("--model", default="", metavar="MODEL", help="finetune: models:/NAME@ALIAS, or a model folder")
    remote = parser.add_argument_group("with --host")
    remote.add_argument("--namespace", default=os.environ.get("KF_PIPELINES_NAMESPACE"), help="the profile to run in")
    remote.add_argument("--experiment", default="segraft", help="the experiment that groups the runs (segraft)")
    remote.add_argument("--run-name", help="the run's name (the pipeline's, and the time)")
    remote.add_argument("--schedule", metavar="CRON", help="run at these times from now on, rather than once now")
    remote.add_argument("--no-wait", action="store_true", help="do not wait for the run to end")
    return parser


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run one pipeline; returns the exit status."""
    args = arguments().parse_args(argv)
    try:
        _refuse_unread(args)
        params = load_params(args.params, args.set)
        if args.plan:
            return _plan(args, params)
        return (_local if args.local or args.containers else _remote)(args, params)
    except UserError as error:
        print(f"{args.pipeline}: {error}", file=sys.stderr)
        return EXIT_DATA
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        print(f"{args.pipeline}: {refused_file(error)}: {error.strerror}", file=sys.stderr)
        return EXIT_IO


def _refuse_unread(args: argparse.Namespace) -> None:
    """Refuse options that nothing would read: a run would not be the one that was asked for."""
    if args.model and args.pipeline != "finetune":
        raise UserError("--model: only the pipeline finetune starts from a model: say finetune, or leave --model out")
    if args.json and not args.plan:
        raise UserError("--json: only with --plan")
    remote = {"--run-name": args.run_name, "--schedule": args.schedule, "--no-wait": args.no_wait}
    given = [flag for flag, value in remote.items() if value]
    if given and args.host is None:
        raise UserError(f"{', '.join(given)}: only with --host")


def _local(args: argparse.Namespace, params: Params) -> int:
    from pipelines import containers, data, local
    from pipelines.graph import draw

    target = _target(args, params)
    secrets = [secret.env for secret in params.cluster.secrets]
    runner = containers.containers(data.folders(target), secrets) if args.containers else local.subprocesses
    pipeline = draw(args.pipeline, target, Path.cwd())
    local.run(pipeline, params.tracking, runner, keep=args.keep)
    return 0


def _plan(args: argparse.Namespace, params: Params) -> int:
    from pipelines import local
    from pipelines.graph import draw

    if not (args.local or args.containers):
        raise UserError("--plan: only with --local or --containers; a cluster's cache is known to the cluster")
    reasons = local.plan(draw(args.pipeline, _target(args, params), Path.cwd()))
    if args.json:
        print(json.dumps(reasons))
    else:
        print("\n".join(f"{name}: {'; '.join(why)}" for name, why in reasons.items()) or "nothing would run")
    return 0


def _remote(args: argparse.Namespace, params: Params) -> int:
    from pipelines import remote
    from pipelines.graph import draw

    pipeline = draw(args.pipeline, _target(args, params), Path.cwd())
    if args.compile:
        remote.compile_to(pipeline, args.compile)
        print(f"{args.compile}: upload it in the Kubeflow UI, or say --host")
        return 0
    submission = remote.Submission(
        args.host, args.namespace, args.experiment, args.run_name, args.schedule, wait=not args.no_wait
    )
    remote.submit(pipeline, submission)
    return 0


def _target(args: argparse.Namespace, params: Params) -> Target:
    from pipelines import containers
    from pipelines.graph import Target

    image = "" if args.local else containers.image_id(params.cluster.image) if args.containers else params.cluster.image
    return Target(params, image, pretrained=args.model, remote=not (args.local or args.containers))


if __name__ == "__main__":
    sys.exit(main())
