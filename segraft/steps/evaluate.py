"""Step evaluate: what the transfer was worth, on images that no training has seen."""

from __future__ import annotations

from segraft.params import Evaluate
from segraft.steps import In, Metrics, Out


def evaluate(
    evaluate: Evaluate,
    dataset: In,
    pretrained: In,
    baseline: In,
    finetuned: In,
    manifest: In,
    validation: In,
    logs: In,
    scores: Out,
    report: Out,
    plots: Out,
) -> Metrics:
    """Score the source model as it is, the model trained from scratch and the transferred one on the test split.

    Args:
        dataset: the packed target dataset.
        pretrained: model folder of the source model.
        baseline: model folder of the model trained from scratch.
        finetuned: model folder of the transferred model.
        manifest: folder of the manifests.
        validation: folder of the validate step's report.
        logs: folder with the training logs pretrain/, finetune/ and scratch/.
        scores: JSON file of every score.
        report: the self-contained HTML report.
        plots: folder of the tables and images that DVC plots.
    """
