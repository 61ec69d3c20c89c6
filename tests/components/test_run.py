"""What a component's body does, with kfp's own artifacts and real steps."""

import json
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from segraft import steps
from segraft.errors import UserError
from segraft.orchestration.component import MD5, PLACE, STORE, locate, made_of, run, settle
from segraft.orchestration.digest import digest
from segraft.orchestration.rendering import confusion, picture
from segraft.params import load_params
from segraft.steps import In, Metrics, Out, Work

ROOT = Path(__file__).parents[2]
SET = "{{train: 2, val: 1, test: {}, conditions: [clear]}}"
TINY = ("streets.size=[64, 128]", f"streets.source={SET.format(0)}", f"streets.target={SET.format(1)}")


def artifact(kind, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path), metadata={})


def outputs(folder):
    kinds = {"source": dsl.Dataset, "target": dsl.Dataset, "metrics": dsl.Metrics}
    return {name: artifact(kind, folder / name) for name, kind in kinds.items()}


@pytest.fixture
def streets():
    return load_params(ROOT / "params.yaml", TINY).streets.model_dump_json()


def test_a_step_runs_from_json_and_artifacts(tmp_path, streets):
    made = outputs(tmp_path)
    assert run("streets", {"streets": streets, "build": "{}", **made}) == {"source_images": 3, "target_images": 4}
    assert made["source"].metadata[MD5] == digest(tmp_path / "source") and made["source"].metadata[MD5].endswith(".dir")
    assert (
        made["metrics"].metadata["target_images"]
        == json.loads((tmp_path / "metrics").read_text())["target_images"]
        == 4
    )


def test_with_a_store_datasets_stay_and_only_their_place_travels(tmp_path, streets, monkeypatch):
    monkeypatch.setenv(STORE, str(tmp_path / "store"))
    places = []
    for number in range(2):
        made = outputs(tmp_path / str(number))
        run("streets", {"streets": streets, **made})
        assert Path(made["source"].path).stat().st_size < 300, "what travels is a line"
        assert (
            Path(locate(made["source"])).is_dir()
            and digest(Path(locate(made["source"]))) == made["source"].metadata[MD5]
        )
        places.append(locate(made["source"]))
    assert places[0] == places[1] and len(list((tmp_path / "store").iterdir())) == 2, "the same content is kept once"


@pytest.fixture
def door(monkeypatch):
    """Opens the door to a function of the test."""

    def open_to(function, **paths):
        monkeypatch.setattr(steps, "spec", lambda name: steps.Spec(name, function, (), paths))

    return open_to


def test_what_a_step_takes_as_a_folder_may_come_in_parts(door, tmp_path):
    seen = {}

    def look(taxonomies: In, logs: In, dataset: In, lock: Work, made: Out) -> Metrics:
        seen.update(taxonomies=(taxonomies / "a.yaml").read_text(), logs=sorted(p.name for p in logs.iterdir()))
        seen.update(log=(logs / "finetune" / "x").read_text(), lock=yaml.safe_load(lock.read_text())["stages"])
        made.write_text("x")
        return {}

    door(look, taxonomies="in", logs="in", dataset="in", lock="work", made="out")
    given = {name: artifact(dsl.Artifact, tmp_path / name) for name in ("pretrain_log", "finetune_log", "dataset")}
    for one in given.values():
        Path(one.path).mkdir()
        (Path(one.path) / "x").write_text(one.name)
    given["dataset"].metadata |= {MD5: "12.dir", "made_of": {"target": "34.dir"}}
    run("look", {"taxonomies": '{"a.yaml": "name: a"}', **given, "made": artifact(dsl.Artifact, tmp_path / "made")})
    assert (seen["taxonomies"], seen["logs"], seen["log"]) == ("name: a", ["finetune", "pretrain"], "finetune_log")
    assert seen["lock"]["augment"]["deps"] == [{"path": "target", "md5": "34.dir"}]
    assert seen["lock"]["finetune"]["deps"] == [{"path": str(tmp_path / "dataset"), "md5": "12.dir"}]


def test_outputs_say_what_they_were_made_of(tmp_path):
    given, made = artifact(dsl.Dataset, tmp_path / "given"), artifact(dsl.Model, tmp_path / "made")
    given.metadata[MD5] = "12.dir"
    (tmp_path / "made").write_text("x")
    settle(made, made_of({"dataset": given, "weights": made, "build": "{}"}))
    assert made.metadata["made_of"] == {"dataset": "12.dir"} and PLACE not in made.metadata


def test_what_the_user_can_mend_ends_without_a_traceback(door, capsys):
    def refuse() -> Metrics:
        raise UserError("train/a.png: damaged; replace it")

    door(refuse)
    with pytest.raises(SystemExit) as ended:
        run("refuse", {})
    assert ended.value.code == 65 and capsys.readouterr().err == "segraft refuse: train/a.png: damaged; replace it\n"


def test_a_confusion_matrix_is_read_back_from_the_plot(tmp_path):
    (tmp_path / "c.csv").write_text("actual,predicted\n" + "road,road\n" * 98 + "road,sky\n" * 2 + "sky,sky\n" * 100)
    names, matrix = confusion(tmp_path / "c.csv")
    assert (names, matrix) == (["road", "sky"], [[98, 2], [0, 100]])
    shown = dsl.ClassificationMetrics()
    shown.log_confusion_matrix(names, matrix)
    assert shown.metadata["confusionMatrix"]["rows"][0] == {"row": [98, 2]}


def test_a_picture_s_page_holds_the_picture(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in picture(tmp_path / "p.png") and "http" not in picture(
        tmp_path / "p.png"
    )
