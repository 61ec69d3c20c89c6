"""Component validate: nothing trains on data that has not been read once, whole."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Output

from components import component


@component
def validate(
    data: str,
    validate: str,
    source: Input[Dataset],
    target: Input[Dataset],
    taxonomies: str,
    manifest: Output[Dataset],
    report: Output[Artifact],
    page: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    build: str,
) -> None:
    """Read every image and mask once, check them with Great Expectations, and stop here if the data is wrong.

    Args:
        data: the params section, as JSON.
        validate: the params section, as JSON.
        source: the source dataset.
        target: the target dataset.
        taxonomies: taxonomy files as JSON: name → text.
        manifest: what was read, one row a sample.
        report: validate.json, index.html and Great Expectations' Data Docs.
        page: what was checked and what was found.
        summary: the verdict.
        metrics: samples, errors, warnings.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.component import run

    run("validate", locals())
