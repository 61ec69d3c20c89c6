"""The ladder's outcome as plain values: a row a rung and label budget, verdicts, extrapolations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segraft.evaluation.scores import Counts, Floats
from segraft.ladder.cells import Result, by_rung
from segraft.ladder.compare import PowerLaw, Score, Verdict, power_law, resampled, score_of, verdict
from segraft.ladder.rungs import SOURCELESS, UNTRAINED
from segraft.params import RungName

MORE = (2, 4)
"""Multiples of the largest label budget that the extrapolation answers for."""
BASELINES: tuple[RungName, ...] = ("encoder", "scratch")
"""What a rung with the source is compared with: the first of these that was run. The same start, but for the source."""


@dataclass(frozen=True)
class Row:
    """A rung at a label budget, over all seeds."""

    rung: RungName
    share: float
    labels: int
    seeds: int
    score: Score
    gains: dict[str, Score]
    """rung without the source → how much better this one is; paired over images and seeds"""
    verdict: Verdict | None
    """against the baseline; None for rungs without the source, and for one that was not trained on the target"""
    target_pixels: int
    total_pixels: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The whole ladder."""

    rows: tuple[Row, ...]
    baseline: RungName | None
    laws: dict[str, PowerLaw]
    """rung → what more labels buy"""
    images: int
    """of the test split"""

    def as_json(self) -> dict[str, Any]:
        """All of it with plain types."""
        return asdict(self)

    def headline(self) -> str:
        """One sentence on what the source was worth at all label budgets."""
        judged = [row for row in self.rows if row.verdict and row.rung == self._judged()]
        if not judged or self.baseline is None:
            return "No verdict: it takes a rung with the source, and encoder or scratch to compare it with"
        said = [
            f"{row.verdict} ({100 * row.gains[self.baseline].mean:+.1f} points) at {row.labels} labels"
            for row in judged
        ]
        return f"The source, under {judged[0].rung}, against {self.baseline}: " + "; ".join(said)

    def _judged(self) -> str:
        """The rung that differs from the baseline by the source alone, or the first that has it."""
        rungs = [row.rung for row in self.rows if row.verdict]
        return "full" if "full" in rungs else next(iter(rungs), "")


def outcome(results: Sequence[Result]) -> Outcome:
    """Compare all that was measured.

    Args:
        results: of one ladder; every rung of a label budget has the same seeds.
    """
    trained = [result for result in results if result.rung not in UNTRAINED]
    shares = sorted({result.share for result in trained} or {1.0})
    baseline = next((rung for rung in BASELINES if any(r.rung == rung for r in trained)), None)
    rows = [
        _row(rung, share, _at(of_rung, share), [r for r in trained if r.share == share], baseline)
        for rung, of_rung in by_rung(list(results))
        for share in shares
        if _at(of_rung, share)
    ]
    laws = {str(rung): _law(of_rung) for rung, of_rung in by_rung(trained)}
    return Outcome(tuple(rows), baseline, laws, len(results[0].counts))


def _at(of_rung: Sequence[Result], share: float) -> list[Result]:
    """A rung's results at a label budget; a model that was not trained on the target is the same at each."""
    return [result for result in of_rung if result.share == share or result.rung in UNTRAINED]


def _row(
    rung: RungName, share: float, mine: Sequence[Result], others: Sequence[Result], baseline: RungName | None
) -> Row:
    gains = {}
    for other in SOURCELESS:
        theirs = {result.seed: result.counts for result in others if result.rung == other}
        if theirs and rung not in SOURCELESS:
            gains[str(other)] = _gain(_by_seed(mine, list(theirs)), list(theirs.values()))
    labels = max([result.labels for result in others], default=0)
    judged = None
    if baseline in gains and rung not in UNTRAINED:
        judged = verdict(gains[baseline].interval, len(mine[0].counts))
    return Row(
        rung,
        share,
        labels,
        len(mine),
        score_of(_samples(mine), _mean(mine)),
        gains,
        judged,
        mine[0].target_pixels,
        mine[0].total_pixels,
        sum(result.seconds for result in mine) / len(mine),
    )


def _by_seed(mine: Sequence[Result], seeds: Sequence[int]) -> list[Counts]:
    """Counts in the order of the seeds; a model that has no seed is compared as it is with each."""
    found = {result.seed: result.counts for result in mine}
    return [mine[0].counts if mine[0].rung in UNTRAINED else found[seed] for seed in seeds]


def _gain(mine: Sequence[Counts], theirs: Sequence[Counts]) -> Score:
    from segraft.evaluation.scores import iou_of_counts, mean

    values = [sum(float(mean(iou_of_counts(c.sum(0)))) for c in side) / len(side) for side in (mine, theirs)]
    return score_of(resampled(mine) - resampled(theirs), values[0] - values[1])


def _samples(results: Sequence[Result]) -> Floats:
    return resampled([result.counts for result in results])


def _mean(results: Sequence[Result]) -> float:
    return sum(result.miou for result in results) / len(results)


def _law(of_rung: Sequence[Result]) -> PowerLaw:
    by_labels: dict[int, dict[int, Result]] = {}
    for result in sorted(of_rung, key=lambda result: result.labels):
        # Two shares of a few images may be one budget, whose results are the same: twice a seed is no second one.
        by_labels.setdefault(result.labels, {})[result.seed] = result
    most, budgets = max(by_labels), [list(of_seed.values()) for of_seed in by_labels.values()]
    means, samples = [_mean(r) for r in budgets], [_samples(r) for r in budgets]
    return power_law(list(by_labels), means, samples, [factor * most for factor in MORE])
