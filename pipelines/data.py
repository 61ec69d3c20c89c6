"""Where a pipeline's datasets come from, and what names their content.

By `data.source.path` and `data.target.path`: the embedded streets are generated; from an object store a dataset is
brought anew in each run; with `cluster.repo` from that repository at a commit; a folder is referred to where it is.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.errors import UserError
from segraft.orchestration.digest import digest
from segraft.params import Cluster, Dataset, read_yaml
from segraft.tracking import without_password

if TYPE_CHECKING:
    from pipelines.graph import Graph, Target

ROLES = ("source", "target")
STREETS = {role: f"data/streets/{role}" for role in ROLES}
TAXONOMIES = Path("data/taxonomies")


def inputs(target: Target, project: Path) -> dict[str, str]:
    """The pipeline inputs that name the data's content: the taxonomies' text, and a version of each dataset.

    All taxonomies, not only those that the params name: a packed dataset holds how its classes go with those of every
    other that a map links, for a model of those may be grafted.
    """
    data = target.params.data
    for one in (data.source, *data.source.sets, data.target):
        _check_taxonomy(project / TAXONOMIES / f"{one.taxonomy}.yaml")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((project / TAXONOMIES).glob("*.yaml"))}
    versions = {f"{role}_version": _version(getattr(data, role), role, target, project) for role in ROLES}
    return {"taxonomies": json.dumps(texts), **versions, **(_model(target) if target.pretrained else {})}


def _model(target: Target) -> dict[str, str]:
    """The model to start from; an alias is followed now, for it may move, while a version stays what it is."""
    place = target.pretrained
    if place.startswith("models:"):
        from segraft.registry import resolve

        return {"pretrained": resolve(place, target.params.tracking), "pretrained_version": ""}
    folder = Path(place)
    if target.remote:
        _seen_from_the_cluster("--model", place, "a registered model")
    elif not folder.is_dir():
        raise UserError(f"--model: {place}: no such model folder")
    return {"pretrained": str(folder.absolute()), "pretrained_version": digest(folder) if folder.is_dir() else ""}


def folders(target: Target) -> list[Path]:
    """The folders of this machine that the steps read."""
    roles = {role: getattr(target.params.data, role) for role in ROLES}
    given = [dataset.path for role, dataset in roles.items() if not _is_streets(dataset, role)]
    return [
        Path(path) for path in (target.params.cluster.repo, target.pretrained, *given) if path and Path(path).exists()
    ]


def tasks(graph: Graph) -> dict[str, Any]:
    """`source` and `target` as outputs of tasks."""
    roles = {role: getattr(graph.params.data, role) for role in ROLES}
    made = graph("streets").outputs if any(_is_streets(d, role) for role, d in roles.items()) else {}
    return {role: made[role] if _is_streets(d, role) else _given(graph, d, role) for role, d in roles.items()}


def _given(graph: Graph, dataset: Dataset, role: str) -> Any:
    version = graph.inputs[f"{role}_version"]
    if "://" in dataset.path:
        task = graph("fetch", repo="", rev="", path=dataset.path)
    elif graph.params.cluster.repo:
        task = graph("fetch", repo=graph.params.cluster.repo, rev=version, path=dataset.path)
    else:
        place = dataset.path if graph.target.remote else str(Path(dataset.path).absolute())
        task = graph("locate", place=place, md5=version)
    if not graph.defaults[f"{role}_version"]:
        task.set_caching_options(False)
    return task.set_display_name(role).outputs["dataset"]


def _version(dataset: Dataset, role: str, target: Target, project: Path) -> str:
    """What changes when the content does: a commit, or a digest; empty where only a task can tell, or need not."""
    if _is_streets(dataset, role) or "://" in dataset.path:
        return ""
    if target.params.cluster.repo:
        return commit(target.params.cluster)
    path = project / dataset.path
    if target.remote:
        _seen_from_the_cluster(f"data.{role}.path", dataset.path, "a cluster.repo that has it")
    pointer = path.with_name(f"{path.name}.dvc")
    if path.exists():
        return digest(path)
    return _pointed(pointer) if pointer.is_file() else ""


def _pointed(pointer: Path) -> str:
    """The digest that DVC's pointer names; a bucket's versions have none."""
    told = read_yaml(pointer)
    try:
        return str(told["outs"][0].get("md5", ""))
    except (TypeError, KeyError, IndexError, AttributeError):
        raise UserError(f"{pointer}: not what `dvc add` or `dvc import` writes: no outs; make it again") from None


def _seen_from_the_cluster(key: str, path: str, otherwise: str) -> None:
    if not Path(path).is_absolute():
        raise UserError(
            f"{key}: {path} is on this machine; name {otherwise}, or an absolute path on one of cluster.volumes"
        )


def commit(cluster: Cluster) -> str:
    """The commit that `cluster.rev` names in `cluster.repo` now: a branch moves, and a cache must see it."""
    rev = cluster.rev or "HEAD"
    names = [f"refs/heads/{rev}", f"refs/tags/{rev}^{{}}", f"refs/tags/{rev}", rev]  # as git itself prefers them here
    done = subprocess.run(["git", "ls-remote", "--", cluster.repo, *names], capture_output=True, text=True)
    if done.returncode:
        raise UserError(without_password(f"cluster.repo: {cluster.repo}: {done.stderr.strip()}"))
    # `main` is also the end of refs/heads/feature/main, which git lists, too.
    found = {name: commit for commit, name in (line.split("\t") for line in done.stdout.splitlines())}
    return next((found[name] for name in names if name in found), cluster.rev)  # a commit's own name is no ref


def _is_streets(dataset: Dataset, role: str) -> bool:
    return dataset.path == STREETS[role]


def _check_taxonomy(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such taxonomy; data.*.taxonomy names a file of {path.parent}")
