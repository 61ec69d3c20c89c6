"""Component evaluate: what the transfer was worth, on images that no training has seen."""

from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components import component


@component
def evaluate(
    evaluate: str,
    dataset: Input[Dataset],
    pretrained: Input[Model],
    baseline: Input[Model],
    finetuned: Input[Model],
    manifest: Input[Dataset],
    validation: Input[Artifact],
    pretrain_log: Input[Artifact],
    finetune_log: Input[Artifact],
    scratch_log: Input[Artifact],
    scores: Output[Artifact],
    report: Output[HTML],
    plots: Output[Artifact],
    confusion: Output[ClassificationMetrics],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Score on the target's test split: source as it is, from scratch, transferred.

    Args:
        evaluate: the params section, as JSON.
        dataset: the packed target dataset.
        pretrained: model folder of the source model.
        baseline: model folder of the model trained from scratch.
        finetuned: model folder of the transferred model.
        manifest: the manifests that validate wrote.
        validation: the validate step's report.
        pretrain_log: training log of pretrain.
        finetune_log: training log of finetune.
        scratch_log: training log of scratch.
        scores: JSON file of every score.
        report: the self-contained HTML report.
        plots: tables and images of the plots.
        confusion: the transferred model's confusion matrix, percent of each class's pixels.
        summary: the headline table.
        metrics: mIoU, pixel accuracy and Dice of each model, and the gains.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("evaluate", locals())
