"""kfp's local cache, keyed by content.

kfp keys a task by where its inputs lie, so a file rewritten at the same path is a stale hit. Here an input is known by
the digest in its metadata, and a hit counts only while the outputs still are what they were. Beside each component's
entries lies what its last run was keyed by, so that a miss can be explained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local.cache import LocalCache

from pipelines.graph import code_of
from segraft.orchestration.component import MD5, locate
from segraft.orchestration.digest import digest
from segraft.steps import write_json
from segraft.tracking import flatten


class ContentCache(LocalCache):  # type: ignore[misc]
    """Finds outputs by what a task's inputs hold, and trusts no output that was changed since."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root
        self.asked: dict[str, dict[str, Any]] = {}
        """key → what it was made of"""
        self.hits: list[str] = []
        """components whose outputs were there already"""
        self.made: list[str] = []
        """components that ran"""
        self.used: set[str] = set()
        """keys of what was found or made"""

    @staticmethod
    def _serialize_value_for_key(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ContentCache._serialize_value_for_key(one) for key, one in value.items()}
        if isinstance(value, list):
            return [ContentCache._serialize_value_for_key(one) for one in value]
        if isinstance(value, dsl.Artifact) and MD5 in value.metadata:
            return value.metadata[MD5]
        return LocalCache._serialize_value_for_key(value)

    def compute_key(self, component_name: str, image: str, full_command: list[str], arguments: Any, **more: Any) -> str:
        """Kfp's key; what went into it is kept."""
        key = str(super().compute_key(component_name, image, full_command, arguments, **more))
        name = re.sub(r"^comp-|-\d+$", "", component_name)  # a second task of a component is called X-2
        self.asked[key] = {
            "component": name,
            "given": arguments,
            "arguments": _flat(self._serialize_value_for_key(arguments)),
            "code": code_of(name) if "build" in arguments else {},
        }
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs under a key, if they are still what they were."""
        outputs: dict[str, Any] | None = super().get(key)
        intact = outputs is not None and all(_intact(value) for value in outputs.values())
        if intact:
            self.hits.append(self.asked[key]["component"])
            self.used.add(key)
        return outputs if intact else None

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep outputs, and what they were made of as the last of their component."""
        super().put(key, outputs)
        self.used.add(key)
        record = {name: value for name, value in self.asked[key].items() if name != "given"}
        self.made.append(record["component"])
        with self._lock:
            write_json(self._last(record["component"]), record | {"key": key})

    def why(self, arguments: Mapping[str, Any]) -> list[str]:
        """Why there are no outputs for a task's arguments: what is different from its component's last run."""
        found = [(key, asked) for key, asked in self.asked.items() if asked["given"] is arguments]
        if not found:
            return ["it always runs: nobody but the step can tell the version of its data"]
        [(key, asked)] = found
        path = self._last(asked["component"])
        if not path.exists():
            return ["it has not run yet"]
        last = json.loads(path.read_text(encoding="utf-8"))
        if last["key"] == key:
            return ["an output is missing or was changed"]
        changed = _changes(last["arguments"], asked["arguments"])
        files = [f"code: {line}" for line in _changes(last["code"], asked["code"], values=False)]
        return [line for line in changed if not line.startswith("build.code")] + files

    def _last(self, component: str) -> Path:
        return self.root / "last" / f"{component}.json"


def _intact(value: Any) -> bool:
    artifacts = value if isinstance(value, list) else [value]
    known = [a for a in artifacts if isinstance(a, dsl.Artifact) and MD5 in a.metadata]
    return all(Path(locate(a)).exists() and digest(Path(locate(a))) == a.metadata[MD5] for a in known)


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with JSON boxes opened: dotted key → value."""
    return flatten({name: _opened(value) for name, value in arguments.items()})


def _opened(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], values: bool = True) -> list[str]:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key}: {before.get(key)} → {now.get(key)}" if values else f"{key} changed" for key in keys]
