"""Segment images: by a server (--url), or by a model folder in this process (--model).

IMAGE is a file, a folder (searched through) or a quoted pattern such as 'photos/**/*.jpg'. Masks are palette PNGs whose
values are class ids, in OUT/masks; their size and orientation are those of the pixels as the file stores them.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from segraft.errors import UserError
from segraft.progress import bar
from segraft.steps import write_bytes

if TYPE_CHECKING:
    from segraft.serving.found import Segmentation

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
URL = "http://127.0.0.1:8080"


class Source(Protocol):
    """Who answers: a server's client, or a model folder."""

    parallel: int

    def segment(self, image: bytes, *, confidence: bool = False, overlay: float | None = None) -> Segmentation:
        """Segment one image file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Job:
    """One image and the files that its answer is written to."""

    image: Path
    mask: Path
    overlay: Path


@dataclass(frozen=True)
class Result:
    """What is left of an answer when its files are written."""

    job: Job
    answer: Segmentation

    def line(self, overlay: bool) -> dict[str, Any]:
        """As an object of --json."""
        found = [
            {"id": c.id, "class": c.name, "color": c.color, "pixels": c.pixels, "share": c.share}
            for c in self.answer.classes
        ]
        files = {"mask": str(self.job.mask)} | ({"overlay": str(self.job.overlay)} if overlay else {})
        took = round(self.answer.seconds, 4)
        return {"image": str(self.job.image), **files, "model": self.answer.model, "seconds": took, "classes": found}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `segraft predict`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, folder, or quoted pattern")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default=URL, help=f"the server ({URL})")
    where.add_argument("--model", type=Path, metavar="FOLDER", help="a model folder to use without a server")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="FOLDER", help="(predictions)")
    parser.add_argument("--overlay", action="store_true", help="write OUT/overlays, too: the picture under the classes")
    parser.add_argument("--alpha", type=_fraction, default=0.5, help="opacity of the classes in overlays (0.5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object an image instead of the table")
    parser.add_argument(
        "--timeout", type=_seconds, default=120.0, help="seconds that the server may take an image (120)"
    )
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="send it to the server")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="with --model: its section serve")


def main(args: argparse.Namespace) -> None:
    """Segment every image, write the files and print what was found.

    Raises:
        UserError: no image is there, nobody answers, or some images were refused (the others are written).
    """
    jobs = find_jobs(args.images, args.out)
    failed: list[str] = []
    results: list[Result] = []
    with open_source(args) as source, bar(len(jobs), 0, "predict", "image") as done:
        for outcome in _run(source, jobs, args.alpha if args.overlay else None):
            done.update()
            if isinstance(outcome, str):
                failed.append(outcome)
                continue
            results.append(outcome)
            if args.json:
                print(json.dumps(outcome.line(args.overlay)), flush=True)
    if results and not args.json:
        print(table([result.answer for result in results]))
        print(f"{len(results)} of {len(jobs)} images by {results[0].answer.model}: {args.out}")
    if failed:
        raise UserError("\n".join([f"{len(failed)} of {len(jobs)} images failed:", *sorted(failed)]))


def find_jobs(patterns: Sequence[str], out: Path) -> list[Job]:
    """The images that are meant, each once, and where their answers go: below `out` as they lie below their folder.

    Raises:
        UserError: a pattern that nothing matches, or two images whose masks would be one file.
    """
    jobs: dict[Path, Job] = {}
    answers = {(out / name).resolve() for name in ("masks", "overlays")}
    for pattern in patterns:
        named = Path(pattern).resolve()
        within = answers - {named, *named.parents} if named.is_dir() else set()
        for image, stem in _matches(pattern):
            if within & set(image.resolve().parents):
                continue  # of an earlier call, in a folder that lies in what was named
            job = Job(image, out / "masks" / f"{stem}.png", out / "overlays" / f"{stem}.png")
            other = jobs.setdefault(job.mask, job)
            if other.image.resolve() != image.resolve():
                raise UserError(f"{other.image} and {image}: both would become {job.mask}; give them in two calls")
    return list(jobs.values())


def _matches(pattern: str) -> Iterator[tuple[Path, Path]]:
    """Images, and their paths without suffix below the folder that was named."""
    path = Path(pattern)
    if not pattern:
        raise UserError("IMAGE: empty; name a file, a folder (. for this one) or a pattern")
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not found:
            raise UserError(f"{path}: no image in this folder (looked for {', '.join(SUFFIXES)})")
        yield from ((file, file.relative_to(path).with_suffix("")) for file in found)
    elif path.exists():
        yield path, Path(path.stem)
    else:
        files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))
        if not files:
            raise UserError(f"{pattern}: no such file")
        yield from ((file, Path(file.stem)) for file in files)


def open_source(args: argparse.Namespace) -> Source:
    """The server's client, or the model folder.

    Raises:
        UserError: not a header, or not a model folder.
    """
    if args.model:
        from segraft.params import load_params
        from segraft.serving.local import Local

        return Local(args.model, load_params(args.params).serve)
    from segraft.serving.client import Client

    headers = {}
    for header in args.header:
        name, found, value = header.partition(":")
        if not found:
            raise UserError(f"--header {header}: expected NAME:VALUE")
        headers[name.strip()] = value.strip()
    return Client(args.url, timeout=args.timeout, headers=headers)


def _run(source: Source, jobs: Sequence[Job], overlay: float | None) -> Iterator[Result | str]:
    """Results, or sentences about images that were refused, as they come; ends at once when nobody answers."""
    from segraft.serving.client import Unreachable

    with ThreadPoolExecutor(source.parallel) as pool:
        futures = {pool.submit(_one, source, job, overlay): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except Unreachable:
                    raise
                except UserError as error:
                    yield f"{futures[future].image}: {str(error).removeprefix('image: ')}"
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one(source: Source, job: Job, overlay: float | None) -> Result:
    from dataclasses import replace

    import numpy as np

    from segraft.data.reading import read_bytes

    answer = source.segment(read_bytes(job.image), overlay=overlay)
    write_bytes(job.mask, answer.mask_png)
    if answer.overlay_png is not None:
        write_bytes(job.overlay, answer.overlay_png)
    empty = np.empty((0, 0), np.uint8)  # of a thousand images only the table is kept
    return Result(job, replace(answer, mask=empty, mask_png=b"", overlay_png=None))


def table(answers: Sequence[Segmentation]) -> str:
    """Share and pixels of each class over all images, largest first."""
    total = sum(c.pixels for answer in answers for c in answer.classes)
    sums: dict[str, int] = {}
    for answer in answers:
        for found in answer.classes:
            sums[found.name] = sums.get(found.name, 0) + found.pixels
    width = max(len(name) for name in [*sums, "class"])
    lines = [f"{'class':<{width}}  {'share':>7}  {'pixels':>14}"]
    for name, pixels in sorted(sums.items(), key=lambda pair: -pair[1]):
        lines.append(f"{name:<{width}}  {pixels / total:>7.2%}  {pixels:>14,}")
    return "\n".join(lines)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0 seconds")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 … 1")
    return value
