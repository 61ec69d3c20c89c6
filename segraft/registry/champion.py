"""Who is champion: the version that scored best on one test set, and the list of those before it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segraft.errors import UserError
from segraft.registry.versions import aliases, fetch
from segraft.tracking import Tracker, TrackingUnavailable

CHAMPION = "champion"
Score = Callable[[Path], float]
"""model folder → its mIoU, 0…1, in the test in question"""


@dataclass(frozen=True)
class Contest:
    """What a challenger has to win.

    Attributes:
        test: fingerprint of the images and masks that all scores are of, and of how they are scored.
        miou: the challenger's, 0…1.
        min_gain: mIoU points (hundredths) by which it must be better.
        score: scores a champion that was scored in another test.
    """

    test: str
    miou: float
    min_gain: float
    score: Score

    @property
    def tag(self) -> str:
        """Tag of a model version that holds its mIoU in this test."""
        return f"miou.{self.test[:12]}"


@dataclass(frozen=True)
class Verdict:
    """Who is champion, and why."""

    champion: bool
    """whether the challenger is"""
    why: str
    history: list[dict[str, Any]]
    """every champion so far: version, replaced, at (ISO 8601, UTC), why"""


def promote(tracker: Tracker, name: str, version: str, contest: Contest) -> Verdict:
    """Make a version of model `name` champion if there is none, or if it beats the champion on the same test set."""
    tracker.client.set_model_version_tag(name, version, contest.tag, repr(contest.miou))
    champion = aliases(tracker, name).get(CHAMPION)
    wins, why = True, "the first"
    if champion == version:
        why = "was champion already"
    elif champion is not None:
        wins, why = _duel(tracker, name, champion, contest)
    if wins and champion != version:
        tracker.client.set_registered_model_alias(name, CHAMPION, version)
    past = history(tracker, name)
    if wins and (champion != version or not past or past[-1]["version"] != version):
        replaced = None if champion == version else champion
        now = datetime.now(UTC).isoformat(timespec="seconds")
        past.append({"version": version, "replaced": replaced, "at": now, "why": why})
        tracker.client.set_registered_model_tag(name, f"{CHAMPION}.{len(past):04d}", json.dumps(past[-1]))
    return Verdict(wins, why, past)


def _duel(tracker: Tracker, name: str, champion: str, contest: Contest) -> tuple[bool, str]:
    try:
        theirs = _champions_score(tracker, name, champion, contest)
    except TrackingUnavailable:
        raise
    except UserError as error:
        return False, f"version {champion} stays, for it cannot be scored on this test set: {error}"
    gain = 100 * (contest.miou - theirs)
    wins = gain > 0 and gain >= contest.min_gain
    needed = f"; {contest.min_gain:g} are needed" if contest.min_gain else ""
    return wins, f"{gain:+.2f} mIoU points against version {champion} on the same test set{needed}"


def _champions_score(tracker: Tracker, name: str, champion: str, contest: Contest) -> float:
    tags = tracker.client.get_model_version(name, champion).tags
    if contest.tag in tags:
        return float(tags[contest.tag])
    with tempfile.TemporaryDirectory() as scratch:
        theirs = contest.score(fetch(tracker, name, champion, Path(scratch)))
    tracker.client.set_model_version_tag(name, champion, contest.tag, repr(theirs))
    return theirs


def history(tracker: Tracker, name: str) -> list[dict[str, Any]]:
    """The champions so far, oldest first, from the registered model's tags; of an alias MLflow keeps no history."""
    tags = tracker.client.get_registered_model(name).tags
    return [json.loads(tags[key]) for key in sorted(tags) if key.startswith(f"{CHAMPION}.")]
