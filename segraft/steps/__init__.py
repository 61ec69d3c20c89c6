"""The step door: a name table, and one `run()` for every runner.

A step is a plain function of typed params sections and paths that returns a dict of scalars. A parameter typed as a
section *is* the section of that name in params.yaml; `In`, `Out` and `Work` parameters are paths. Steps never open
params.yaml, never know who runs them, and never reach outside the paths that they are given.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from segraft.errors import UserError

In = Annotated[Path, "in"]
"""A file or folder that must exist; it is only read. A packed dataset to train on may be an fsspec URL (s3://…)."""
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
    paths = {p: hint.__metadata__[0] for p, hint in hints.items() if typing.get_origin(hint) is Annotated}
    return Spec(name, function, tuple(p for p in hints if p not in paths), paths)


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
    final = {key: _location(paths[key]) for key in step.paths}
    for key, kind in step.paths.items():
        if kind == "in" and isinstance(final[key], Path) and not final[key].exists():
            raise UserError(f"{final[key]}: not found; step {name} reads it as --{key.replace('_', '-')}")
    beside = {key: beside_path(final[key]) for key, kind in step.paths.items() if kind == "out"}
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages, if it is imported later
    try:
        metrics = step.function(**typed, **(final | beside))
        for key, temporary in beside.items():
            publish(temporary, final[key])
    except UserError as error:
        for key in error.keep:
            publish(beside[key], final[key])
        kept = "".join(f"\n{key}: {final[key]}" for key in error.keep)
        raise UserError(f"{error}{kept}", error.keep) from None
    finally:
        for temporary in beside.values():
            remove(temporary)
    return metrics


def _location(path: str | Path) -> Path:
    """The path; a URL (a packed dataset in an object store) stays text, for a Path would swallow a slash of it."""
    return path if "://" in str(path) else Path(path)  # type: ignore[return-value]


def _same_names(step: str, kind: str, wanted: set[str], given: set[str]) -> None:
    if wanted != given:
        missing, extra = sorted(wanted - given), sorted(given - wanted)
        raise UserError(f"step {step}: {kind}s missing: {missing}, not known: {extra}")


def beside_path(final: Path) -> Path:
    """A fresh temporary path in the same folder, so that `publish` is one rename on one file system."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.tmp-{os.getpid()}{final.suffix}")
    remove(temporary)
    return temporary


def publish(temporary: Path, final: Path) -> None:
    """Put a finished file or folder in its place, replacing what was there."""
    assert temporary.exists(), f"the step did not write {final.name}"
    if final.is_dir() and not final.is_symlink():
        remove(final)
    os.replace(temporary, final)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside the path and rename it there; keys keep their order, NaN is refused."""
    temporary = beside_path(path)
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
