"""Component fetch: a dataset at a revision."""

from kfp.dsl import Dataset, Output

from components import component


@component
def fetch(repo: str, rev: str, path: str, dataset: Output[Dataset], build: str) -> None:
    """Bring a dataset that DVC tracks in a git repository, as it was at a revision, or one that an object store holds.

    Args:
        repo: the git repository; empty: path is a URL.
        rev: the commit.
        path: the dataset's path in the repository, or its URL.
        dataset: the dataset.
        build: the code and the image; a part of the cache's key.
    """
    from segraft.orchestration.references import fetch

    fetch(repo, rev, path, dataset)
