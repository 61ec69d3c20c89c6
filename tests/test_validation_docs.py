"""docs/validation.md lists every rule, with its severity."""

import re
from pathlib import Path

from segraft.data.validation.rules import rules
from segraft.params import Validate, load_params

ROOT = Path(__file__).parents[1]


def validate_knobs() -> Validate:
    return load_params(ROOT / "params.yaml").section("validate")


def test_every_rule_is_documented_with_its_severity():
    text = (ROOT / "docs/validation.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (error|warning) \|", text, re.MULTILINE)
    assert sorted(documented) == sorted((rule.name, rule.severity) for rule in rules(validate_knobs()))


def test_names_of_rules_are_unique():
    names = [rule.name for rule in rules(validate_knobs())]
    assert len(names) == len(set(names))


def test_documented_knobs_exist():
    text = (ROOT / "docs/validation.md").read_text()
    knobs = set(re.findall(r"`(min_\w+|max_\w+|near_\w+bits|rare_images|drift)`", text)) - {"drift"}
    assert knobs == set(Validate.model_fields) - {"drift", "strict", "workers"}
