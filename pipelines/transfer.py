"""Everything: check, pack, pretrain on the source, fine-tune on the target, compare with scratch, register, deploy."""

from __future__ import annotations

from kfp import dsl

from pipelines.graph import Graph


def transfer(graph: Graph) -> None:
    """Learn on the large source, graft onto the small target, and find out what the transfer was worth."""
    with dsl.ExitHandler(graph.finish(), name="transfer"):
        data = graph.packed()
        pretrained = graph("pretrain", dataset=data.source)
        tuned = graph("finetune", dataset=data.target, pretrained=pretrained.outputs["weights"])
        baseline = graph("scratch", dataset=data.target)
        graph.judged(data, pretrained, tuned, baseline)
