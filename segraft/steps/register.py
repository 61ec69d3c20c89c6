"""Step register: the run goes to MLflow, the model to its registry."""

from __future__ import annotations

from segraft.params import Register, Tracking
from segraft.steps import In, Metrics, Out, Work


def register(
    register: Register,
    tracking: Tracking,
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
        finetuned: model folder of the transferred model.
        dataset: the packed target dataset.
        scores: JSON file that evaluate wrote.
        logs: folder with the training logs pretrain/, finetune/ and scratch/.
        report: the HTML report.
        lock: dvc.lock, for the versions of the data; may be missing.
        registered: JSON file with the registered name, version, aliases and run.
    """
