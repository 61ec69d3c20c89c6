"""Run the validate step as everyone does, through the door, and read what it says."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from segraft.errors import UserError
from segraft.params import load_params
from segraft.steps import run
from tests.data.blobs import Blobs

PARAMS = Path(__file__).parents[2] / "params.yaml"
FOLDER = ["data.target.format=folder", "data.target.taxonomy=blobs"]


@dataclass(frozen=True)
class Outcome:
    report: Path
    manifest: Path
    told: dict
    message: str
    metrics: dict

    def rules_by_file(self) -> dict[str, dict[str, str]]:
        """file → rule → severity."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for finding in self.told["findings"]:
            found[finding["file"]][finding["rule"]] = finding["severity"]
        return dict(found)

    def of(self, rule: str) -> list[dict]:
        return [finding for finding in self.told["findings"] if finding["rule"] == rule]


def given(blobs: Blobs, out: Path, *overrides: str, source: Blobs | None = None) -> tuple[dict, dict]:
    """Sections and paths of a generated target, with a generated source or none; workers=1 unless overridden."""
    source_format = (
        ["data.source.format=folder", "data.source.taxonomy=blobs"] if source else ["data.source.format=none"]
    )
    params = load_params(PARAMS, [*FOLDER, *source_format, "validate.workers=1", *overrides])
    paths = {
        "source": source.root if source else blobs.root,
        "target": blobs.root,
        "taxonomies": blobs.taxonomies,
        "manifest": out / "manifest",
        "report": out / "report",
    }
    return {"data": params.data, "validate": params.section("validate")}, paths


def validate(blobs: Blobs, out: Path, *overrides: str, source: Blobs | None = None) -> Outcome:
    """What the step says of `given`."""
    message, metrics = "", {}
    try:
        metrics = run("validate", *given(blobs, out, *overrides, source=source))
    except UserError as error:
        message = str(error)
    told = json.loads((out / "report/validate.json").read_text())
    return Outcome(out / "report", out / "manifest", told, message, metrics)
