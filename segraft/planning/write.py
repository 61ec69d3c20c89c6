"""The plan as files: params.yaml with each choice and its reason in place, and the measurements as JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from segraft.params import parse_override
from segraft.planning.rules import Choice
from segraft.steps import write_bytes

WIDE = 1 << 16
"""Column at which ruamel.yaml would break a line; a comment must not be broken."""


def commented(text: str, choices: Sequence[Choice], overrides: Sequence[str] = ()) -> str:
    """A params file's text with the choices in it, each with its reason behind it; all else stays as it is.

    Args:
        text: of the params file.
        choices: what was decided.
        overrides: `section.key=value`, set before the choices.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, WIDE
    content = yaml.load(text)
    for override in overrides:
        keys, value = parse_override(content, override)
        _set(content, keys, value)
    for choice in choices:
        keys = choice.knob.split(".")
        path = _set(content, keys, choice.value)
        place, name = path[-1], keys[-1]
        if place.fa.flow_style():  # a comment cannot stand inside braces
            place, name = path[-2], keys[-2]
        if name in place.ca.items:
            del place.ca.items[name]
        place.yaml_add_eol_comment(f"{choice.why} [{choice.source}]", name)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _set(content: CommentedMap, keys: Sequence[str], value: Any) -> list[CommentedMap]:
    """Set a value; returns the mappings on the way to it, outermost first."""
    path = [content]
    for key in keys[:-1]:
        path.append(path[-1][key])
    path[-1][keys[-1]] = _plain(value)
    return path


def _plain(value: Any) -> Any:
    """Lists and mappings on one line."""
    if isinstance(value, dict):
        inline = CommentedMap(value)
        inline.fa.set_flow_style()
        return inline
    if isinstance(value, list):
        sequence = CommentedSeq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file beside the path and rename it there."""
    write_bytes(path, text.encode())
