"""Digests: of data as DVC makes them, so that a version means the same under every runner, and of a step's code."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ".dir"
"""Ends the digest of a folder."""


def digest(path: Path) -> str:
    """The md5 that DVC records in dvc.lock: of a file its bytes', of a folder that of its list of files, and `.dir`."""
    if not path.is_dir():
        return _of_file(path)
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listing = [{"md5": _of_file(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + FOLDER


def code(module: str) -> dict[str, str]:
    """File → md5 of all of segraft that importing `module` may run: every import, nested or not, as it is written.

    A module that imports by a name that it makes up (`importlib.import_module`) brings its whole package, and a package
    the files in it that are no Python (templates, style sheets). `segraft.steps` brings only what is asked for.
    """
    seen: set[Path] = set()
    queue = [_file(module)]
    while queue:
        if (path := queue.pop()) is not None and path not in seen:
            seen.add(path)
            queue += [*_imported(path), path.with_name("__init__.py")]
    beside = {file for path in seen for file in path.parent.iterdir() if file.is_file() and file.suffix in DATA}
    return {path.relative_to(ROOT.parent).as_posix(): _of_file(path) for path in sorted(seen | beside)}


DATA = (".jinja", ".css", ".js", ".html")


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    tree = ast.parse(path.read_bytes())
    found = [file for name in _names(tree) if (file := _file(name))]
    if path.parent != ROOT / "steps" and any(
        isinstance(n, ast.Attribute) and n.attr == "import_module" for n in ast.walk(tree)
    ):
        found += path.parent.glob("*.py")
    return tuple(found)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """The file of a module of segraft; None for what is none."""
    if module.partition(".")[0] != ROOT.name:
        return None
    path = ROOT.parent.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
