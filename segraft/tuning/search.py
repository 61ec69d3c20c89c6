"""The search for finetune's knobs, with Optuna (Akiba et al. 2019): TPE draws the trials, the median rule prunes them.

The study is an SQLite file, so a killed search goes on: what was running is drawn again, and resumes. Each trial is a
child run in MLflow of the study's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segraft.data.packed import PackedDataset
from segraft.errors import UserError
from segraft.params import Choice, Params, Range, change
from segraft.steps import hold
from segraft.tracking import Point, Record, TrackingUnavailable, connect
from segraft.tuning.trial import Bench, run_trial

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


def search(params: Params, bench: Bench) -> Study:
    """Run the trials that are missing.

    Args:
        params: the knobs; `tune` says how to search, `finetune` what is not searched.
        bench: what the trials share.

    Returns:
        The study; its best trial has the knobs to use.

    Raises:
        UserError: the space names no knob of finetune, a value is out of its bounds, a trial would have no score,
            another process is searching here, or a training failed.
    """
    # Another search in this folder would take our running trial for one cut short.
    with hold(bench.folder, "searching", ", or name another --folder"):
        study = open_study(params, bench)
        missing = params.tune.trials - len(ended(study))
        if missing > 0:
            study.optimize(
                lambda trial: _objective(trial, params, bench),
                missing,
                callbacks=[lambda study, trial: log(params, study.study_name, outcome(trial))],
            )
    return study


def open_study(params: Params, bench: Bench) -> Study:
    """The study of this space on this dataset, from before if there is one; trials that a kill cut short are queued.

    Raises:
        UserError: the space names no knob of finetune, a value is out of its bounds, a trial would have no score, or
            the study's file is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a warning of its own is a traceback of what we say in a line
    logging.getLogger("alembic").setLevel(logging.WARNING)
    check(params)
    searched = params.tune.space.get("epochs")
    _check_scored(bench.dataset, min(_ends(searched)) if searched else params.finetune.epochs)
    bench.folder.mkdir(parents=True, exist_ok=True)
    name, tune, database = study_name(params, bench), params.tune, (bench.folder / "study.db").absolute()
    storage = f"sqlite:///{database}"
    with _intact(database):
        before = {study.study_name: study for study in optuna.get_all_study_summaries(storage)}
        drawn = before[name].n_trials if name in before else 0
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=tune.seed + drawn, n_startup_trials=tune.startup),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=tune.startup),
        )
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


@contextmanager
def _intact(database: Path) -> Iterator[None]:
    """What is wrong with a study's file, as a UserError.

    Optuna believes its database: values that are none end in whatever its parsing of them raises.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DatabaseError

    broken = (StorageInternalError, DatabaseError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
    try:
        yield
    except broken as error:
        cause = error if isinstance(error, DatabaseError) else error.__cause__
        why = cause.orig if isinstance(cause, DatabaseError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{database}: {why}; if it is damaged, move it away, and the search starts anew") from None


def study_name(params: Params, bench: Bench) -> str:
    """Known by all that decides what a trial scores: space, network, settings, data and the model to start from."""
    from segraft.checkpoint import read_card, teacher_sha256

    content = {
        "space": params.tune.model_dump(mode="json")["space"],
        "model": params.model.model_dump(mode="json"),
        "finetune": _without(params.finetune.model_dump(mode="json"), params.tune.space),
        "dataset": PackedDataset(bench.dataset).card.fingerprint,
        "pretrained": read_card(bench.pretrained).weights_sha256,
        "teacher": teacher_sha256(params.finetune.distill.teacher),
    }
    return "finetune-" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _without(values: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Values of a section but for some dotted keys: what is searched is another in each trial."""
    for key in keys:
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner.pop(last, None)
    return values


def check(params: Params) -> None:
    """Both ends of every range and every choice are values that finetune takes."""
    for key, where in params.tune.space.items():
        for value in _ends(where):
            try:
                change(params, "finetune", [_assignment(key, value)])
            except UserError as error:
                raise UserError(f"tune.space.{key}: {error}") from None


def _ends(where: Choice | Range) -> tuple[Any, ...]:
    return where.choices if isinstance(where, Choice) else (number(where, where.low), number(where, where.high))


def _check_scored(dataset: Path, epochs: int) -> None:
    """Every trial has a score: it is trained, and there are labels to score it on."""
    if not epochs:
        raise UserError("finetune.epochs: 0: what is not trained has no score to compare; say 1 or more")
    if not any(PackedDataset(dataset).split("val").card.class_pixels):
        raise UserError(f"{dataset}: no val labels to tune on; give the target some (data.target.holdout)")


def _objective(trial: Trial, params: Params, bench: Bench) -> float:
    import optuna

    def report(epoch: int, miou: float) -> bool:
        trial.report(miou, epoch)
        print(f"trial {trial.number} epoch {epoch}: mIoU {100 * miou:.2f} %", flush=True)
        return not trial.should_prune()

    drawn = {key: _draw(trial, key, where) for key, where in params.tune.space.items()}
    trial.set_user_attr("started", time.time())
    own = replace(bench, folder=bench.folder / trial.study.study_name)  # another study draws the same values first
    try:
        training = run_trial(own, [_assignment(key, value) for key, value in drawn.items()], report)
    except KeyboardInterrupt:  # which Optuna would take for a failure of the trial; so it stays running, and goes on
        raise SystemExit(128 + signal.SIGINT) from None
    trial.set_user_attr("ended", time.time())
    if training is None:
        raise optuna.TrialPruned
    return float(training["best_miou"])


def one_trial(params: Params, bench: Bench, name: str) -> None:
    """Train once with the knobs as they are, as a trial of Katib's, which draws them and reads what is printed.

    Args:
        params: the knobs, those of `tune.space` as they were drawn.
        bench: where it trains.
        name: what it is called in MLflow.

    Raises:
        UserError: a trial would have no score, or the training failed.
    """
    epochs: dict[int, float] = {}

    def tell(epoch: int, miou: float) -> bool:
        epochs[epoch] = miou
        print(f"epoch={epoch}\nmiou={miou:.6f}", flush=True)
        return True

    _check_scored(bench.dataset, params.finetune.epochs)
    started, state, score = time.time(), "stopped", None
    drawn = {key: _value(params.finetune.model_dump(mode="json"), key) for key in params.tune.space}
    try:
        training = run_trial(bench, (), tell)
        assert training is not None, "it was not given up"
        score = float(training["best_miou"])
        state = "complete"
    except UserError:
        state = "failed"
        raise
    finally:
        log(params, study_name(params, bench), Outcome(name, state, drawn, epochs, score, started, time.time()))


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _draw(trial: Trial, key: str, where: Choice | Range) -> Any:
    if isinstance(where, Choice):
        return trial.suggest_categorical(key, where.choices)
    if where.integer:
        return trial.suggest_int(key, int(where.low), int(where.high), log=where.log)
    return trial.suggest_float(key, where.low, where.high, log=where.log)


def number(where: Range, value: float) -> float:
    """An end of a range, whole if the knob is."""
    return int(value) if where.integer else value


def _assignment(key: str, value: Any) -> str:
    """KEY=VALUE as the command line takes it."""
    return f"{key}={text(value)}"


def text(value: Any) -> str:
    """A value as YAML reads it."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=math.inf).splitlines()[0])


def ended(study: Study) -> list[FrozenTrial]:
    """The trials that count: those that a kill cut short, or that failed, are drawn again."""
    from optuna.trial import TrialState

    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


UNFINISHED = {"stopped": "KILLED", "failed": "FAILED"}
"""State of a trial that may be started again → its status in MLflow."""


@dataclass(frozen=True)
class Outcome:
    """A trial as MLflow is told of it."""

    name: str
    state: str
    """complete, pruned, failed or stopped"""
    knobs: Mapping[str, Any]
    epochs: Mapping[int, float]
    """epoch → mIoU on val"""
    score: float | None
    started: float
    ended: float


def outcome(trial: FrozenTrial) -> Outcome:
    """What became of a trial of Optuna's."""
    started, ended = (trial.user_attrs.get(name, time.time()) for name in ("started", "ended"))
    state = trial.state.name.lower()
    return Outcome(f"trial-{trial.number}", state, trial.params, trial.intermediate_values, trial.value, started, ended)


def log(params: Params, study: str, trial: Outcome) -> None:
    """Write a trial to MLflow, as a child of the study's run; a server that is not there costs the log alone."""
    whole = Record(study, study, trial.started, trial.ended, params={"space": _told(params.tune.space)})
    points = [Point("val_miou", value, epoch, trial.ended) for epoch, value in trial.epochs.items()]
    points += [Point("best_miou", trial.score, 0, trial.ended)] if trial.score is not None else []
    one = Record(trial.name, f"{study}/{trial.name}", trial.started, trial.ended, trial.knobs, points)
    try:
        with connect(params.tracking) as tracker:
            parent = tracker.log(whole)
            run = tracker.log(one, parent)
            tracker.client.set_tag(run, "segraft.trial", trial.state)
            if trial.state in UNFINISHED:  # it is written anew if it goes on
                tracker.client.set_terminated(run, UNFINISHED[trial.state])
            best = tracker.client.get_run(parent).data.metrics.get("best_miou", -1.0)
            if trial.score is not None and trial.score > best:
                tracker.client.log_metric(parent, "best_miou", trial.score)
    except TrackingUnavailable as error:
        if params.tracking.required:
            raise
        print(f"warning: {trial.name} is not in MLflow: {error}")


def _told(space: Mapping[str, Choice | Range]) -> dict[str, str]:
    return {key: json.dumps(where.model_dump(mode="json")) for key, where in space.items()}
