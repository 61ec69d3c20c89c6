"""One export, from a model folder to one that serves."""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segraft.checkpoint import CARD, WEIGHTS, load_model, load_weights, read_card, sha256
from segraft.data.packed import DatasetCard, Packed, PackedDataset, PackedSplit
from segraft.errors import UserError
from segraft.export.graph import export_graph
from segraft.export.measure import Tally, measure
from segraft.export.quantize import quantize_onnx, quantize_openvino
from segraft.machine import cores
from segraft.models.network import MULTIPLE
from segraft.params import Export
from segraft.progress import progress
from segraft.serving.drift import Reference, statistics, summarize
from segraft.serving.fields import confidence
from segraft.serving.runtime import Runtime
from segraft.serving.runtimes import FILES, GRAPH, SERVING, open_named
from segraft.serving.runtimes.card import Measured, ServingCard
from segraft.serving.runtimes.eager import Eager
from segraft.steps import Metrics, write_json

FP32 = "torch-fp32"
"""The reference: what every runtime is to agree with."""
TORCH = "torch"
EVERY = 4
"""The confidence of every so many-th row and column makes an image's mean confidence."""


def export(export: Export, finetuned: Path, dataset: Path, exported: Path) -> Metrics:
    """See `segraft.steps.export`."""
    packed = PackedDataset(dataset)
    same_classes(finetuned, packed.card, dataset)
    load_weights(finetuned, read_card(finetuned))  # what is missing or damaged is named before any work
    split = "val" if len(packed.split("val")) else "train"
    samples = Spread(packed.split(split), export.images)
    exported.mkdir(parents=True)
    for name in (CARD, WEIGHTS):
        shutil.copyfile(finetuned / name, exported / name)
    unavailable = write_files(exported, export.runtimes, Spread(packed.split("train"), export.calibration_images))
    names = (TORCH, *(name for name in export.runtimes if name not in unavailable and name != TORCH))
    card = read_card(exported)
    draft = ServingCard(
        weights_sha256=card.weights_sha256,
        stride=MULTIPLE,
        chosen=TORCH,
        why="",
        runtimes={},
        unavailable=unavailable,
        measured_on={},
        files={file: sha256(exported / file) for name in names for file in FILES[name]},
        reference=None,
    )
    _write(exported, draft)
    runtimes, failed = answering(exported, names, export.threads, samples[0].image)
    eager = runtimes[TORCH]
    assert isinstance(eager, Eager)
    reference = eager.in_fp32()
    reference.predict(samples[0].image[None])
    truth, tallies = measure(reference, runtimes, samples)
    measured = judge(export, truth, tallies, {name: size_mb(exported, name) for name in runtimes})
    chosen, why = choose(measured)
    seen = reference_of(runtimes[chosen], packed.split("train"), export.images)
    changes = {"runtimes": measured, "chosen": chosen, "why": why, "reference": seen}
    changes |= {
        "unavailable": unavailable | failed,
        "measured_on": _circumstances(split, samples, packed.card, export.threads, truth),
    }
    _write(exported, draft.model_copy(update=changes))
    _table(measured, truth, chosen, why)
    return _metrics(measured, truth, chosen)


def write_files(folder: Path, runtimes: Sequence[str], calibration: Sequence[Packed]) -> dict[str, str]:
    """Write the files of the runtimes that are asked for; returns those that cannot be had, and why."""
    wanted = {file for name in runtimes for file in FILES[name]}
    if not wanted:
        return {}
    graph = folder / GRAPH
    network, card = load_model(folder)
    try:
        print(f"{GRAPH}: made by {export_graph(network, card, graph)}")
    except UserError as error:
        return {name: str(error) for name in runtimes if FILES[name]}
    images = [sample.image for sample in calibration]
    for name, quantize in {"onnx-int8": quantize_onnx, "openvino-int8": quantize_openvino}.items():
        if name in runtimes:
            quantize(graph, images, MULTIPLE, folder / FILES[name][0])
    if GRAPH not in wanted:
        graph.unlink()
    return {}


def answering(
    folder: Path, names: Sequence[str], threads: int, image: NDArray[np.uint8]
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """The runtimes that answer an (H, W, 3) uint8 image, warm by it, and for the others why not.

    Raises:
        Exception: PyTorch itself fails.
    """
    runtimes, failed = {}, {}
    for name in names:
        try:
            runtime = open_named(folder, name, threads)
            runtime.predict(image[None])
        except Exception as error:  # engines raise what they like; one that cannot run this graph is not chosen
            if name == TORCH:
                raise
            failed[name] = f"does not run here: {error}"
            print(f"{name}: {failed[name]}")
        else:
            runtimes[name] = runtime
    return runtimes, failed


def judge(
    export: Export, truth: Tally, tallies: Mapping[str, Tally], sizes: Mapping[str, float]
) -> dict[str, Measured]:
    """Every runtime's figures, and whether they are within what the gate allows."""
    measured = {}
    for name, tally in tallies.items():
        loss = 100 * (truth.miou - tally.miou)
        complaints = []
        if loss > export.max_miou_loss:
            complaints.append(f"loses {loss:.2f} points of mIoU, max_miou_loss is {export.max_miou_loss:g}")
        if tally.agreement < export.min_agreement:
            complaints.append(
                f"agrees on {tally.agreement:.4f} of the pixels, min_agreement is {export.min_agreement:g}"
            )
        measured[name] = Measured(
            latency_ms=round(tally.latency_ms, 3),
            size_mb=round(sizes[name], 3),
            miou=None if math.isnan(tally.miou) else tally.miou,
            agreement=tally.agreement,
            passed=not complaints,
            why="; ".join(complaints),
        )
    return measured


def choose(measured: Mapping[str, Measured]) -> tuple[str, str]:
    """The fastest runtime that passed, and why; eager PyTorch if none did."""
    passed = {name: of.latency_ms for name, of in measured.items() if of.passed}
    if not passed:
        return TORCH, "no runtime passed the parity gate"
    fastest = min(passed, key=passed.__getitem__)
    times = measured[TORCH].latency_ms / passed[fastest]
    return fastest, f"the fastest of {len(passed)} that passed the parity gate, {times:.1f} times as fast as {TORCH}"


def reference_of(runtime: Runtime, split: PackedSplit, images: int) -> Reference:
    """What the server's drift monitor compares with: statistics of training images and of the answers to them."""
    names = [c.name for c in runtime.card.classes]
    rows = []
    for sample in progress(Spread(split, images), "drift reference"):
        found = runtime.predict(sample.image[None], logits=True)
        assert found.logits is not None
        pixels = np.bincount(found.ids.ravel(), minlength=len(names))
        sure = float(confidence(found.logits[0, :, ::EVERY, ::EVERY]).mean())
        rows.append(statistics(sample.image, pixels, names) | {"confidence": sure})
    return summarize(rows)


class Spread(Sequence[Packed]):
    """So many samples, evenly spaced over a split, read as they are asked for; all of it if it has fewer."""

    def __init__(self, split: PackedSplit, count: int) -> None:
        self._split = split
        self._indices = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> Packed:  # type: ignore[override]
        return self._split[int(self._indices[place])]


def size_mb(folder: Path, runtime: str) -> float:
    """What a runtime reads, 10^6 bytes."""
    return sum((folder / file).stat().st_size for file in FILES[runtime] or (WEIGHTS,)) / 1e6


def same_classes(finetuned: Path, dataset: DatasetCard, location: Path) -> None:
    """Refuse a model folder that has other classes than the packed dataset at `location`."""
    known, wanted = [c.name for c in read_card(finetuned).classes], [c.name for c in dataset.classes]
    if known != wanted:
        raise UserError(f"{finetuned}: knows {known}, {location} has {wanted}; the gate needs images of its classes")


def _circumstances(
    split: str, samples: Sequence[Packed], dataset: DatasetCard, threads: int, truth: Tally
) -> dict[str, object]:
    info = Path("/proc/cpuinfo")
    names = (line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name"))
    return {
        "split": split,
        "images": len(samples),
        "size": list(samples[0].mask.shape),
        "dataset": dataset.fingerprint,
        "processor": next(names, platform.processor()) if info.is_file() else platform.processor(),
        "threads": threads or cores(),
        "fp32": {"latency_ms": round(truth.latency_ms, 3), "miou": None if math.isnan(truth.miou) else truth.miou},
    }


def _write(folder: Path, card: ServingCard) -> None:
    write_json(folder / SERVING, card.model_dump(mode="json"))


def _table(measured: Mapping[str, Measured], truth: Tally, chosen: str, why: str) -> None:
    print(f"\n{'runtime':<18}{'ms':>8}{'MB':>8}{'mIoU':>8}{'agrees':>10}")
    print(f"{FP32:<18}{truth.latency_ms:>8.1f}{'':>8}{100 * truth.miou:>8.2f}{'':>10}")
    for name, of in measured.items():
        score = "–" if of.miou is None else f"{100 * of.miou:.2f}"
        print(f"{name:<18}{of.latency_ms:>8.1f}{of.size_mb:>8.1f}{score:>8}{100 * of.agreement:>8.2f} %  {of.why}")
    print(f"chosen: {chosen}, {why}\n")


def _metrics(measured: Mapping[str, Measured], truth: Tally, chosen: str) -> Metrics:
    of = measured[chosen]
    metrics = {"latency_ms": of.latency_ms, "size_mb": of.size_mb, "agreement": round(of.agreement, 6)}
    if of.miou is not None:
        metrics["miou_loss"] = round(100 * (truth.miou - of.miou), 4)
    return metrics | {"speedup_over_fp32": round(truth.latency_ms / of.latency_ms, 3)}
