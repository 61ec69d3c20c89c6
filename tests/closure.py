"""Which files of segraft a step can run: imports are followed from name to name, so that what nobody asks for is left.

`from segraft.checkpoint import sha256` leads to the function sha256 and to what it names, not to the networks that its
neighbour load_model builds. A module that imports by a name that it makes up brings its whole folder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
Place = tuple[Path, str]
"""A file, and a name at its top level; no name: all of it."""


def closure(module: str) -> set[str]:
    """Files that the functions of `module` may run, relative to the repository."""
    seen: set[Place] = set()
    queue = _places(module, "")
    while queue:
        if (place := queue.pop()) not in seen:
            seen.add(place)
            queue += _leads_to(*place)
    return {path.relative_to(ROOT).as_posix() for path, _ in seen}


def _leads_to(path: Path, name: str) -> Iterator[Place]:
    bound = _bound(path)
    for node in (n for key, nodes in bound.items() if name in ("", key) for root in nodes for n in ast.walk(root)):
        if isinstance(node, ast.Name) and node.id in bound:
            yield path, node.id
        elif isinstance(node, ast.Attribute) and node.attr == "import_module":
            yield from ((file, "") for file in path.parent.glob("*.py"))
        elif isinstance(node, ast.Import):
            yield from (place for alias in node.names for place in _places(alias.name, ""))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (place for alias in node.names for place in _places(node.module, alias.name))


def _places(module: str, name: str) -> list[Place]:
    """Where `from module import name` leads: to a module of that name, else to the name in the module."""
    if module.partition(".")[0] != "segraft":
        return []
    path = ROOT.joinpath(*module.split("."))
    if name and (inner := _file(path / name)):
        return [(inner, "")]
    return [(file, name)] if (file := _file(path)) else []


def _file(path: Path) -> Path | None:
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _bound(path: Path) -> dict[str, list[ast.AST]]:
    """Top-level name → what binds it; imports for type checkers alone are in an `if`, and bind nothing."""
    bound: dict[str, list[ast.AST]] = {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound.setdefault((alias.asname or alias.name).partition(".")[0], []).append(ast.Import([alias]))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                one = ast.ImportFrom(node.module, [alias], node.level)
                bound.setdefault(alias.asname or alias.name, []).append(one)
        elif not isinstance(node, ast.If):
            for stored in (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)):
                bound.setdefault(stored, []).append(node)
    return bound
