"""Component register: the run goes to MLflow, the model to its registry."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from components import component


@component
def register(
    register: str,
    tracking: str,
    evaluate: str,
    finetuned: Input[Model],
    dataset: Input[Dataset],
    scores: Input[Artifact],
    pretrain_log: Input[Artifact],
    finetune_log: Input[Artifact],
    scratch_log: Input[Artifact],
    report: Input[HTML],
    registered: Output[Artifact],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    build: str,
) -> bool:
    """Log the run to MLflow and register the model; champion if it beats the incumbent.

    Args:
        register: the params section, as JSON.
        tracking: the params section, as JSON.
        evaluate: the params section, as JSON.
        finetuned: model folder of the transferred model.
        dataset: the packed target dataset.
        scores: JSON file that evaluate wrote.
        pretrain_log: training log of pretrain.
        finetune_log: training log of finetune.
        scratch_log: training log of scratch.
        report: the HTML report.
        registered: JSON file with the registered name, version, aliases and run.
        summary: what was registered.
        metrics: version, and whether it is champion.
        build: the code and the image; a part of the cache's key.

    Returns:
        Output: whether the model passed the gate and is champion.
    """
    from segraft.orchestration.component import run

    return bool(run("register", locals()).get("champion"))
