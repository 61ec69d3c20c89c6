"""The budget: every pruning level and student on every runtime, measured; the Pareto front; the best that fits."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segraft.checkpoint import read_card, teacher_sha256
from segraft.compression.chart import draw
from segraft.compression.prune import CRITERION, MOST, Kind, TooMuch
from segraft.compression.recover import prune_and_recover, teach
from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.export.run import export, same_classes
from segraft.models import check_pair
from segraft.params import Export, Model, Training
from segraft.serving.runtimes import SERVING
from segraft.serving.runtimes.card import ServingCard, read_serving_card
from segraft.steps import beside, remove, write_json


@dataclass(frozen=True)
class Budget:
    """What a model may cost; infinite where nothing was asked."""

    ms: float = math.inf
    mb: float = math.inf
    miou_loss: float = math.inf
    """points of mIoU against the model as it was, in fp32"""


@dataclass(frozen=True)
class Form:
    """What is made of the model."""

    share: float = 0.0
    """that is pruned"""
    student: str = ""
    """encoder of a student of the model; empty: it is the model itself, pruned or not"""

    def __str__(self) -> str:
        return f"student {self.student}" if self.student else f"{100 * self.share:.0f} % pruned"


@dataclass(frozen=True)
class Candidate:
    """One form on one runtime."""

    form: Form
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
        students: encoders of students.
        start: where a student's encoder starts.
        training: how a pruned model trains on, and a student learns.
        export: the runtimes and the parity gate.
    """

    model: Path
    dataset: Path
    shares: tuple[float, ...]
    kind: Kind
    students: tuple[str, ...]
    start: Model
    training: Training
    export: Export

    @property
    def forms(self) -> list[Form]:
        """All that is tried, the model as it is first."""
        pruned = [Form(share) for share in sorted({0.0, *self.shares})]
        return pruned + [Form(student=name) for name in dict.fromkeys(self.students)]


def compress(search: Search, budget: Budget, folder: Path) -> Candidate:
    """Search, draw the front, and write the most accurate model that fits the budget.

    Writes `pareto.json`, `pareto.svg` and `model/` (an exported model folder that serves on the chosen runtime) into
    `folder`. What was made stays in `folder/levels`, so another budget costs no second training.

    Raises:
        UserError: nothing fits; the message says what came closest, and the front is written all the same. Or a
            student's encoder does not go with the model's architecture, or model and dataset have other classes.
    """
    same_classes(search.model, PackedDataset(search.dataset).card, search.dataset)
    for student in search.students:
        _check_student(read_card(search.model).arch, student)
    search = replace(search, export=_on_every_image(search))
    found: list[Candidate] = []
    whole = math.nan
    for form in search.forms:
        try:
            card = read_serving_card(_level(search, form, folder / "levels"))
        except TooMuch as error:
            print(f"{form} is left out: {error}")
            continue
        assert card is not None
        whole = card.measured_on["fp32"]["miou"] if form == Form() else whole
        found += _candidates(card, form, whole)
    front = pareto(found)
    fitting = [candidate for candidate in found if candidate.within(budget)]
    best = max(fitting, key=lambda c: (c.miou, -c.latency_ms), default=None)
    _write_front(folder, search, budget, found, front, best)
    _tell(front)
    if best is None:
        remove(folder / "model")  # an earlier budget's, which does not fit this one
        raise UserError(f"nothing fits the budget; {_closest(found, budget)}; see {folder / 'pareto.json'}")
    _write_model(_level(search, best.form, folder / "levels"), best, folder / "model")
    return best


def _check_student(arch: str, student: str) -> None:
    try:
        check_pair(arch, student)
    except UserError as error:  # it names the section model, and this encoder came from a flag
        raise UserError(f"--students: {str(error).partition(': ')[2]}") from None


def _on_every_image(search: Search) -> Export:
    """The section export, measuring on all of val: a few images cannot tell a loss of half a point."""
    packed = PackedDataset(search.dataset)
    return search.export.model_copy(update={"images": len(packed.split("val")) or len(packed.split("train"))})


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in latency, size and mIoU at once, fastest first."""
    agreeing = [c for c in candidates if c.agrees]
    kept = [c for c in agreeing if not any(other.dominates(c) for other in agreeing)]
    return sorted(kept, key=lambda c: c.latency_ms)


def _level(search: Search, form: Form, levels: Path) -> Path:
    """The exported model folder of one form, made unless it is there; other runtimes or gates train nothing anew."""
    place = levels / f"{form.student or f'{search.kind}-{form.share:g}'}-{_key(search, form)}"
    trained, exported = place / "model", place / f"exported-{_digest(search.export.model_dump(mode='json'))}"
    if not trained.exists():
        print(f"making {form}")
        work = place / ".work"
        with beside(trained) as made:
            if form.student:
                teach(search.model, search.dataset, form.student, search.start, search.training, work, made)
            else:
                prune_and_recover(search.model, search.dataset, form.share, search.kind, search.training, work, made)
        remove(work)
    if not exported.exists():
        print(f"measuring {form}")
        with beside(exported) as made:
            export(search.export, trained, search.dataset, made)
    return exported


def _key(search: Search, form: Form) -> str:
    """Digest of all that decides what a form learns."""
    training = search.training
    facts: list[Any] = [read_card(search.model).weights_sha256, PackedDataset(search.dataset).card.fingerprint]
    facts += [asdict(form), search.kind, CRITERION[search.kind], MOST, training.model_dump(mode="json")]
    if form.student:
        facts.append(search.start.model_dump(mode="json"))
    else:
        facts.append(teacher_sha256(training.distill.teacher))
    return _digest(facts)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _candidates(card: ServingCard, form: Form, whole: float) -> list[Candidate]:
    return [
        Candidate(form, name, of.latency_ms, of.size_mb, of.miou, round(100 * (whole - of.miou), 4), of.passed)
        for name, of in card.runtimes.items()
        if of.miou is not None
    ]


def _tell(front: Sequence[Candidate]) -> None:
    print(f"\n{'what no other beats':<40}{'ms':>8}{'MB':>8}{'mIoU':>8}{'lost':>8}")
    for c in front:
        name = f"{c.runtime}, {c.form}"
        print(f"{name:<40}{c.latency_ms:>8.1f}{c.size_mb:>8.1f}{100 * c.miou:>8.2f}{c.miou_loss:>8.2f}")


def _closest(candidates: Sequence[Candidate], budget: Budget) -> str:
    def excess(of: Candidate) -> float:
        pairs = ((of.latency_ms, budget.ms), (of.size_mb, budget.mb), (of.miou_loss, budget.miou_loss))
        return sum(max(0.0, value / max(limit, 1e-9) - 1) for value, limit in pairs if math.isfinite(limit))

    of = min((c for c in candidates if c.agrees), key=excess, default=None)
    if of is None:
        return "no runtime passed the parity gate"
    cost = f"{of.latency_ms:.1f} ms, {of.size_mb:.1f} MB, {of.miou_loss:.2f} points of mIoU lost"
    return f"closest: {of.runtime}, {of.form}: {cost}"


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
        "chosen": _plain(best) if best else None,
        "candidates": [_plain(c) | {"on_front": c in front, "fits": c.within(budget)} for c in found],
    }
    write_json(folder / "pareto.json", content)
    (folder / "pareto.svg").write_text(draw(found, front, best, budget), encoding="utf-8")


def _plain(candidate: Candidate) -> dict[str, Any]:
    values = asdict(candidate)
    return {**values.pop("form"), **values}


def _write_model(level: Path, best: Candidate, destination: Path) -> None:
    why = f"the most accurate within the budget: {best.form}"
    with beside(destination) as made:
        shutil.copytree(level, made)
        card = read_serving_card(made)
        assert card is not None
        write_json(made / SERVING, card.model_copy(update={"chosen": best.runtime, "why": why}).model_dump(mode="json"))
