"""Fine-tuning under several settings at once; the best one on val is evaluated and registered."""

from __future__ import annotations

from kfp import dsl

from pipelines.graph import Graph, as_json
from segraft.params import change


def sweep(graph: Graph) -> None:
    """Pretrain once, fine-tune under each of `sweep.settings`, and register the best."""
    params = graph.params
    settings = [as_json(change(params, "finetune", changes), "finetune") for changes in params.sweep.settings]
    with dsl.ExitHandler(graph.finish(), name="sweep"):
        data = graph.packed()
        pretrained = graph("pretrain", dataset=data.source)
        with dsl.ParallelFor(settings, name="settings", parallelism=params.sweep.parallel) as setting:
            tuned = graph("finetune", dataset=data.target, pretrained=pretrained.outputs["weights"], finetune=setting)
        best = graph("choose", models=dsl.Collected(tuned.outputs["weights"]), logs=dsl.Collected(tuned.outputs["log"]))
        baseline = graph("scratch", dataset=data.target)
        graph.judged(data, pretrained, best, baseline)
