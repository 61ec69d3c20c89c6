"""The budget: every pruning level on every runtime, measured; the Pareto front; the most accurate that fits."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segraft.compression.chart import draw
from segraft.compression.recover import Kind, prune_and_recover
from segraft.errors import UserError
from segraft.export.run import export
from segraft.params import Export, Training
from segraft.serving.runtimes import SERVING
from segraft.serving.runtimes.card import ServingCard, read_serving_card
from segraft.steps import beside_path, publish, remove, write_json


@dataclass(frozen=True)
class Budget:
    """What a model may cost; infinite where nothing was asked."""

    ms: float = math.inf
    mb: float = math.inf
    miou_loss: float = math.inf
    """points of mIoU against the model as it was, in fp32"""


@dataclass(frozen=True)
class Candidate:
    """One pruning level on one runtime."""

    share: float
    runtime: str
    latency_ms: float
    size_mb: float
    miou: float
    miou_loss: float
    agrees: bool
    """with its own PyTorch form, as export's parity gate asks"""

    def within(self, budget: Budget) -> bool:
        """Whether it may be chosen."""
        costs = (self.latency_ms <= budget.ms, self.size_mb <= budget.mb, self.miou_loss <= budget.miou_loss)
        return self.agrees and all(costs)

    def dominates(self, other: Candidate) -> bool:
        """At least as good in everything, better in something."""
        ours, theirs = ((c.latency_ms, c.size_mb, c.miou_loss) for c in (self, other))
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        model: the model folder to compress.
        dataset: the packed dataset: train trains and calibrates, val measures.
        shares: pruning levels; 0, the model as it is, is always among them.
        kind: what is pruned.
        training: how a pruned model trains on.
        export: the runtimes and the parity gate.
    """

    model: Path
    dataset: Path
    shares: tuple[float, ...]
    kind: Kind
    training: Training
    export: Export


def compress(search: Search, budget: Budget, folder: Path) -> Candidate:
    """Search, draw the front, and write the most accurate model that fits the budget.

    Writes `pareto.json`, `pareto.svg` and `model/` (an exported model folder that serves on the chosen runtime) into
    `folder`. What was made for a level stays in `folder/levels`, so another budget costs no second training.

    Raises:
        UserError: nothing fits; the message says what came closest, and the front is written all the same.
    """
    found: list[Candidate] = []
    whole = math.nan
    for share in sorted({0.0, *search.shares}):
        level = _level(search, share, folder / "levels")
        card = read_serving_card(level)
        assert card is not None
        whole = card.measured_on["fp32"]["miou"] if share == 0 else whole
        found += _candidates(card, share, whole)
    front = pareto(found)
    fitting = [candidate for candidate in found if candidate.within(budget)]
    best = max(fitting, key=lambda c: (c.miou, -c.latency_ms), default=None)
    _write_front(folder, search, budget, found, front, best)
    if best is None:
        raise UserError(f"nothing fits the budget; {_closest(found, budget)}; see {folder / 'pareto.json'}")
    _write_model(_level(search, best.share, folder / "levels"), best, folder / "model")
    return best


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in latency, size and mIoU at once, fastest first."""
    agreeing = [c for c in candidates if c.agrees]
    kept = [c for c in agreeing if not any(other.dominates(c) for other in agreeing)]
    return sorted(kept, key=lambda c: c.latency_ms)


def _level(search: Search, share: float, levels: Path) -> Path:
    """The exported form of one pruning level, made unless it is there."""
    import hashlib
    import json

    from segraft.checkpoint import read_card
    from segraft.data.packed import PackedDataset

    facts = [read_card(search.model).weights_sha256, PackedDataset(search.dataset).card.fingerprint, share, search.kind]
    facts += [search.training.model_dump(mode="json"), search.export.model_dump(mode="json")]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    final = levels / f"{search.kind}-{share:g}-{key}"
    if not final.exists():
        print(f"pruning {100 * share:.0f} % of the {search.kind}")
        work, beside = levels / f".work-{key}", beside_path(final)
        try:
            prune_and_recover(
                search.model, search.dataset, share, search.kind, search.training, work / "run", work / "model"
            )
            export(search.export, work / "model", search.dataset, beside)
            publish(beside, final)
            remove(work)
        finally:
            remove(beside)
    return final


def _candidates(card: ServingCard, share: float, whole: float) -> list[Candidate]:
    return [
        Candidate(share, name, of.latency_ms, of.size_mb, of.miou, round(100 * (whole - of.miou), 4), of.passed)
        for name, of in card.runtimes.items()
        if of.miou is not None
    ]


def _closest(candidates: Sequence[Candidate], budget: Budget) -> str:
    def excess(of: Candidate) -> float:
        pairs = ((of.latency_ms, budget.ms), (of.size_mb, budget.mb), (of.miou_loss, budget.miou_loss))
        return sum(max(0.0, value / max(limit, 1e-9) - 1) for value, limit in pairs if math.isfinite(limit))

    of = min((c for c in candidates if c.agrees), key=excess, default=None)
    if of is None:
        return "no runtime passed the parity gate"
    cost = f"{of.latency_ms:.1f} ms, {of.size_mb:.1f} MB, {of.miou_loss:.2f} points of mIoU lost"
    return f"closest: {of.runtime} with {100 * of.share:.0f} % pruned: {cost}"


def _write_front(
    folder: Path,
    search: Search,
    budget: Budget,
    found: Sequence[Candidate],
    front: Sequence[Candidate],
    best: Candidate | None,
) -> None:
    limits = {name: value if math.isfinite(value) else None for name, value in asdict(budget).items()}
    content: dict[str, Any] = {
        "kind": search.kind,
        "budget": limits,
        "chosen": asdict(best) if best else None,
        "candidates": [asdict(c) | {"on_front": c in front, "fits": c.within(budget)} for c in found],
    }
    write_json(folder / "pareto.json", content)
    (folder / "pareto.svg").write_text(draw(found, front, best, budget), encoding="utf-8")


def _write_model(level: Path, best: Candidate, destination: Path) -> None:
    beside = beside_path(destination)
    shutil.copytree(level, beside)
    card = read_serving_card(beside)
    assert card is not None
    why = f"the most accurate within the budget, with {100 * best.share:.0f} % pruned"
    write_json(beside / SERVING, card.model_copy(update={"chosen": best.runtime, "why": why}).model_dump(mode="json"))
    publish(beside, destination)
