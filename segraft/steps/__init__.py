"""The step door: a name table, and one `run()` for every runner.

A step is a plain function of typed params sections and paths that returns a dict of scalars. A parameter typed as a
section *is* the section of that name in params.yaml; `In`, `Out` and `Work` parameters are paths. Steps never open
params.yaml, never know who runs them, and never reach outside the paths that they are given.
"""

from __future__ import annotations

import fcntl
import importlib
import inspect
import json
import os
import shutil
import tempfile
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from segraft.errors import UserError

In = Annotated[Path, "in"]
"""A file or folder that must exist, but for the source's where there is none; it is only read."""
InOrUrl = Annotated[Path, "in", "url"]
"""The same, or an fsspec URL (s3://…), which stays text: a packed dataset to train on."""
Out = Annotated[Path, "out"]
"""A file or folder that the step makes; it appears whole, or not at all."""
Work = Annotated[Path, "work"]
"""A folder that outlives a killed step (checkpoints); it may be empty."""
Metrics = dict[str, float]

STEPS = ("streets", "validate", "augment", "pretrain", "finetune", "scratch", "evaluate", "export", "register")
"""Every step, in pipeline order; step X is the function X of segraft/steps/X.py."""


@dataclass(frozen=True)
class Spec:
    """What a step's signature says."""

    name: str
    function: Callable[..., Metrics]
    sections: tuple[str, ...]
    paths: Mapping[str, str]
    """parameter name → "in", "out" or "work" """
    urls: frozenset[str] = frozenset()
    """parameters that may be a URL"""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def path_help(self) -> dict[str, str]:
        """Path parameter → its line under `Args:` in the docstring."""
        lines = (inspect.getdoc(self.function) or "").splitlines()
        pairs = (line.strip().partition(":") for line in lines)
        return {name: text.strip() for name, _, text in pairs if name in self.paths}


def spec(name: str) -> Spec:
    """The spec of step `name`.

    Raises:
        UserError: there is no such step; the message lists the steps.
    """
    if name not in STEPS:
        raise UserError(f"{name}: no such step; the steps are {', '.join(STEPS)}")
    function = getattr(importlib.import_module(f"segraft.steps.{name}"), name)
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return")
    marks = {p: hint.__metadata__ for p, hint in hints.items() if typing.get_origin(hint) is Annotated}
    sections = tuple(p for p in hints if p not in marks)
    urls = frozenset(p for p, mark in marks.items() if "url" in mark)
    return Spec(name, function, sections, {p: mark[0] for p, mark in marks.items()}, urls)


def run(name: str, sections: Mapping[str, Any], paths: Mapping[str, str | Path]) -> Metrics:
    """Run one step: the only door, for DVC, Kubeflow, tests and people.

    Args:
        name: a name of `STEPS`.
        sections: params section name → typed section, mapping or JSON string.
        paths: path parameter name → where it is, or is to be.

    Raises:
        UserError: bad params or bad input; the message is meant for the user.
    """
    from segraft.params import as_section

    step = spec(name)
    _same_names(name, "section", set(step.sections), set(sections))
    _same_names(name, "path", set(step.paths), set(paths))
    typed = {key: as_section(key, values) for key, values in sections.items()}
    unread = _unread(typed)
    final = {key: _location(step, key, str(paths[key]), key not in unread) for key in step.paths}
    outs = [key for key, kind in step.paths.items() if kind == "out"]
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages, if it is imported later
    with ExitStack() as stack:
        places = {key: stack.enter_context(temporary(final[key])) for key in outs}
        try:
            metrics = step.function(**typed, **(final | places))
        except UserError as error:
            for key in outs if error.keep else ():  # a verdict: what an earlier one let through is not let through now
                publish(places[key], final[key]) if key in error.keep else remove(final[key])
            kept = "".join(f"\n{key}: {final[key]}" for key in error.keep)
            raise UserError(f"{error}{kept}", error.keep) from None
        for key in outs:
            publish(places[key], final[key])
    return metrics


def _unread(sections: Mapping[str, Any]) -> set[str]:
    """Inputs that no step reads with these params: the folder of a source that there is not."""
    return {"source"} if "data" in sections and sections["data"].source.format == "none" else set()


def _location(step: Spec, key: str, given: str, needed: bool) -> Path:
    """The path; a URL stays text, for a Path would swallow a slash of it."""
    flag = f"--{key.replace('_', '-')}"
    if "://" in given:
        if key not in step.urls:
            raise UserError(f"{flag} {given}: a URL; step {step.name} takes a path here, such as a mounted folder")
        return given  # type: ignore[return-value]
    if step.paths[key] == "out":
        folder = Path(given).is_symlink() and Path(given).is_dir()  # the link stays; a link to a file may be to a cache
        return Path(given).resolve() if folder else Path(given)
    if needed and step.paths[key] == "in" and not Path(given).exists():
        raise UserError(f"{given}: not found; step {step.name} reads it as {flag}")
    return Path(given)


def _same_names(step: str, kind: str, wanted: set[str], given: set[str]) -> None:
    if wanted != given:
        missing, extra = sorted(wanted - given), sorted(given - wanted)
        raise UserError(f"step {step}: {kind}s missing: {missing}, not known: {extra}")


@contextmanager
def beside(final: Path) -> Iterator[Path]:
    """A path to write `final` at; it is published in the end, or removed if that does not come."""
    with temporary(final) as place:
        yield place
        publish(place, final)


@contextmanager
def temporary(final: Path) -> Iterator[Path]:
    """A path in a folder of its own beside `final`, so that `publish` is one rename on one file system.

    The folder is removed in the end, and holds a lock for as long as its process lives: it is in the open only with the
    lock held, so a folder whose lock is free was left by a killed process, and goes.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    mark = f".{final.name}.tmp-"
    for stray in [path for path in final.parent.iterdir() if path.name.startswith(mark) and _is_left(path)]:
        shutil.rmtree(stray, ignore_errors=True)  # another process may have seen it, too
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    try:
        with (folder / "lock").open("w") as lock:
            with suppress(OSError):  # on a file system without locks nothing is taken for left
                fcntl.flock(lock, fcntl.LOCK_EX)
            folder = folder.rename(final.with_name(f"{mark}{uuid.uuid4().hex}"))
            yield folder / final.name
    finally:  # the lock is closed by now: NFS keeps a folder in which a file is open
        shutil.rmtree(folder, ignore_errors=True)


def hold(folder: Path, doing: str, instead: str = "") -> TextIO:
    """Keep other processes out of a folder, made if need be, until the file that is returned is closed.

    Args:
        folder: what is to be this process's own.
        doing: what a process does here, for the message.
        instead: what else a process that comes too late could do.

    Raises:
        UserError: another process is here; the message names its pid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            holder = lock.read()
        raise UserError(f"{folder}: process {holder} is {doing} here; wait for it or stop it{instead}") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _is_left(folder: Path) -> bool:
    try:
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or there are no locks
        return False
    return True


def publish(temporary: Path, final: Path) -> None:
    """Put a finished file or folder in its place, replacing what was there."""
    assert temporary.exists(), f"the step did not write {final.name}"
    if temporary.is_dir() or (final.is_dir() and not final.is_symlink()):
        remove(final)
    os.replace(temporary, final)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_bytes` does; keys keep their order, NaN is refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file beside the path and rename it there: it appears whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        place.write_bytes(data)
        place.replace(path)
    finally:
        place.unlink(missing_ok=True)
