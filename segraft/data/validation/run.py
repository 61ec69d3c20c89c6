"""The whole of the validate step, from two folders to a manifest and a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segraft.data import manifest as manifests
from segraft.data.formats import Listing, list_samples
from segraft.data.taxonomy import Taxonomy, kin, load_taxonomy
from segraft.data.validation.classes import census
from segraft.data.validation.facts import Source
from segraft.data.validation.files import printable
from segraft.data.validation.listings import Given
from segraft.data.validation.masks import MaskReader
from segraft.data.validation.scan import Task, scan
from segraft.data.validation.tables import build
from segraft.errors import UserError
from segraft.params import Data, Dataset, Validate
from segraft.steps import Metrics, write_json

if TYPE_CHECKING:
    from segraft.data.validation.suite import Checked, Finding

SHOWN, SHOWN_OF_A_RULE = 20, 5
"""Findings that the error message tells, about, and at most of one rule; of each rule that is broken at least one."""


def run(
    data: Data, knobs: Validate, roots: Mapping[str, Path], taxonomies: Path, manifest: Path, report: Path
) -> Metrics:
    """Read both datasets once, judge them, and write report and manifest; the arguments are those of the step.

    Raises:
        UserError: something is wrong with the data; the report is written, the manifest is not.
    """
    given = dict(_given(data, roots, taxonomies))
    begun = time.perf_counter()
    sources = {name: _source(one, knobs) for name, one in given.items()}
    facts = scan(sources, _tasks(given), knobs.workers)
    read = time.perf_counter()

    from segraft.data.validation import page, suite, summary

    counted = census(facts.select(["dataset", "split", "class_pixels"]).to_pandas(), _taxonomies(given))
    tables = build(facts, given, counted, knobs)
    report.mkdir()
    checked = suite.check(tables, knobs, report / "data_docs")
    told = summary.summarize(facts, given, counted, tables["drift"], checked)
    failing = [one for one in checked if one.findings and one.rule.stops(knobs.strict)]
    told["passed"] = not failing
    told["seconds"] = {"read": round(read - begun, 2), "check": round(time.perf_counter() - read, 2)}
    write_json(report / "validate.json", told)
    (report / "index.html").write_text(page.render(told, checked, facts, sources), encoding="utf-8")
    if failing:
        raise UserError("\n".join(_message(failing, given)), keep=("report",))
    _write_manifests(facts, given, manifest)
    return {key: told[key] for key in ("samples", "errors", "warnings")}


def _given(data: Data, roots: Mapping[str, Path], taxonomies: Path) -> Iterator[tuple[str, Given]]:
    kin(taxonomies, load_taxonomy(taxonomies, data.target.taxonomy))  # augment asks for it: better told now
    for role, several in (("source", data.source.datasets), ("target", {"": data.target})):
        for folder, knobs in several.items():
            if knobs.format != "none":
                name = f"{role}/{folder}" if folder else role
                yield name, _list(roots[role] / folder, knobs, load_taxonomy(taxonomies, knobs.taxonomy))


def _list(root: Path, knobs: Dataset, taxonomy: Taxonomy) -> Given:
    """A dataset's samples; one that cannot be listed has none, and says why, so that the other is read all the same."""
    try:
        listing, trouble = list_samples(root, knobs), None
    except UserError as error:
        listing, trouble = Listing(()), str(error)
    return Given(root, knobs, taxonomy, listing, trouble)


def _source(given: Given, knobs: Validate) -> Source:
    return Source(given.root.resolve(), MaskReader(given.taxonomy, given.listing.encoding), knobs.max_pixels)


def _tasks(given: Mapping[str, Given]) -> list[Task]:
    return [(name, sample) for name, one in given.items() for sample in one.listing.samples]


def _taxonomies(given: Mapping[str, Given]) -> dict[str, Taxonomy]:
    return {name: one.taxonomy for name, one in given.items()}


def _message(failing: Sequence[Checked], given: Mapping[str, Given]) -> Iterator[str]:
    """The findings that stop the pipeline, a few of each rule, one per line."""
    total = sum(len(one.findings) for one in failing)
    each = max(1, min(SHOWN_OF_A_RULE, SHOWN // len(failing)))
    yield f"{total} finding{'s' * (total > 1)} in the data to fix first:"
    for one in failing:
        yield from (f"  {_where(finding, given)}: {finding.found}; {finding.remedy}" for finding in one.findings[:each])
        if len(one.findings) > each:
            yield f"  … and {len(one.findings) - each} more of the kind {one.rule.name}"


def _where(finding: Finding, given: Mapping[str, Given]) -> str:
    root = printable(str(given[finding.dataset].root)) if finding.dataset in given else finding.dataset
    return f"{root}/{finding.file}" if finding.file else f"{finding.dataset} ({root})"


def _write_manifests(facts: pa.Table, names: Iterable[str], folder: Path) -> None:
    folder.mkdir()
    columns = manifests.schema()
    for role, file in manifests.FILES.items():
        parts = [_below(facts, name).select(columns.names).cast(columns) for name in names if name.startswith(role)]
        pq.write_table(pa.concat_tables(parts) if parts else columns.empty_table(), folder / file)


def _below(facts: pa.Table, name: str) -> pa.Table:
    """The rows of a dataset, paths relative to its role's folder: those of source/camvid begin with camvid."""
    rows = facts.filter(pc.field("dataset") == name)
    folder = name.partition("/")[2]
    for column in ("image", "mask") if folder else ():
        below = pc.binary_join_element_wise(folder, rows[column], "/")
        rows = rows.set_column(rows.schema.get_field_index(column), column, below)
    return rows
