"""Step export: the model folder in the form that serves fastest and says the same."""

from __future__ import annotations

from segraft.params import Export
from segraft.steps import In, Metrics, Out


def export(export: Export, finetuned: In, dataset: In, exported: Out) -> Metrics:
    """Write the runtimes' files, measure each against PyTorch on real images, and choose the fastest that passes.

    Args:
        finetuned: model folder of the transferred model.
        dataset: the packed target dataset; val is measured on, train calibrates, test is not read.
        exported: the model folder with the runtimes' files and serving.json.
    """
    from segraft.export.run import export as run

    return run(export, finetuned, dataset, exported)
