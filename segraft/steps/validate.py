"""Step validate: nothing trains on data that has not been read once, whole."""

from __future__ import annotations

from segraft.params import Data, Validate
from segraft.steps import In, Metrics, Out


def validate(
    data: Data, validate: Validate, source: In, target: In, taxonomies: In, manifest: Out, report: Out
) -> Metrics:
    """Read every image and mask once, check them, and stop the pipeline if something is wrong.

    Args:
        source: folder of the source dataset.
        target: folder of the target dataset.
        taxonomies: folder of taxonomy files.
        manifest: folder of the manifests, source.parquet and target.parquet.
        report: folder of validate.json, index.html (ours) and data_docs/ (Great Expectations).
    """
    from segraft.data.validation.run import run

    return run(data, validate, {"source": source, "target": target}, taxonomies, manifest, report)
