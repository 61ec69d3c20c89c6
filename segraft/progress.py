"""Progress bars: one look for all long work, on a terminal and in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "image", initial: int = 0) -> tqdm[T]:
    """`items` with a bar on stderr; a log that is no terminal gets one line each 10 s rather than a stream."""
    quiet = not sys.stderr.isatty()
    return tqdm(
        items,
        desc=what,
        total=total,
        initial=initial,
        unit=f" {unit}",
        mininterval=10 if quiet else 0.2,
        maxinterval=30 if quiet else 10,
        ascii=quiet,
        dynamic_ncols=not quiet,
    )


def bar(total: int, done: int, what: str, unit: str) -> tqdm[None]:
    """A bar that is moved by hand and shows what is set with `set_postfix`."""
    return progress((), what, total=total, unit=unit, initial=done)
