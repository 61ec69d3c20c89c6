"""The plan as files: params.yaml with each choice and its reason in place, and the measurements as JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from segraft.planning.rules import Choice
from segraft.steps import write_bytes

WIDE = 1 << 16
"""Column at which ruamel.yaml would break a line; a comment must not be broken."""


def commented(text: str, choices: Sequence[Choice]) -> str:
    """A params file's text with the choices in it, each with its reason behind it; all else stays as it is."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, WIDE
    content = yaml.load(text)
    for choice in choices:
        *parents, key = choice.knob.split(".")
        path = [content]
        for parent in parents:
            path.append(path[-1][parent])
        path[-1][key] = _plain(choice.value)
        place, name = path[-1], key
        if place.fa.flow_style():  # a comment cannot stand inside braces
            place, name = path[-2], parents[-1]
        if name in place.ca.items:
            del place.ca.items[name]
        place.yaml_add_eol_comment(f"{choice.why} [{choice.source}]", name)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Lists and mappings on one line, as params.yaml has them."""
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
