"""Read all samples, in parallel, into one table; memory holds rows, never images."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import numpy as np

from segraft.data.formats import Sample
from segraft.data.validation.facts import Source, read_sample, schema
from segraft.errors import UserError
from segraft.machine import cores
from segraft.progress import progress

if TYPE_CHECKING:
    import pyarrow as pa

Task = tuple[str, Sample]
"""Dataset and sample."""
Rows = list[dict[str, Any]]
CHUNK = 8
"""Samples that a process is handed at a time."""
WORTH = 64
"""Samples for which a process is worth its start."""
BATCH = 1024
"""Rows that are kept as Python objects before they become a record batch."""


def scan(sources: Mapping[str, Source], tasks: Sequence[Task], workers: int) -> pa.Table:
    """The facts of all samples, in the order of `tasks`.

    Args:
        sources: dataset → where and how to read it.
        tasks: what to read.
        workers: processes; 0: one for each core that this process may use.

    Raises:
        UserError: a process died while reading; the message names the files it had.
    """
    import pyarrow as pa

    keep_memory()
    workers = min(workers or cores(), len(tasks) // WORTH)
    rows = _in_processes(sources, tasks, workers) if workers > 1 else (_read(sources, task) for task in tasks)
    columns, batches = schema(), []
    waiting: Rows = []
    for row in progress(rows, "validate", total=len(tasks)):
        waiting.append(row)
        if len(waiting) == BATCH:
            batches.append(pa.RecordBatch.from_pylist(waiting, columns))
            waiting = []
    batches.append(pa.RecordBatch.from_pylist(waiting, columns))
    return pa.Table.from_batches(batches, columns)


def keep_memory() -> None:
    """Let this process keep the memory of one image for the next; else a fifth of the time goes into page faults.

    glibc returns a large block to the system when it is freed, and takes the largest block so freed, up to 32 MiB, for
    the size of those that are worth keeping (mallopt(3), M_MMAP_THRESHOLD).
    """
    np.empty(31 << 20, np.uint8)


def _read(sources: Mapping[str, Source], task: Task) -> dict[str, Any]:
    dataset, sample = task
    return read_sample(sources[dataset], dataset, sample)


def _in_processes(sources: Mapping[str, Source], tasks: Sequence[Task], workers: int) -> Iterator[dict[str, Any]]:
    """As `_read` for each task; few chunks are under way at a time, so that rows do not pile up."""
    pending: deque[tuple[Sequence[Task], Future[Rows]]] = deque()
    # spawn: a forked child would inherit locks of the libraries' threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(dict(sources),)) as pool:
        for place in range(0, len(tasks), CHUNK):
            chunk = tasks[place : place + CHUNK]
            pending.append((chunk, pool.submit(_work, chunk)))
            if len(pending) == 4 * workers:
                yield from _finish(pending)
        while pending:
            yield from _finish(pending)


def _finish(pending: deque[tuple[Sequence[Task], Future[Rows]]]) -> Rows:
    chunk, future = pending.popleft()
    try:
        return future.result()
    except BrokenProcessPool:
        names = ", ".join(f"{dataset}: {sample.image}" for dataset, sample in chunk)
        raise UserError(
            f"a process died while reading; it ran out of memory, or one of these files breaks its decoder: {names}; "
            "try validate.workers: 1 or a lower validate.max_pixels"
        ) from None


_sources: dict[str, Source] = {}


def _start(sources: dict[str, Source]) -> None:
    import cv2

    cv2.setNumThreads(1)
    keep_memory()
    _sources.update(sources)


def _work(chunk: Sequence[Task]) -> Rows:
    return [_read(_sources, task) for task in chunk]
