from __future__ import annotations

import csv
import json
import shutil

import pytest

from segraft.errors import UserError
from segraft.steps import run
from tests.evaluation.fixtures import KNOBS, step_paths

MODELS = {"source": "pretrained", "scratch": "scratch", "transferred": "finetuned"}


@pytest.fixture
def paths(transfer, tmp_path):
    return step_paths(transfer, tmp_path)


@pytest.fixture(scope="module")
def scores(evaluated):
    return json.loads((evaluated / "scores.json").read_text())


def test_scores_are_of_these_models_and_this_data(scores, transfer):
    for model, folder in MODELS.items():
        card = json.loads((transfer / "models" / folder / "model.json").read_text())
        assert scores[model]["weights_sha256"] == card["weights_sha256"]
    assert (scores["split"], scores["images"]) == ("test", 7)
    assert len(scores["dataset"]) == 64


@pytest.mark.parametrize("model", MODELS)
def test_each_model_has_every_score(scores, model):
    found = scores[model]
    assert list(found["iou"]) == scores["classes"] == ["road", "sky <b>&", "car"]
    assert found["miou"] == pytest.approx(sum(found["iou"].values()) / 3)
    assert found["miou_interval"][0] <= found["miou"] <= found["miou_interval"][1]
    assert set(found["slices"]) == {"night", "rain <i>"} and set(found["groups"]) == {"drive0", "drive1"}
    for score in ("pixel_accuracy", "mean_accuracy", "dice"):
        assert 0 <= found[score] <= 1


def test_the_gain_is_the_difference(scores, evaluated):
    metrics = json.loads((evaluated / "metrics.json").read_text())
    for over in ("source", "scratch"):
        gain = scores["gain"][f"over_{over}"]
        assert gain["miou"] == pytest.approx(scores["transferred"]["miou"] - scores[over]["miou"])
        assert gain["interval"][0] <= gain["miou"] <= gain["interval"][1]
        assert metrics[f"gain_over_{over}"] == gain["miou"]
        assert metrics[f"{over}_miou"] == scores[over]["miou"]


def test_plots_are_tables_and_pictures(evaluated):
    plots = evaluated / "plots"
    found = {str(path.relative_to(plots)) for path in plots.rglob("*") if path.is_file()}
    curves = {f"{kind}/{run}.csv" for kind in ("loss", "validation") for run in ("pretrain", "finetune", "scratch")}
    assert curves | {"confusion.csv", "iou.csv"} <= found
    assert len([path for path in found if path.startswith("examples/")]) == 4
    with (plots / "validation" / "finetune.csv").open() as file:
        assert [row["miou"] for row in csv.DictReader(file)] == ["0.3", "0.4"]


def test_the_same_inputs_give_the_same_bytes(evaluated, paths):
    run("evaluate", KNOBS, paths)
    for name in ("scores.json", "report.html", "plots/confusion.csv"):
        assert (evaluated / name).read_bytes() == (paths["scores"].parent / name).read_bytes()


def test_without_a_trained_source_its_row_is_null(transfer, paths, tmp_path):
    untrained = tmp_path / "untrained"
    shutil.copytree(transfer / "models" / "pretrained", untrained)
    card = json.loads((untrained / "model.json").read_text()) | {"provenance": {"steps": 0}}
    (untrained / "model.json").write_text(json.dumps(card))
    metrics = run("evaluate", KNOBS, paths | {"pretrained": untrained})
    scores = json.loads(paths["scores"].read_text())
    assert scores["source"] is None and scores["gain"]["over_source"] is None
    assert "source_miou" not in metrics and "scratch_miou" in metrics
    page = paths["report"].read_text(encoding="utf-8")
    assert "There is no source model" in page and "Source as it is" not in page


def test_a_missing_manifest_is_named_before_anything_is_scored(paths, tmp_path, capsys):
    (tmp_path / "manifest").mkdir()
    with pytest.raises(UserError, match=r"manifest/source\.parquet: no such file; the validate step writes it"):
        run("evaluate", KNOBS, paths | {"manifest": tmp_path / "manifest"})
    assert "score" not in capsys.readouterr().err


def test_a_damaged_model_leaves_no_output(transfer, paths, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(transfer / "models" / "scratch", damaged)
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        run("evaluate", KNOBS, paths | {"baseline": damaged})
    assert not any(paths[name].exists() for name in ("scores", "report", "plots"))
