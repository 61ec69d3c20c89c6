import pytest

from segraft.errors import UserError
from segraft.integrity import MANIFEST
from segraft.registry.champion import Contest, history, promote
from segraft.registry.versions import aliases, fetch, publish

TEST_SET, OTHER_SET = "a" * 64, "b" * 64


def unasked(folder):
    pytest.fail("a score that is on record was measured again")


def contest(miou, min_gain=0.0, test_set=TEST_SET, score=unasked):
    return Contest(test_set, miou, min_gain, score)


@pytest.fixture
def contender(tracker, run, make_artifact, request):
    """Registers a model of given content under a name that is this test's own; returns (name, version)."""
    name = request.node.name.replace("[", "-").replace("]", "")

    def register(seed):
        return name, publish(tracker, name, run, *make_artifact(seed), {})

    return register


def test_the_first_is_champion(tracker, contender):
    name, version = contender(0)
    verdict = promote(tracker, name, version, contest(0.31))
    assert verdict.champion and verdict.why == "the first"
    assert aliases(tracker, name) == {"challenger": version, "champion": version}
    assert tracker.client.get_model_version(name, version).tags["miou.aaaaaaaaaaaa"] == "0.31"


@pytest.mark.parametrize(
    ("miou", "min_gain", "wins"),
    [(0.40, 0.0, True), (0.30, 0.0, False), (0.20, 0.0, False), (0.305, 1.0, False), (0.32, 1.0, True)],
)
def test_the_next_must_be_better_by_min_gain(tracker, contender, miou, min_gain, wins):
    name, first = contender(0)
    promote(tracker, name, first, contest(0.30))
    _, second = contender(1)
    verdict = promote(tracker, name, second, contest(miou, min_gain))
    assert verdict.champion is wins and f"{100 * (miou - 0.30):+.2f} mIoU points against version 1" in verdict.why
    assert aliases(tracker, name) == {"challenger": second, "champion": second if wins else first}


def test_a_champion_of_another_test_set_is_scored_again_once(tracker, contender):
    name, first = contender(0)
    promote(tracker, name, first, contest(0.9, test_set=OTHER_SET))
    seen = []

    def score(folder):
        seen.append(sorted(path.name for path in folder.iterdir()))
        return 0.35

    _, second = contender(1)
    assert not promote(tracker, name, second, contest(0.30, score=score)).champion
    assert seen == [["model.json", "weights.safetensors"]], "the champion's own model folder is what is scored"
    assert not promote(tracker, name, second, contest(0.34)).champion, "the second time its score is on record"
    _, third = contender(2)
    assert promote(tracker, name, third, contest(0.36)).champion


def test_a_champion_that_cannot_be_scored_stays_and_it_says_why(tracker, contender):
    name, first = contender(0)
    promote(tracker, name, first, contest(0.1, test_set=OTHER_SET))

    def score(folder):
        raise UserError("its classes are others")

    verdict = promote(tracker, name, contender(1)[1], contest(0.9, score=score))
    assert not verdict.champion and "version 1 stays" in verdict.why and "its classes are others" in verdict.why
    assert aliases(tracker, name)["champion"] == first


def test_a_champion_that_was_tampered_with_is_not_scored(tracker, contender, tmp_path):
    from urllib.parse import urlparse

    name, first = contender(0)
    promote(tracker, name, first, contest(0.1, test_set=OTHER_SET))
    source = urlparse(tracker.client.get_model_version(name, first).source).path
    with open(f"{source}/{MANIFEST}", "a") as manifest:
        manifest.write(" ")
    verdict = promote(tracker, name, contender(1)[1], contest(0.9))
    assert not verdict.champion and "refused" in verdict.why
    with pytest.raises(UserError, match="refused"):
        fetch(tracker, name, first, tmp_path / "fetched")


def test_every_champion_is_on_record(tracker, contender):
    name, first = contender(0)
    promote(tracker, name, first, contest(0.30))
    promote(tracker, name, first, contest(0.30))
    _, second = contender(1)
    promote(tracker, name, second, contest(0.29))
    promote(tracker, name, second, contest(0.31))
    past = history(tracker, name)
    assert [(entry["version"], entry["replaced"]) for entry in past] == [("1", None), ("2", "1")]
    assert past[1]["why"].startswith("+1.00 mIoU points") and past[1]["at"].endswith("+00:00")


def test_an_entry_that_a_kill_left_out_is_added(tracker, contender):
    name, first = contender(0)
    tracker.client.set_registered_model_alias(name, "champion", first)
    assert history(tracker, name) == []
    verdict = promote(tracker, name, first, contest(0.3))
    assert verdict.champion and verdict.why == "was champion already"
    assert [entry["version"] for entry in history(tracker, name)] == ["1"] == [e["version"] for e in verdict.history]


def test_after_a_rollback_the_record_says_who_was_replaced(tracker, contender):
    name, first = contender(0)
    promote(tracker, name, first, contest(0.30))
    promote(tracker, name, contender(1)[1], contest(0.40))
    tracker.client.set_registered_model_alias(name, "champion", first)
    verdict = promote(tracker, name, contender(2)[1], contest(0.35))
    assert verdict.champion and "against version 1" in verdict.why
    assert (verdict.history[-1]["version"], verdict.history[-1]["replaced"]) == ("3", "1")
    tracker.client.set_registered_model_alias(name, "champion", first)
    again = promote(tracker, name, "3", contest(0.35))
    assert [entry["replaced"] for entry in again.history] == [None, "1", "1", "1"]
