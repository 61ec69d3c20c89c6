"""kfp's DockerRunner on any Docker-compatible socket, made to tell a failure from a success.

kfp lets the engine remove a container when it ends, and takes one that is gone for one that succeeded; over podman's
socket that is every one. Here a container stays until its exit code is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import docker_task_handler

from pipelines.cluster import USER
from pipelines.local import replaced
from segraft.errors import UserError
from segraft.orchestration.component import STORE, WORK
from segraft.orchestration.execution import NOTES, RUN, TRACKING

PASSED = (RUN, NOTES, WORK, TRACKING, STORE)
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
S3 = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""What a container is given of the environment: the run, and how MLflow and the object store are reached."""


def engine() -> Any:
    """A client of the container engine that DOCKER_HOST names.

    Raises:
        UserError: none answers.
    """
    import docker
    from docker.errors import DockerException

    try:
        return docker.from_env()
    except DockerException as error:
        raise UserError(
            f"no container engine answers ({error}); start one, or let DOCKER_HOST name its socket"
        ) from None


def image_id(image: str) -> str:
    """What a local image holds, whatever its tag: its id.

    Raises:
        UserError: there is no such image.
    """
    from docker.errors import ImageNotFound

    try:
        return str(engine().images.get(image).id)
    except ImageNotFound:
        raise UserError(f"cluster.image: {image}: not on this machine; say `make image`, or pull it") from None


def containers(read: Sequence[Path], secrets: Sequence[str] = ()) -> Callable[[Path], AbstractContextManager[Any]]:
    """A runner for `pipelines.local.run`: containers see its root and, to read only, the folders `read`.

    Args:
        read: the folders.
        secrets: variables of the environment that are handed over, too, if they are set; by the engine's API, so that
            they stand in no command line.
    """

    @contextmanager
    def runner(root: Path) -> Iterator[Any]:
        from docker.types import Mount

        mounts = [Mount(str(root), str(root), "bind")]
        mounts += [Mount(place, place, "bind", read_only=True) for place in (str(path.absolute()) for path in read)]
        environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
        environment |= {
            name: os.environ[name] for name in (*PASSED, *MLFLOW, *S3, *KEYS, *secrets) if name in os.environ
        }
        with replaced(docker_task_handler, run_docker_container=run_container):
            yield local.DockerRunner(
                user=str(_user(root)),
                mounts=mounts,
                environment=environment,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},
                shm_size="1g",
            )

    return runner


def _user(root: Path) -> int:
    """Whoever calls; for root, which nothing runs as, the image's user, who is given the folders to write in."""
    if os.getuid():
        return os.getuid()
    for folder in (root, root / "runs", root / "work", root / "notes", *(root / "notes").iterdir()):
        folder.mkdir(exist_ok=True)
        os.chown(folder, USER, USER)
    return USER


def run_container(client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **arguments: Any) -> int:
    """Run a container to its end, its log on our output; returns its exit code."""
    container = client.containers.run(image, command, detach=True, volumes=volumes, **arguments)
    try:
        for piece in container.logs(stream=True):
            print(piece.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)
