"""From the files that the steps leave behind to what is logged: one record a training step, one for the whole run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segraft.checkpoint import CARD, read_card
from segraft.lineage import Artifact, Lock
from segraft.params import read_json
from segraft.tracking import DatasetVersion, Point, Record

TRAININGS = ("pretrain", "finetune", "scratch")
MODELS = ("source", "scratch", "transferred")
HEADLINES = ("miou", "pixel_accuracy", "mean_accuracy", "dice")
SUMMARY = ("steps", "epochs", "seconds", "best_epoch", "best_miou", "peak_memory_mb", "images_per_second")


@dataclass(frozen=True)
class Files:
    """What the register step is given."""

    model: Path
    dataset: Path
    scores: Path
    logs: Path
    report: Path
    lock: Path

    @property
    def key(self) -> str:
        """Digest of the model and its scores: the same are the same pipeline run."""
        content = (self.model / CARD).read_bytes() + self.scores.read_bytes()
        return hashlib.sha256(content).hexdigest()


def pipeline_record(files: Files) -> Record:
    """The whole run: every training's params, the scores, the report, and the data with their DVC versions."""
    trainings = {step: read_json(files.logs / step / "training.json") for step in TRAININGS}
    started = min(training["started"] for training in trainings.values())
    ended = max(training["ended"] for training in trainings.values())
    lock, card = Lock(files.lock), read_card(files.model)
    sheet = files.logs / "augment.png"
    return Record(
        name=f"{card.arch}-{card.encoder}-{card.weights_sha256[:8]}",
        key=files.key,
        started=started,
        ended=ended,
        params={step: training["params"] for step, training in trainings.items()},
        points=[Point(key, value, 0, ended) for key, value in _scores(read_json(files.scores))],
        tags={"segraft.dvc_lock": "logged" if files.lock.is_file() else "missing: data by fingerprint only"},
        artifacts=[path for path in (files.report, files.scores, sheet, files.lock) if path.is_file()],
        datasets=_pipeline_datasets(files, lock),
    )


def training_record(files: Files, step: str) -> Record:
    """One training step: its params, curves, load of the machine, and the dataset that it read."""
    log = files.logs / step
    training = read_json(log / "training.json")
    ended = training["ended"]
    summary = [Point(f"summary/{k}", training[k], 0, ended) for k in SUMMARY if _is_number(training.get(k))]
    artifact = Lock(files.lock).read_by(step, made_by="augment")
    data = DatasetVersion(*_version(artifact, f"dataset of {step}", training["dataset"]), context="training")
    return Record(
        name=step,
        key=f"{files.key}/{step}",
        started=training["started"],
        ended=ended,
        params=training["params"],
        points=[*_curves(log / "history.jsonl", ""), *_curves(log / "system.jsonl", "system/"), *summary],
        tags={f"environment.{key}": str(value) for key, value in training["environment"].items()},
        artifacts=sorted(log.iterdir()),
        datasets=[data],
    )


def _curves(path: Path, prefix: str) -> Iterator[Point]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines):
        row = json.loads(line)
        step, time = row.pop("step", number), row.pop("time")
        yield from (Point(f"{prefix}{key}", value, step, time) for key, value in row.items() if _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of what was scored; a model, or a class, without a score has none."""
    for model in (model for model in MODELS if scores[model]):
        found = {key: scores[model][key] for key in HEADLINES}
        found |= {f"iou/{name}": value for name, value in scores[model]["iou"].items()}
        yield from ((f"{model}/{key}", value) for key, value in found.items() if value is not None)
    yield from ((f"gain/{over}", gain["miou"]) for over, gain in scores["gain"].items() if gain)


def _pipeline_datasets(files: Files, lock: Lock) -> list[DatasetVersion]:
    """The test set, and every folder of data that the packed datasets were made of."""
    from segraft.data.packed import PackedDataset

    card = PackedDataset(files.dataset).card
    facts = {"fingerprint": card.fingerprint, "samples": {name: split.samples for name, split in card.splits.items()}}
    version = _version(lock.find(files.dataset), str(files.dataset), card.fingerprint)
    packed = DatasetVersion(*version, context="evaluation", facts=facts)
    raw = [a for a in lock.deps("augment") if a.md5.endswith(".dir")]
    return [packed, *(DatasetVersion(*_version(a, a.path, ""), context="origin") for a in raw)]


def _version(artifact: Artifact | None, name: str, fingerprint: str) -> tuple[str, str, str]:
    """(name, digest, uri): DVC's md5 if there is one, else the start of the packed dataset's own fingerprint."""
    if artifact:
        return artifact.path, artifact.md5, artifact.path
    return name, fingerprint, name
