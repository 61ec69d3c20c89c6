"""The rules: knob, value, when, why, whose. The first of a knob that applies decides; docs/planner.md explains them."""

from segraft.planning.rules.data import DATA
from segraft.planning.rules.machine import LEAST_BATCH, MACHINE, RATE
from segraft.planning.rules.rule import Choice, Rule, decide

RULES = (*DATA, *MACHINE, *RATE)
"""In three rounds: by the data, again with batch size and compute, then by the learning-rate range test."""

__all__ = ["DATA", "LEAST_BATCH", "MACHINE", "RATE", "RULES", "Choice", "Rule", "decide"]
