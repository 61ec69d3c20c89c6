"""Step evaluate: what the transfer was worth, on images that no training has seen."""

from __future__ import annotations

from segraft.params import Evaluate
from segraft.steps import In, Metrics, Out, write_json


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
    from segraft.checkpoint import read_card
    from segraft.data.manifest import manifest_file
    from segraft.data.packed import PackedDataset
    from segraft.evaluation.examples import examples
    from segraft.evaluation.history import read_logs
    from segraft.evaluation.plots import write_plots
    from segraft.evaluation.predict import Predictor
    from segraft.evaluation.report import render
    from segraft.evaluation.run import score_predictor
    from segraft.evaluation.summary import metrics, summarize
    from segraft.params import read_json

    training, checks = read_logs(logs), read_json(validation / "validate.json")
    for name in checks["datasets"]:
        manifest_file(manifest, name.partition("/")[0])  # like those above missed before the work, if missing
    folders = {"source": pretrained, "scratch": baseline, "transferred": finetuned}
    if read_card(pretrained).provenance.get("steps") == 0:
        print("the pretrained model was not trained: there is no source to compare with")
        del folders["source"]
    packed = PackedDataset(dataset)
    predictors = {name: Predictor(path, evaluate.threads, packed.card, evaluate) for name, path in folders.items()}
    results = {
        name: score_predictor(predictor, packed, "test", evaluate.batch_size) for name, predictor in predictors.items()
    }
    summary = summarize(results)
    shown = examples(packed, results, predictors, evaluate.examples)
    write_json(scores, summary)
    write_plots(plots, results, training, shown)
    report.write_text(render(summary, results, shown, training, dataset, manifest, checks), encoding="utf-8")
    return metrics(summary)
