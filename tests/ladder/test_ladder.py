"""The ladder on tiny data: equal compute, nested label budgets, kept cells, and comparisons of known tables."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from segraft.checkpoint import load_model, save_model
from segraft.commands import ladder as command
from segraft.data.packed import CARD, DatasetCard, PackedDataset, ShardWriter
from segraft.errors import UserError
from segraft.evaluation.intervals import interval
from segraft.ladder.cells import Cell, Data, Result, _without_source, cells, climb, fingerprint, source_pixels
from segraft.ladder.compare import power_law, resampled
from segraft.ladder.report import plot, write
from segraft.ladder.rungs import CHANGES, compute, settings
from segraft.ladder.subsets import budget, order, pack_subset
from segraft.ladder.table import outcome
from segraft.params import load_params
from segraft.steps import run
from tests.test_contract import ROOT
from tests.training.conftest import CLASSES, ONLINE, disc

PARAMS = load_params(ROOT / "params.yaml")
MODEL = PARAMS.model.model_copy(update={"arch": "lraspp", "encoder": "mobilenet_v3_small", "weights": "random"})
SHORT = PARAMS.finetune.model_copy(
    update={"epochs": 2, "steps_per_epoch": 6, "batch_size": 2, "checkpoint_every": 0, "threads": 1}
)
RUNGS = ("scratch", "encoder", "source", "full", "self_train")
SMALL = PARAMS.model_copy(
    update={
        "model": MODEL,
        "finetune": SHORT,
        "ladder": PARAMS.ladder.model_copy(update={"seeds": (1, 2), "labels": (0.5, 1.0), "rungs": RUNGS}),
    }
)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder, splits = tmp_path_factory.mktemp("target"), {}
    for split, first, count in (("train", 0, 6), ("val", 100, 2), ("test", 200, 3)):
        writer = ShardWriter(folder, split, len(CLASSES), "raw", 1)
        for seed in range(first, first + count):
            writer.add(replace(disc(seed), group=f"drive{seed % 3}"))
        splits[split] = writer.close()
    card = DatasetCard(taxonomy="discs", classes=CLASSES, codec="raw", crop=(64, 64), online=ONLINE, splits=splits)
    (folder / CARD).write_text(json.dumps(card.model_dump()))
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, discs):
    folder = tmp_path_factory.mktemp("source")
    paths = {"dataset": discs, "work": folder / "work", "weights": folder / "model", "log": folder / "log"}
    run("pretrain", {"model": MODEL, "pretrain": SHORT.model_dump()}, paths)
    return folder / "model"


@pytest.fixture(scope="module")
def climbed(tmp_path_factory, target, pretrained, discs):
    data = Data(SMALL, target, pretrained, source_pixels(pretrained, discs), tmp_path_factory.mktemp("ladder"))
    return data, climb(data)


def test_budgets_are_nested_and_drawn_by_sequence():
    groups = [f"drive{i // 5}" for i in range(20)]
    for seed in range(5):
        drawn = order(groups, seed)
        assert sorted(drawn) == list(range(20))
        for count in range(1, 21):
            whole = [g for g in set(groups) if 0 < sum(groups[i] == g for i in drawn[:count]) < 5]
            assert len(whole) <= 1, "one sequence at most is begun and not yet finished"
    assert order(groups, 1) == order(groups, 1) != order(groups, 2)
    assert [budget(62, share) for share in (0.001, 0.05, 0.5, 1.0)] == [1, 3, 31, 62]


def test_a_subset_keeps_the_other_splits_and_hides_the_labels_of_the_rest(target, tmp_path):
    ids = {}
    for share in (0.3, 0.5, 1.0):
        packed = PackedDataset(pack_subset(target, share, 3, tmp_path / f"{share}"))
        ids[share] = {sample.id for sample in packed.split("train")}
        rest = list(packed.split("unlabelled"))
        assert len(ids[share]) == budget(6, share) == 6 - len(rest)
        assert all((sample.mask == 255).all() for sample in rest)
        assert ids[share].isdisjoint(sample.id for sample in rest)
        for split in ("val", "test"):
            for ours, theirs in zip(packed.split(split), PackedDataset(target).split(split), strict=True):
                assert ours.id == theirs.id and (ours.image == theirs.image).all()
    assert ids[0.3] < ids[0.5] < ids[1.0]


def test_pasted_copies_are_no_labelled_images(target, tmp_path):
    """Each holds labels of two images, and so may show labels of one that is beyond the budget."""
    copies = shutil.copytree(target, tmp_path / "copies")
    packed = PackedDataset(target)
    writer = ShardWriter(copies, "train", len(CLASSES), "raw", 1)
    for sample in packed.split("train"):
        writer.add(sample)
    for sample in packed.split("train"):
        writer.add(replace(sample, id=f"{sample.id}+paste0", tags=("pasted",)))
    card = packed.card.model_copy(update={"splits": dict(packed.card.splits) | {"train": writer.close()}})
    (copies / CARD).write_text(json.dumps(card.model_dump()))
    for share in (0.5, 1.0):
        with_copies, without = (
            PackedDataset(pack_subset(folder, share, 3, tmp_path / f"{folder.name}-{share}"))
            for folder in (copies, target)
        )
        for split in ("train", "unlabelled"):
            assert [s.id for s in with_copies.split(split)] == [s.id for s in without.split(split)]


@pytest.mark.parametrize("rung", ["scratch", *CHANGES, "finetune"])
def test_all_rungs_cost_the_same(rung):
    whole = PARAMS.finetune.model_copy(update={"epochs": 4, "steps_per_epoch": 70})
    training = settings(rung, whole, 5)
    allowed = 4 * 70 * whole.batch_size * 64 * 64
    assert training.seed == 5 and 0.98 * allowed < compute(training, (64, 64)) <= allowed
    assert (training.steps_per_epoch < 70) == (rung in ("self_train", "distilled"))


def test_rungs_do_what_their_names_say():
    of = {rung: settings(rung, PARAMS.finetune, 1) for rung in ("probe", "frozen", "gradual", "full", "self_train")}
    assert [of[rung].freeze for rung in of] == ["body", "encoder", "gradual", "none", "none"]
    assert of["self_train"].self_train.weight == 1.0 and of["full"].self_train.weight == 0.0
    assert settings("mixed", PARAMS.finetune, 1).source_share == 0.5
    assert settings("distilled", PARAMS.finetune, 1).distill.teacher == "pretrained"
    kept = PARAMS.finetune.model_copy(update={"batch_norm": "frozen"})
    norms = [settings(rung, kept, 1).batch_norm for rung in ("encoder", "full", "probe", "finetune")]
    assert norms == ["train", "train", "frozen", "frozen"], "with and without the source they differ by it alone"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps_per_epoch": 0}, "steps_per_epoch above 0"),
        ({"patience": 2}, "patience 0"),
        ({"ema": 0.0}, "give finetune.ema a value above 0"),
        ({"epochs": 9, "steps_per_epoch": 1}, "does not suffice"),
        ({"epochs": 1}, r"begins after 1 epochs, and finetune\.epochs is 1"),
    ],
)
def test_unequal_compute_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        settings("self_train", PARAMS.finetune.model_copy(update=changes), 1)


def test_every_cell_is_trained_once_at_equal_compute(climbed):
    data, results = climbed
    assert [(r.rung, r.share, r.seed) for r in results if r.rung == "source"] == [("source", 1.0, 1)]
    trained = [result for result in results if result.rung != "source"]
    assert len(trained) == 2 * 2 * 3 + 2, "self_train has nothing to learn from where all is labelled"
    assert {r.target_pixels for r in trained if r.rung != "self_train"} == {12 * 2 * 64 * 64}
    assert all(r.target_pixels <= 12 * 2 * 64 * 64 for r in trained)
    assert {r.total_pixels - r.target_pixels for r in trained} == {0, data.source_pixels} == {0, 12 * 2 * 64 * 64}
    assert {r.labels for r in trained} == {3, 6} and all(r.counts.shape == (3, 3, 2) for r in results)
    assert not list((data.folder / "work").iterdir())


def test_a_rung_that_lacks_source_images_is_left_out_and_a_total_one_spends_it_all(climbed, capsys):
    data, results = climbed
    ladder = SMALL.ladder.model_copy(update={"seeds": (1,), "labels": (0.5,), "rungs": ("mixed", "encoder_total")})
    more = climb(replace(data, params=SMALL.model_copy(update={"ladder": ladder})))
    assert "set augment.source_samples" in capsys.readouterr().out and [r.rung for r in more] == ["encoder_total"]
    full = next(result for result in results if result.rung == "full")
    assert more[0].target_pixels == more[0].total_pixels == full.total_pixels


def test_lost_results_alone_are_trained_again(climbed):
    data, results = climbed
    files = sorted((data.folder / "cells").iterdir())
    lost = next(f for f in files if json.loads(f.read_text())["rung"] == "full")
    before = lost.read_text()
    lost.unlink()
    times = {f: f.stat().st_mtime_ns for f in files if f != lost}
    again = climb(data)
    assert {f: f.stat().st_mtime_ns for f in files if f != lost} == times
    assert json.loads(lost.read_text())["counts"] == json.loads(before)["counts"]
    assert [r.miou for r in again] == [r.miou for r in results]


def test_another_setting_is_another_cell(climbed):
    data, _ = climbed
    params = SMALL.model_copy(
        update={
            "finetune": SHORT.model_copy(update={"lr": 0.004}),
            "ladder": SMALL.ladder.model_copy(update={"seeds": (1,), "labels": (1.0,), "rungs": ("full",)}),
        }
    )
    count = len(list((data.folder / "cells").iterdir()))
    climb(replace(data, params=params))
    assert len(list((data.folder / "cells").iterdir())) == count + 1


def test_another_seed_is_another_decoder_without_a_source(climbed, target, tmp_path):
    data, _ = climbed
    heads = []
    for seed in (1, 1, 2):
        start = _without_source(settings("encoder", SHORT, seed), target, data, tmp_path / str(len(heads)))
        state = load_model(start)[0].state_dict()
        heads.append(
            next(state[name] for name in sorted(state) if not name.startswith("encoder.") and state[name].ndim == 4)
        )
    assert heads[0].equal(heads[1]) and not heads[0].equal(heads[2])


def test_another_map_between_the_classes_is_another_cell(climbed, target, pretrained, tmp_path):
    data, _ = climbed
    copy = shutil.copytree(target, tmp_path / "target")
    card = json.loads((copy / CARD).read_text())
    card["taxonomy"] = "circles"
    (copy / CARD).write_text(json.dumps(card))
    (other := shutil.copytree(copy, tmp_path / "other")).joinpath(CARD).write_text(
        json.dumps(card | {"kin": {"discs": [[CLASSES[0].name, CLASSES[1].name]]}})
    )
    cell = Cell("full", 1.0, 1)
    digests = {fingerprint(cell, SHORT, folder, replace(data, target=folder)) for folder in (copy, other)}
    assert len(digests) == 2


def test_cells_are_every_combination_once():
    wanted = cells(SMALL)
    assert len(wanted) == len(set(wanted)) == 1 + 2 * 2 * 4 and wanted[0] == Cell("source", 1.0, 1)


def counts(rng, iou, images=40, pixels=10_000):
    """(N, 3, 2) of a model that is right in about the same share of each class's pixels."""
    share = np.clip(rng.normal(2 * iou / (1 + iou), 0.05, (images, 1)), 0, 1)
    right = np.repeat((share * pixels).astype(np.int64), 2, axis=1)
    return np.stack([right, np.full_like(right, pixels), np.full_like(right, pixels)], axis=1)


def better(of, points):
    """The same model, but for so many more right pixels in each image and class."""
    moved = of.copy()
    moved[:, 0] += points
    return moved


def result(rung, seed, of, share=1.0, labels=10):
    return Result(rung, share, seed, labels, of, 100, 200, 1.0)


def test_paired_intervals_cover_a_known_difference_and_are_narrow():
    covered, rng = 0, np.random.default_rng(4)
    for _ in range(20):
        theirs = [counts(rng, 0.5) for _ in range(3)]
        noise = [rng.normal(200, 60, (40, 1)).astype(np.int64) for _ in range(3)]
        mine = [better(one, extra) for one, extra in zip(theirs, noise, strict=True)]
        low, high = interval(resampled(mine) - resampled(theirs))
        share = 2 * 0.5 / 1.5
        truth = (share + 0.02) / (2 - share - 0.02) - share / (2 - share)
        covered += low <= truth <= high
        whole = interval(resampled(mine))
        assert high - low < (whole[1] - whole[0]) / 2, "images that are hard for both do not blur the difference"
    assert covered >= 16


@pytest.mark.parametrize(("points", "said"), [(300, "helped"), (-300, "negative transfer"), (0, "no difference")])
def test_the_verdict_has_three_outcomes(points, said):
    rng = np.random.default_rng(1)
    theirs = {seed: counts(rng, 0.5) for seed in (1, 2, 3)}
    jitter = {seed: rng.normal(points, 40, (40, 1)).astype(np.int64) for seed in theirs}
    table = [result("encoder", seed, of) for seed, of in theirs.items()]
    table += [result("full", seed, better(of, jitter[seed])) for seed, of in theirs.items()]
    found = outcome(table)
    row = next(row for row in found.rows if row.rung == "full")
    assert row.verdict == said and said in found.headline()
    assert next(row for row in found.rows if row.rung == "encoder").verdict is None
    as_it_is = next(row for row in outcome([*table, result("source", 1, theirs[1])]).rows if row.rung == "source")
    assert as_it_is.verdict is None and set(as_it_is.gains) == {"encoder"}


def test_few_images_give_no_verdict():
    """Resamples of one image are all alike: their interval has no width and leaves 0 out."""
    of = counts(np.random.default_rng(1), 0.5)[:1]
    found = outcome([result("encoder", 1, of), result("full", 1, better(of, np.full((1, 1), 300)))])
    assert next(row for row in found.rows if row.rung == "full").verdict == "too few images"


def test_without_a_rung_to_compare_with_there_is_no_verdict():
    found = outcome([result("full", 1, counts(np.random.default_rng(0), 0.5))])
    assert found.baseline is None and "No verdict" in found.headline() and found.rows[0].verdict is None


def test_two_shares_that_are_one_budget_count_once():
    rng, results = np.random.default_rng(0), []
    for share, labels, iou in ((0.1, 1, 0.3), (0.3, 2, 0.4), (1.0, 8, 0.5)):
        results += [result("full", seed, counts(rng, iou), share, labels) for seed in (1, 2, 3)]
    again = [replace(one, share=0.05) for one in results[:3]]
    assert outcome(again + results).laws == outcome(results).laws


def test_the_source_alone_is_drawn_at_no_labels(recwarn):
    found = outcome([result("source", 1, counts(np.random.default_rng(0), 0.5), labels=0)])
    assert [row.labels for row in found.rows] == [0] and b"<svg" in plot(found, "svg")
    assert not [str(warning.message) for warning in recwarn], "on a logarithmic axis there is no 0"


def test_a_power_law_is_found_and_a_bad_fit_is_called_one():
    labels, rng = [5, 10, 20, 50], np.random.default_rng(0)
    means = [1 - 0.9 * n**-0.3 for n in labels]
    samples = [mean + rng.normal(0, 0.005, 2000) for mean in means]
    law = power_law(labels, means, samples, [100])
    assert law.good and law.a == pytest.approx(0.9) and law.b == pytest.approx(0.3)
    ahead = law.predictions[100]
    assert ahead.mean == pytest.approx(1 - 0.9 * 100**-0.3) and ahead.interval[0] < ahead.mean < ahead.interval[1]
    noise = [0.5, 0.6, 0.45, 0.55]
    bad = power_law(labels, noise, [mean + rng.normal(0, 0.01, 2000) for mean in noise], [100])
    assert not bad.good and "do not extrapolate" in bad.why and not bad.predictions
    assert not power_law([5, 10], [0.5, 0.6], samples[:2], [20]).good


def test_the_report_stands_alone_and_repeats(climbed, tmp_path):
    found = outcome(climbed[1])
    write(found, tmp_path / "a")
    write(found, tmp_path / "b")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert set(files) == {"ladder.html", "ladder.json", "ladder.svg", "ladder.png"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    page = files["ladder.html"].decode()
    assert "<svg" in page and 'src="' not in page and "<script" not in page
    assert all(f"<th>{rung}</th>" in page for rung in RUNGS)
    table = json.loads(files["ladder.json"])
    assert [row["labels"] for row in table["rows"] if row["rung"] == "source"] == [3, 6]
    assert files["ladder.png"].startswith(b"\x89PNG")


def test_the_command_writes_the_report(climbed, target, pretrained, discs, tmp_path, capsys):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = SMALL.model_dump(mode="json", by_alias=True)
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(values | {n: small[n] for n in ("model", "finetune", "ladder")})
    )
    paths = {"source": discs, "target": target, "pretrained": pretrained, "work": climbed[0].folder}
    args = SimpleNamespace(params=tmp_path / "params.yaml", set=[], report=tmp_path / "report", **paths)
    command.main(args)
    assert (tmp_path / "report" / "ladder.html").is_file() and "self_train" in capsys.readouterr().out


def test_a_source_that_taught_nothing_is_refused(target, discs, tmp_path):
    paths = {"dataset": discs, "work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    run("pretrain", {"model": MODEL, "pretrain": SHORT.model_copy(update={"epochs": 0})}, paths)
    args = SimpleNamespace(
        params=ROOT / "params.yaml", set=[], source=discs, target=target, pretrained=tmp_path / "model"
    )
    with pytest.raises(UserError, match="not trained on a source"):
        command.main(args)


def test_a_target_without_test_labels_is_refused_before_anything_is_trained(target, pretrained, discs, tmp_path):
    shutil.copytree(target, tmp_path / "target")
    card = json.loads((target / CARD).read_text())
    del card["splits"]["test"]
    (tmp_path / "target" / CARD).write_text(json.dumps(card))
    paths = {"source": discs, "target": tmp_path / "target", "pretrained": pretrained, "work": tmp_path / "work"}
    with pytest.raises(UserError, match="target: no test labels; every rung is scored on them"):
        command.main(SimpleNamespace(params=ROOT / "params.yaml", set=[], **paths))
    assert not (tmp_path / "work").exists()


def test_a_model_that_knows_the_target_is_no_source(target, discs, tmp_path):
    paths = {"dataset": target, "work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    run("pretrain", {"model": MODEL, "pretrain": SHORT}, paths)
    args = SimpleNamespace(
        params=ROOT / "params.yaml", set=[], source=discs, target=target, pretrained=tmp_path / "model"
    )
    with pytest.raises(UserError, match=r"model: learned from .* itself; give the source model"):
        command.main(args)


def test_a_model_that_does_not_say_how_it_was_trained_taught_nothing(pretrained, discs, tmp_path):
    network, card = load_model(pretrained)
    save_model(tmp_path, network, card.model_copy(update={"provenance": {}}))
    assert source_pixels(tmp_path, discs) == 0 < source_pixels(pretrained, discs)


def test_an_error_stands_on_a_line_of_its_own(target, pretrained, tmp_path, capsys):
    broken = SMALL.model_copy(update={"model": SMALL.model.model_copy(update={"arch": "unett"})})
    with pytest.raises(UserError, match="'unett': unknown"):
        climb(Data(broken, target, pretrained, 1, tmp_path))
    assert capsys.readouterr().err.endswith("\n")


def test_the_dvc_stage_is_not_in_the_pipeline_and_names_real_paths():
    stage = yaml.safe_load((ROOT / "ladder/dvc.yaml").read_text())["stages"]["ladder"]
    assert "ladder" not in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {
        out
        for s in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
        for out in s["outs"]
        if isinstance(out, str)
    }
    for dep in stage["deps"]:
        assert dep in made or (ROOT / dep).exists(), dep
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(stage["params"]) <= set(values)
