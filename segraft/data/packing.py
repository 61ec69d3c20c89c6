"""From validated files to a packed dataset: labels mapped, images resized, offline augmentation added."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import ClassCard
from segraft.data.formats import SPLITS, list_samples
from segraft.data.mixing import PASTED, copy_paste
from segraft.data.packed import CARD, CoarseCard, DatasetCard, Packed, ShardWriter
from segraft.data.reading import read_image, read_mask, resize_pair
from segraft.data.streets import conditions
from segraft.data.taxonomy import UNKNOWN, Encoding, Taxonomy, load_taxonomy
from segraft.data.transforms import rare_classes
from segraft.errors import UserError
from segraft.machine import cores
from segraft.params import Augment, Condition, Dataset
from segraft.progress import progress
from segraft.steps import write_json

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Files:
    """A validated dataset on disk, and how its masks become the model's classes."""

    root: Path
    rows: Sequence[dict[str, Any]]
    """rows of the manifest"""
    encoding: Encoding
    taxonomy: Taxonomy
    """of the masks"""
    classes: Taxonomy
    """of the model"""
    size: tuple[int, int] | None
    coarse: tuple[tuple[int, ...], ...] | None = None
    """of several datasets that are trained on together: the sets of classes that a label may stand for"""

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """(256,) uint8: trainId of the masks → trainId of the model, or len(classes) + place in `coarse`."""
        if self.coarse is None:
            return self.classes.map_from(self.taxonomy)
        table, several = self.classes.joint_from(self.taxonomy)
        for index, members in several.items():
            if members in self.coarse:
                table[index] = len(self.classes.classes) + self.coarse.index(members)
        return table

    def read(self, row: dict[str, Any]) -> Packed:
        """One sample in the model's classes.

        Raises:
            UserError: the file is not what the manifest describes.
        """
        image = read_image(self.root / row["image"])
        mask = read_mask(self.root / row["mask"], self.encoding, self.taxonomy)
        if (mask == UNKNOWN).any() or mask.shape != image.shape[:2]:
            raise UserError(f"{self.root / row['mask']}: has changed since validate read it; run `dvc repro` again")
        mask = self.table[mask]
        if row["split"] != "train":  # a score needs to know the class
            mask[mask >= len(self.classes.classes)] = self.classes.ignore_index
        if self.size:
            image, mask = resize_pair(image, mask, self.size)
        return Packed(row["id"], row["group"], tuple(row["tags"]), image, mask)

    def class_pixels(self) -> NDArray[np.int64]:
        """(classes,) pixels of each of the model's classes in the train split."""
        total = np.zeros(256, np.int64)
        for row in self.rows:
            if row["split"] == "train":
                np.add.at(total, self.table[: len(row["class_pixels"])], row["class_pixels"])
        return total[: len(self.classes.classes)]


def open_files(
    root: Path,
    dataset: Dataset,
    classes: str,
    taxonomies: Path,
    rows: Sequence[dict[str, Any]],
    size: tuple[int, int] | None,
    coarse: tuple[tuple[int, ...], ...] | None = None,
    below: str = "",
) -> Files:
    """A validated dataset; one of format none has no samples.

    Args:
        root: what the paths of `rows` are relative to.
        dataset: its section.
        classes: name of the model's taxonomy.
        taxonomies: folder of taxonomy files.
        rows: its manifest.
        size: what samples are resized to.
        coarse: of one of several datasets: the sets of trainIds that a label may stand for.
        below: its folder below `root`.

    Raises:
        UserError: no map leads from the dataset's taxonomy to `classes`, the model's.
    """
    encoding = list_samples(root / below, dataset).encoding
    own, target = load_taxonomy(taxonomies, dataset.taxonomy), load_taxonomy(taxonomies, classes)
    files = Files(root, rows, encoding, own, target, size, coarse)
    if rows:
        _ = files.table  # a map that is missing is told before anything is packed
    return files


def pack(
    files: Files,
    folder: Path,
    augment: Augment,
    extra: Iterable[Callable[[], Packed]],
    kin: Mapping[str, tuple[tuple[str, str], ...]],
    further: Mapping[str, Sequence[Callable[[], Packed]]] = MappingProxyType({}),
    shares: Mapping[str, float] = MappingProxyType({}),
    part: tuple[int, int] = (0, 1),
) -> DatasetCard:
    """Write a packed dataset; memory does not grow with the number of samples.

    Args:
        files: what to pack.
        folder: where to.
        augment: the knobs.
        extra: makers of further train samples.
        kin: other taxonomies, and how their classes are linked with these.
        further: split → makers of further samples: source, unlabelled, those of another dataset.
        shares: split → share of the samples that training draws from it; empty: all are of train.
        part: (k, n): of each split only the k-th of n runs of samples.
    """
    splits = {}
    makers: dict[str, list[Callable[[], Packed]]] = {
        split: [partial(files.read, row) for row in files.rows if row["split"] == split] for split in SPLITS
    }
    makers["train"] += extra
    for split, jobs in further.items():
        if jobs:
            makers[split] = [*makers.get(split, ()), *jobs]
    number, parts = part
    for split, every in makers.items():
        jobs = every[len(every) * number // parts : len(every) * (number + 1) // parts]
        writer = ShardWriter(folder, split, len(files.classes.classes), augment.codec, augment.shard_mb)
        what = f"pack {folder.name} {split}"
        samples = in_order(jobs, lambda job: job())
        for sample in progress(samples, what, total=len(jobs)) if jobs else ():
            writer.add(sample)
        splits[split] = writer.close()
    card = DatasetCard(
        taxonomy=files.classes.name,
        classes=tuple(ClassCard(name=c.name, color=c.color) for c in files.classes.classes),
        codec=augment.codec,
        crop=augment.crop,
        online=augment.online,
        splits=splits,
        kin=dict(kin),
        coarse=tuple(_coarse_card(members, files.classes) for members in files.coarse or ()),
        shares=dict(shares),
    )
    write_json(folder / CARD, card.model_dump())
    return card


def _coarse_card(members: tuple[int, ...], classes: Taxonomy) -> CoarseCard:
    return CoarseCard(name=" or ".join(classes.names[index] for index in members), members=members)


def in_order(jobs: Iterable[Job], work: Callable[[Job], Result]) -> Iterator[Result]:
    """Results in the order of the jobs, a few computed ahead on every core (decoding lets go of the GIL)."""
    threads = cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def simulated(files: Files, augment: Augment) -> list[Callable[[], Packed]]:
    """Makers of copies of train images under another condition, for the shares of `augment.simulate`."""
    train = [row for row in files.rows if row["split"] == "train"]
    jobs: list[Callable[[], Packed]] = []
    shares: tuple[tuple[Condition, float], ...] = (
        ("night", augment.simulate.night),
        ("rain", augment.simulate.rain),
        ("fog", augment.simulate.fog),
    )
    for number, (condition, share) in enumerate(shares):
        rng = np.random.default_rng([augment.seed, 0, number])
        for index in sorted(rng.permutation(len(train))[: round(share * len(train))]):
            jobs.append(partial(_simulate, files, train[index], condition, augment.seed, int(index)))
    return jobs


def _simulate(files: Files, row: dict[str, Any], condition: Condition, seed: int, index: int) -> Packed:
    sample = files.read(row)
    rng = np.random.default_rng([seed, 1, index, sum(condition.encode())])
    image = conditions.apply(sample.image, condition, rng)
    return replace(sample, id=f"{sample.id}+{condition}", tags=(*sample.tags, condition), image=image)


def pasted(files: Files, augment: Augment) -> list[Callable[[], Packed]]:
    """Makers of train images with rare objects of other train images pasted in, as `augment.copy_paste` asks."""
    knobs = augment.copy_paste
    train = [row for row in files.rows if row["split"] == "train"]
    if not knobs.copies or len(train) < 2:
        return []
    unknown = sorted(set(knobs.classes) - set(files.classes.names))
    if unknown:
        raise UserError(f"augment.copy_paste.classes: {unknown}: not in {files.classes.name}: {files.classes.names}")
    chosen = [files.classes.names.index(name) for name in knobs.classes] or rare_classes(files.class_pixels().tolist())
    return [
        partial(_paste, files, train, place, copy, chosen, augment.seed)
        for place in range(len(train))
        for copy in range(knobs.copies)
    ]


def _paste(
    files: Files, train: Sequence[dict[str, Any]], place: int, copy: int, classes: Sequence[int], seed: int
) -> Packed:
    rng = np.random.default_rng([seed, 2, place, copy])
    donor = (place + 1 + int(rng.integers(len(train) - 1))) % len(train)
    host, guest = files.read(train[place]), files.read(train[donor])
    image, mask = copy_paste(host.image, host.mask, guest.image, guest.mask, classes, rng)
    return replace(host, id=f"{host.id}+paste{copy}", tags=(*host.tags, PASTED), image=image, mask=mask)


def spread(files: Files, count: int) -> list[Callable[[], Packed]]:
    """Makers of at most `count` train samples, evenly spaced: the source's part of mixed batches."""
    train = [row for row in files.rows if row["split"] == "train"]
    count = min(count, len(train))
    return [partial(files.read, train[i * len(train) // count]) for i in range(count)]
