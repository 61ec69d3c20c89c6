"""Write generated scenes in Cityscapes' folder layout, with as many processes as there are cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.data.streets.size import check_size
from segraft.machine import cores
from segraft.progress import progress

if TYPE_CHECKING:  # pydantic would be a third of the workers' start-up
    from segraft.params import Condition, Split, StreetSet

SPLITS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
"""The number of each split, part of its scenes' seeds and names."""
FRAME = 19
"""Cityscapes annotates the twentieth frame of each recording; here every scene is a recording of its own."""
IN_PROCESS = 8
"""Fewer scenes than this are not worth a pool."""


@dataclass(frozen=True)
class Scene:
    """One image to be made."""

    root: Path
    split: Split
    index: int
    condition: Condition
    seed: int
    dataset: int
    size: tuple[int, int]

    @property
    def image(self) -> Path:
        """Where the image goes."""
        return self._path("leftImg8bit", "leftImg8bit")

    @property
    def mask(self) -> Path:
        """Where the mask of label ids goes."""
        return self._path("gtFine", "gtFine_labelIds")

    def _path(self, folder: str, suffix: str) -> Path:
        recording = SPLITS[self.split] * 100_000 + self.index  # unique in the dataset
        name = f"{self.condition}_{recording:06d}_{FRAME:06d}_{suffix}.png"
        return self.root / folder / self.split / self.condition / name


def plan(root: Path, wanted: StreetSet, seed: int, dataset: int, size: tuple[int, int]) -> list[Scene]:
    """The scenes of a dataset; each split goes through the conditions in turn.

    Args:
        root: folder of the dataset.
        wanted: how many scenes a split, and under which conditions.
        seed: of everything.
        dataset: number of the dataset; scenes of different datasets have nothing in common.
        size: height, width in pixels.

    Raises:
        UserError: the size is out of range.
    """
    check_size(size)
    counts: dict[Split, int] = {"train": wanted.train, "val": wanted.val, "test": wanted.test}
    turns = wanted.conditions
    return [
        Scene(root, split, index, turns[index % len(turns)], seed, dataset, size)
        for split, count in counts.items()
        for index in range(count)
    ]


def write_scenes(scenes: list[Scene], what: str, workers: int = 0) -> None:
    """Render scenes and write image and mask; the bytes do not depend on the number of workers.

    Args:
        scenes: what to make.
        what: the progress bar's name.
        workers: processes (0: one a core).
    """
    for folder in {path.parent for scene in scenes for path in (scene.image, scene.mask)}:
        folder.mkdir(parents=True, exist_ok=True)
    workers = min(workers or cores(), len(scenes) // IN_PROCESS)
    if workers < 2:
        done: Iterator[None] = map(write_scene, scenes)
        _drain(done, what, len(scenes))
        return
    with _pool(workers) as pool:
        _drain(pool.map(write_scene, scenes, chunksize=2), what, len(scenes))


def _drain(done: Iterator[None], what: str, total: int) -> None:
    for _ in progress(done, what, total):
        pass


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that do not inherit this one's threads; after an error the scenes not begun are dropped."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["segraft.data.streets.files"])  # one import serves all workers, none is made here
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def write_scene(scene: Scene) -> None:
    """Render one scene and write its two files."""
    from segraft.data.streets.files import write_scene

    write_scene(scene)


def _begin() -> None:
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    np.empty(31 << 20, np.uint8)  # once freed, glibc keeps smaller blocks; else a night costs 2,500 page faults
