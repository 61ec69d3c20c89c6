"""What a rule is, and how the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segraft.planning.facts import Facts

FEW, SOME = 10, 100
"""Labelled images up to which a target is few-shot, and small."""


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    knob: str
    """dotted name in params.yaml"""
    value: Callable[[Facts], Any]
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    """with the figure that decided"""
    source: str


@dataclass(frozen=True)
class Choice:
    """A knob as it was decided."""

    knob: str
    value: Any
    why: str
    source: str


def decide(rules: Sequence[Rule], facts: Facts) -> list[Choice]:
    """The first rule of each knob that applies; a knob of which none applies is left as it is."""
    chosen: dict[str, Choice] = {}
    for rule in rules:
        if rule.knob not in chosen and rule.when(facts):
            chosen[rule.knob] = Choice(rule.knob, rule.value(facts), rule.why(facts), rule.source)
    return list(chosen.values())


def is_(value: Any) -> Callable[[Facts], Any]:
    """The same value whatever the facts."""
    return lambda facts: value


def always(facts: Facts) -> bool:
    """Of a knob's last rule."""
    return True
