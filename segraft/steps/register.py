"""Step register: the run goes to MLflow, the model to its registry."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.errors import UserError
from segraft.params import Evaluate, Register, Tracking
from segraft.steps import In, Metrics, Out, Work, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segraft.checkpoint import ModelCard
    from segraft.data.packed import DatasetCard, PackedDataset
    from segraft.records import Files
    from segraft.registry.champion import Contest
    from segraft.tracking import Tracker


def register(
    register: Register,
    tracking: Tracking,
    evaluate: Evaluate,
    finetuned: In,
    dataset: In,
    scores: In,
    logs: In,
    report: In,
    lock: Work,
    registered: Out,
) -> Metrics:
    """Log the pipeline run to MLflow, register the transferred model, and make it champion if it beats the incumbent.

    Args:
        finetuned: model folder of the transferred model, with the runtimes that export added.
        dataset: the packed target dataset.
        scores: JSON file that evaluate wrote.
        logs: folder with the training logs pretrain/, finetune/ and scratch/.
        report: the HTML report.
        lock: dvc.lock, for the versions of the data; may be missing.
        registered: JSON file with the registered name, version, aliases and run.
    """
    from segraft.params import read_json
    from segraft.records import TRAININGS, Files, pipeline_record, training_record
    from segraft.tracking import TrackingUnavailable, connect, without_password

    files = Files(finetuned, dataset, scores, logs, report, lock)
    every_score = read_json(scores)
    _check(files, every_score)
    whole, trainings = pipeline_record(files), [training_record(files, step) for step in TRAININGS]
    try:
        with connect(tracking) as tracker:
            run = tracker.log(whole)
            for training in trainings:
                tracker.log(training, parent=run)
            outcome: dict[str, Any] = {"tracked": True, "uri": without_password(tracker.uri), "run": run}
            outcome |= _register(register, evaluate, files, every_score, tracker, run)
    except TrackingUnavailable as error:
        if tracking.required:
            raise
        outcome = {"tracked": False, "why": str(error)}
        print(f"warning: not registered: {error}", file=sys.stderr)
    write_json(registered, outcome)
    print(summary(every_score, outcome, report))
    return {key: float(outcome[key]) for key in ("tracked", "version", "champion") if key in outcome}


def _check(files: Files, scores: dict[str, Any]) -> None:
    from segraft.checkpoint import read_card

    ours, scored = read_card(files.model).weights_sha256, scores.get("transferred")
    if not isinstance(scored, dict) or not {"weights_sha256", "miou"} <= set(scored):
        raise UserError(f"{files.scores}: not what the evaluate step writes: it has no scores of transferred")
    if scored["weights_sha256"] != ours:
        raise UserError(f"{files.scores}: these are not the scores of {files.model}; run the evaluate step again")
    if scored["miou"] is None:
        raise UserError(f"{files.scores}: transferred.miou is null: the test split shows no class; label its images")


def _register(
    register: Register, evaluate: Evaluate, files: Files, scores: dict[str, Any], tracker: Tracker, run: str
) -> dict[str, Any]:
    from segraft.checkpoint import read_card
    from segraft.data.packed import PackedDataset
    from segraft.registry.artifact import pack
    from segraft.registry.champion import promote
    from segraft.registry.versions import aliases, publish

    card, packed = read_card(files.model), PackedDataset(files.dataset)
    with tempfile.TemporaryDirectory() as scratch:
        digest = pack(files.model, _example(packed), Path(scratch) / "model")
        version = publish(tracker, register.name, run, Path(scratch) / "model", digest, _tags(card))
    contest = _contest(files.dataset, packed.card, scores["transferred"]["miou"], register.min_gain, evaluate)
    verdict = promote(tracker, register.name, version, contest)
    return {
        "name": register.name,
        "version": int(version),
        "aliases": sorted(alias for alias, v in aliases(tracker, register.name).items() if v == version),
        "champion": verdict.champion,
        "why": verdict.why,
        "sha256": digest,
        "history": verdict.history,
    }


def _example(packed: PackedDataset) -> NDArray[Any]:
    """(1, 32, 32, 3) uint8 RGB: the middle of the first image."""
    image = next(sample.image for name in ("test", "val", "train") for sample in packed.split(name))
    top, left = ((side - 32) // 2 for side in image.shape[:2])
    example: NDArray[Any] = image[None, top : top + 32, left : left + 32]
    return example


def _tags(card: ModelCard) -> dict[str, str]:
    from segraft.tracking import flatten

    classes = {c.name: "#{:02x}{:02x}{:02x}".format(*c.color) for c in card.classes}
    facts = {"arch": card.arch, "encoder": card.encoder, "taxonomy": card.taxonomy, "classes": json.dumps(classes)}
    return facts | {f"provenance.{key}": str(value) for key, value in flatten(card.provenance).items()}


def _contest(dataset: Path, card: DatasetCard, miou: float, min_gain: float, evaluate: Evaluate) -> Contest:
    from segraft.registry.champion import Contest

    def score(model_folder: Path) -> float:
        from segraft.evaluation.run import score

        return score(model_folder, dataset, "test", evaluate.batch_size, evaluate.threads, evaluate).miou

    return Contest(_test(card, evaluate), miou, min_gain, score)


def _test(card: DatasetCard, evaluate: Evaluate) -> str:
    """Digest of what decides a model's score: the test split's shards, the classes of its masks, and how it is seen."""
    without_effect = {"examples", "threads"} if evaluate.adapt_batch_norm else {"examples", "threads", "batch_size"}
    how = evaluate.model_dump(mode="json", exclude=without_effect)
    content = [[c.name for c in card.classes], [shard.sha256 for shard in card.splits["test"].shards], how]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def summary(scores: dict[str, Any], outcome: dict[str, Any], report: Path) -> str:
    """What a run ends with, for people: the table, the report and the registered model."""
    rows = {"source as it is": "source", "from scratch": "scratch", "transferred": "transferred"}
    lines = ["", f"{'on the test split':<20}{'mIoU':>8}{'95 % interval':>18}{'pixel accuracy':>18}", "-" * 64]
    for label, of in ((label, scores[model]) for label, model in rows.items() if scores[model]):
        low, high = map(_percent, of["miou_interval"])
        lines.append(f"{label:<20}{_percent(of['miou']):>8}{low:>9} – {high:>6}{_percent(of['pixel_accuracy']):>18}")
    lines += ["", f"report  {report}"]
    if not outcome["tracked"]:
        return "\n".join(
            [*lines, f"model   not registered: {outcome['why']}", "        try again: dvc repro -sf register"]
        )
    lines += [
        f"model   {outcome['name']} version {outcome['version']} ({', '.join(outcome['aliases'])}): {outcome['why']}",
        f"        models:/{outcome['name']}/{outcome['version']} in {outcome['uri']}",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
