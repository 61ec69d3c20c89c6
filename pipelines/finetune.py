"""From a model that exists already: check and pack the target, fine-tune on it, compare with scratch, register."""

from __future__ import annotations

from kfp import dsl

from pipelines.graph import Graph
from segraft.errors import UserError


def finetune(graph: Graph) -> None:
    """Graft a registered model, or a model folder, onto the target."""
    if not graph.target.pretrained:
        raise UserError(
            "--model: which model to start from: models:/NAME@ALIAS, models:/NAME/VERSION or a model folder"
        )
    with dsl.ExitHandler(graph.finish(), name="finetune"):
        data = graph.packed()
        given = graph.model()
        tuned = graph("finetune", dataset=data.target, pretrained=given.outputs["weights"])
        baseline = graph("scratch", dataset=data.target)
        graph.judged(data, given, tuned, baseline)
