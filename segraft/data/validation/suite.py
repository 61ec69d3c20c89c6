"""Run the rules as Great Expectations suites, one a table, and read the findings off the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from segraft.data.validation.rules import Rule, Severity, rules
from segraft.params import Validate

LABELS = {
    "datasets": "dataset",
    "files": "file",
    "samples": "image",
    "splits": "split",
    "classes": "class",
    "sequences": "sequence",
    "drift": "statistic",
}
"""Table → the column that names a row in the Data Docs."""


@dataclass(frozen=True)
class Finding:
    """One row that broke one rule, in words."""

    dataset: str
    rule: str
    severity: Severity
    file: str
    """relative to the dataset; empty where no single file is at fault"""
    found: str
    remedy: str
    sample: int | None = None
    """row of the facts"""
    twin: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For validate.json; `message` is all of it in one line."""
        keys = ("dataset", "rule", "severity", "file", "found", "remedy")
        values = {key: value for key, value in asdict(self).items() if key in keys}
        return values | {
            "message": f"{self.dataset}: {self.file + ': ' if self.file else ''}{self.found}; {self.remedy}"
        }


@dataclass(frozen=True)
class Checked:
    """A rule and how it came out."""

    rule: Rule
    rows: int
    findings: tuple[Finding, ...]


def check(tables: Mapping[str, pd.DataFrame], knobs: Validate, docs: Path) -> list[Checked]:
    """Hold every table against its rules; the Data Docs of all results go to the folder `docs`."""
    context = _context(docs)
    source = context.data_sources.add_pandas("facts")
    checked: list[Checked] = []
    every = rules(knobs)
    for name, table in tables.items():
        mine = [rule for rule in every if rule.table == name]
        if table.empty:  # an empty table meets every expectation; splits, which is never empty, says what is missing
            checked += [Checked(rule, 0, ()) for rule in mine]
            continue
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[_expectation(rule) for rule in mine]))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        results = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table.assign(row=range(len(table)))},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row", LABELS[name]]},
        )
        broken = {result.expectation_config.meta["rule"]: _rows(result) for result in results.results}
        checked += [Checked(rule, len(table), tuple(_findings(rule, table, broken[rule.name]))) for rule in mine]
    context.build_data_docs()
    return checked


def _context(docs: Path) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in context.get_site_names():
        context.delete_data_docs_site(site)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
    context.add_data_docs_site(site_name="validate", site_config=site)
    return context


def _expectation(rule: Rule) -> Any:
    meta = {"rule": rule.name, "severity": rule.severity, "found": rule.found, "remedy": rule.remedy}
    severity = {"error": "critical", "warning": "warning"}[rule.severity]
    return rule.expectation.copy(update={"meta": meta, "severity": severity})


def _rows(result: Any) -> list[int]:
    """Positions of the rows that an expectation did not accept."""
    raised = [info for info in _exceptions(result.exception_info) if info["raised_exception"]]
    assert not raised, f"{result.expectation_config.meta['rule']}: {raised[0]['exception_message']}"
    return sorted(int(row["row"]) for row in result.result.get("unexpected_index_list") or ())


def _exceptions(info: dict[str, Any]) -> list[dict[str, Any]]:
    return [info] if "raised_exception" in info else list(info.values())


def _findings(rule: Rule, table: pd.DataFrame, rows: Sequence[int]) -> list[Finding]:
    found = []
    for position, row in zip(rows, table.iloc[list(rows)].to_dict("records"), strict=True):
        file, words, remedy = (text.format_map(row) for text in (rule.file, rule.found, rule.remedy))
        sample = position if rule.table == "samples" else row.get("sample", -1)
        twin = row[rule.twin] if rule.twin else -1
        places = [int(place) if place >= 0 else None for place in (sample, twin)]
        found.append(Finding(row["dataset"], rule.name, rule.severity, file, words, remedy, *places))
    return found
