"""Packed datasets: Arrow IPC shards that training maps into memory, and one JSON card that explains them.

A shard is an uncompressed Arrow file with one record batch a sample, so a crop touches only the pages it shows, and a
sample anywhere is one seek. Shards of an object store (any fsspec URL) are fetched whole, ahead of use, into a cache.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from segraft.checkpoint import ClassCard, sha256
from segraft.errors import UserError
from segraft.params import Online, Section, Size, build, parse_json

Codec = Literal["raw", "jpeg"]
CARD = "dataset.json"
PAUSES = (0.5, 2.0)
"""Seconds before a shard that could not be fetched is tried again."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image", pa.large_binary()),
        ("mask", pa.large_binary()),
    ]
)


class Shard(Section):
    """One file of a split."""

    file: str = Field(pattern=r"^[A-Za-z0-9_-]+\.arrow$")
    samples: int = Field(gt=0)
    sha256: str


class SplitCard(Section):
    """One split."""

    shards: tuple[Shard, ...]
    samples: int
    class_pixels: tuple[int, ...]
    shown_pixels: tuple[int, ...] = ()
    """labelled pixels of the samples that show each class"""


class CoarseCard(Section):
    """What a pixel may be labelled with besides a class: one of several classes."""

    name: str
    members: tuple[int, ...] = Field(min_length=2)
    """trainIds"""


class DatasetCard(Section):
    """dataset.json."""

    format: Literal[1] = 1
    taxonomy: str
    classes: tuple[ClassCard, ...]
    ignore_index: Literal[255] = 255
    codec: Codec
    crop: Size
    online: Online
    splits: dict[str, SplitCard]
    kin: dict[str, tuple[tuple[str, str], ...]] = Field(default_factory=dict)
    """another taxonomy → pairs of its class and ours, by which a model of its classes is grafted or scored"""
    coarse: tuple[CoarseCard, ...] = ()
    """the k-th is len(classes) + k in the masks of train samples"""
    shares: dict[str, float] = Field(default_factory=dict)
    """where several datasets are trained on together: split → share of the samples that is drawn from it"""

    @property
    def fingerprint(self) -> str:
        """sha256 over all that training can see: the shards' bytes, the classes, the crop and the augmentations."""
        text = json.dumps(self.model_dump(exclude={"kin"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Packed:
    """One sample; with the raw codec the arrays are read-only views of the mapped file."""

    id: str
    group: str
    tags: tuple[str, ...]
    image: NDArray[np.uint8]
    """(H, W, 3) RGB"""
    mask: NDArray[np.uint8]
    """(H, W) trainIds, 255 ignored; a value between is one of the card's coarse labels"""


class ShardWriter:
    """Writes one split, sample after sample, in bounded memory."""

    def __init__(self, folder: Path, split: str, classes: int, codec: Codec, shard_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._split, self._codec = folder, split, codec
        self._limit = shard_mb << 20
        self._pixels, self._shown = np.zeros(256, np.int64), np.zeros(256, np.int64)
        self._classes = classes
        self._shards: list[Shard] = []
        self._writer: Any = None
        self._bytes = self._rows = 0

    def add(self, sample: Packed) -> None:
        """Append a sample."""
        image, mask = _encode(sample.image, sample.mask, self._codec)
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._folder / self._file), SCHEMA)
        height, width = sample.mask.shape
        row = [sample.id, sample.group, list(sample.tags), height, width, image, mask]
        arrays = [pa.array([v], type=field.type) for v, field in zip(row, SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
        pixels = np.bincount(sample.mask.ravel(), minlength=256)
        self._pixels += pixels
        self._shown[pixels > 0] += pixels[: self._classes].sum()
        self._bytes += len(image) + len(mask)
        self._rows += 1
        if self._bytes >= self._limit:
            self._finish_shard()

    def close(self) -> SplitCard:
        """Finish the last shard."""
        if self._rows:
            self._finish_shard()
        pixels, shown = (tuple(map(int, counts[: self._classes])) for counts in (self._pixels, self._shown))
        samples = sum(shard.samples for shard in self._shards)
        return SplitCard(shards=tuple(self._shards), samples=samples, class_pixels=pixels, shown_pixels=shown)

    @property
    def _file(self) -> str:
        return f"{self._split}-{len(self._shards):05d}.arrow"

    def _finish_shard(self) -> None:
        self._writer.close()
        path = self._folder / self._file
        self._shards.append(Shard(file=path.name, samples=self._rows, sha256=sha256(path)))
        self._writer, self._bytes, self._rows = None, 0, 0


def _encode(image: NDArray[np.uint8], mask: NDArray[np.uint8], codec: Codec) -> tuple[bytes, bytes]:
    if codec == "raw":
        return image.tobytes(), mask.tobytes()
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return jpeg.tobytes(), cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _decode(row: Mapping[str, Any], codec: Codec) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, mask = (np.frombuffer(row[name].as_buffer(), np.uint8) for name in ("image", "mask"))
    if codec == "raw":
        height, width = row["height"].as_py(), row["width"].as_py()
        return image.reshape(height, width, 3), mask.reshape(height, width)
    rgb = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
    return rgb, cv2.imdecode(mask, cv2.IMREAD_UNCHANGED)  # type: ignore[return-value]


class PackedDataset:
    """A packed dataset in a folder or at an fsspec URL.

    Args:
        location: the folder, or for example s3://bucket/packed/source.
        cache: where fetched shards are kept (only for a URL).

    Raises:
        UserError: there is no packed dataset.
    """

    def __init__(self, location: Path | str, cache: Path | None = None) -> None:
        self.location = str(location)
        self._remote: Any = _filesystem(self.location) if "://" in self.location else None
        self._cache = cache
        self._fetchers = ThreadPoolExecutor(2, "shard")
        self.card: DatasetCard = build(DatasetCard, self._read_card(), f"{self.location}/{CARD}")

    def _read_card(self) -> Any:
        where = f"{self.location}/{CARD}"
        try:
            return parse_json(self._remote.cat_file(where) if self._remote else Path(where).read_bytes(), where)
        except FileNotFoundError:
            raise UserError(f"{self.location}: not a packed dataset: it has no {CARD}; run the augment step") from None

    def split(self, name: str) -> PackedSplit:
        """The samples of train, val or test; an empty split has length 0."""
        card = self.card.splits.get(name) or SplitCard(shards=(), samples=0, class_pixels=())
        return PackedSplit(self, card)

    def shard_path(self, shard: Shard) -> Path:
        """A local file with the shard's bytes, checked; fetched first if the dataset is remote.

        Raises:
            UserError: it is missing or damaged, or cannot be fetched.
        """
        if self._remote is None:
            local = Path(self.location) / shard.file
            if fault := _fault(local, shard):
                raise UserError(f"{local}: {fault}; run the augment step again")
            return local
        assert self._cache is not None, "a remote dataset needs a cache folder"
        local = self._cache / f"{shard.sha256}.arrow"
        for pause in (*PAUSES, None):
            try:
                if _fault(local, shard):
                    self._fetch(shard, local)
                break
            except Exception as error:  # every kind of store has its own
                if pause is None:
                    raise UserError(f"{self.location}/{shard.file}: cannot be fetched: {error}") from error
                time.sleep(pause)
        return local

    def _fetch(self, shard: Shard, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_suffix(f".{uuid.uuid4().hex}.part")  # processes on many machines may share the cache
        try:
            self._remote.get_file(f"{self.location}/{shard.file}", str(partial))
            if fault := _fault(partial, shard):
                raise OSError(fault)
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def open_shard(self, shard: Shard) -> Future[Any]:
        """Start to fetch, check and open a shard in the background."""
        return self._fetchers.submit(self._open, shard)

    def _open(self, shard: Shard) -> Any:
        path = self.shard_path(shard)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: not a readable shard ({error}); run the augment step again") from None

    def close(self) -> None:
        """Stop fetching, and delete what was fetched; nothing can be read afterwards."""
        self._fetchers.shutdown(cancel_futures=True)
        if self._remote and self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)  # another process may be deleting it, too


def _fault(path: Path, shard: Shard) -> str:
    if not path.exists():
        return f"missing, though {CARD} names it"
    return "" if sha256(path) == shard.sha256 else f"damaged: its sha256 is not the one in {CARD}"


def _filesystem(url: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(url)[0]


class PackedSplit(Sequence[Packed]):
    """The samples of one split, by index; safe to read from many threads."""

    def __init__(self, dataset: PackedDataset, card: SplitCard) -> None:
        self.card = card
        self._dataset = dataset
        self.offsets = np.cumsum([0, *(shard.samples for shard in card.shards)])
        """(shards + 1,) index of each shard's first sample"""
        self._readers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.card.samples

    def shard_of(self, index: int) -> int:
        """The shard that holds sample `index`."""
        return int(np.searchsorted(self.offsets, index, side="right")) - 1

    def prefetch(self, shard: int) -> Future[Any]:
        """Start to fetch and open a shard, unless that is under way or done; what has failed is tried again."""
        with self._lock:
            reader = self._readers.get(shard)
            if reader is None or (reader.done() and reader.exception()):
                reader = self._readers[shard] = self._dataset.open_shard(self.card.shards[shard])
            return reader

    def __getitem__(self, index: int) -> Packed:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = self.shard_of(index)
        batch = self.prefetch(shard).result().get_batch(int(index - self.offsets[shard]))
        row = {name: batch.column(i)[0] for i, name in enumerate(SCHEMA.names)}
        image, mask = _decode(row, self._dataset.card.codec)
        return Packed(row["id"].as_py(), row["group"].as_py(), tuple(row["tags"].as_py()), image, mask)

    def __iter__(self) -> Iterator[Packed]:
        return (self[index] for index in range(len(self)))
