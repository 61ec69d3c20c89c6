"""`segraft tune`: the search here, and the same search for Katib."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml
from kubeflow_katib_api.models import V1beta1Experiment
from optuna.trial import TrialState

from segraft.data.packed import CARD
from segraft.errors import UserError
from segraft.params import load_params
from segraft.steps import hold
from segraft.tracking import connect
from segraft.tuning import search as tuning
from segraft.tuning.katib import katib, write_katib
from segraft.tuning.trial import Bench
from tests.components.test_run import ROOT
from tests.pipelines.fields import unknown
from tests.steps.test_register import pack_dataset, write_model

SPACE = (
    "tune.space={lr: {low: 0.0001, high: 0.1, log: true, integer: false}, "
    "batch_size: {low: 2, high: 8, log: false, integer: true}, freeze: {choices: [none, encoder]}}"
)
STORE = ("cluster.store=/mnt/data/segraft", "cluster.volumes=[{claim: team, path: /mnt/data}]")


def params(*overrides):
    return load_params(ROOT / "params.yaml", [SPACE, *overrides])


@pytest.fixture
def bench(tmp_path):
    pack_dataset(tmp_path / "packed")
    write_model(tmp_path / "model")
    return Bench(ROOT / "params.yaml", (), tmp_path / "packed", tmp_path / "model", tmp_path / "tune")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{lrr: {low: 0.1, high: 1, log: false, integer: false}}", "tune.space.lrr: .*params.yaml has no finetune.lrr"),
        ("{lr: {low: -1, high: 1, log: false, integer: false}}", "tune.space.lr: finetune.lr: .*greater than 0"),
        ("{freeze: {choices: [none, everything]}}", "tune.space.freeze: finetune.freeze: "),
        ("{lr: {low: 1, high: 0.1, log: false, integer: false}}", "low must be below high"),
        ("{lr: {low: 0, high: 0.1, log: true, integer: false}}", "above 0 with log"),
        ("{epochs: {low: 1.5, high: 3, log: false, integer: true}}", r"\[1.5, 3.0\]: low and high must be whole"),
        ("{epochs: {low: 1, high: 3.5, log: false, integer: true}}", r"\[1.0, 3.5\]: low and high must be whole"),
    ],
)
def test_a_space_that_finetune_would_refuse_is_refused_before_the_first_trial(space, message, bench):
    with pytest.raises(UserError, match=message):
        tuning.open_study(load_params(ROOT / "params.yaml", [f"tune.space={space}"]), bench)


def test_a_study_goes_on_where_it_was_cut_short_and_is_another_for_other_data(bench):
    study = tuning.open_study(params(), bench)
    cut = study.ask()
    drawn = {key: tuning._draw(cut, key, where) for key, where in params().tune.space.items()}
    again = tuning.open_study(params(), bench)
    assert [t.state for t in again.trials] == [TrialState.FAIL, TrialState.WAITING]
    trial = again.ask()
    assert {key: tuning._draw(trial, key, where) for key, where in params().tune.space.items()} == drawn
    assert 2 <= drawn["batch_size"] <= 8 and isinstance(drawn["batch_size"], int) and 0.0001 <= drawn["lr"] <= 0.1
    write_model(bench.pretrained, seed=1)
    assert tuning.open_study(params(), bench).trials == [], "scores of another model are not comparable"


@pytest.mark.parametrize("damage", [lambda whole: b"junk", lambda whole: whole[: len(whole) // 2], None])
def test_a_damaged_study_is_named(bench, damage):
    database = bench.folder / "study.db"
    tuning.open_study(params(), bench)
    whole = database.read_bytes()
    database.unlink()
    if damage:
        database.write_bytes(damage(whole))
    else:
        with sqlite3.connect(database) as other:
            other.execute("CREATE TABLE studies (something_else)")
    with pytest.raises(UserError, match=rf"{database}: .+; if it is damaged, move it away, and the search starts anew"):
        tuning.open_study(params(), bench)


@pytest.mark.parametrize(
    "damage",
    [
        "trials SET state = 'junk'",
        "trials SET datetime_start = 5",
        "trials SET number = NULL",
        "trial_params SET distribution_json = 'junk'",
        "trial_params SET distribution_json = NULL",
        "trial_params SET param_value = 99",
        "trial_intermediate_values SET intermediate_value = NULL",
        "alembic_version SET version_num = 'another'",
    ],
)
def test_a_study_with_values_that_are_none_is_named(bench, damage):
    study, space = tuning.open_study(params(), bench), params().tune.space
    trial = study.ask()
    tuning._draw(trial, "freeze", space["freeze"])
    trial.report(0.1, 1)
    database = bench.folder / "study.db"
    with sqlite3.connect(database) as file:
        file.execute(f"UPDATE {damage}")
    with pytest.raises(UserError, match=rf"{database}: .+; if it is damaged, move it away, and the search starts anew"):
        tuning.open_study(params(), bench)


def test_trials_that_would_have_no_score_are_refused_before_the_first(bench):
    for overrides in (["finetune.epochs=0"], ["tune.space={epochs: {low: 0, high: 3, log: false, integer: true}}"]):
        with pytest.raises(UserError, match=r"finetune.epochs: 0: .*say 1 or more"):
            tuning.search(params(*overrides), bench)
    tuning.open_study(params("finetune.epochs=0", "tune.space={epochs: {choices: [1, 2]}}"), bench)
    card = json.loads((bench.dataset / CARD).read_text())
    card["splits"]["val"] = {"shards": [], "samples": 0, "class_pixels": [0, 0]}
    (bench.dataset / CARD).write_text(json.dumps(card))
    for tune in (tuning.search, lambda params, bench: tuning.one_trial(params, bench, "x")):
        with pytest.raises(UserError, match=f"{bench.dataset}: no val labels to tune on"):
            tune(params(), bench)
    assert not list(bench.folder.rglob("output.txt")), "nothing was trained"


def test_one_search_at_a_time(bench):
    """A second one would take the first one's running trial for one that was cut short."""
    with (
        hold(bench.folder, "searching"),
        pytest.raises(UserError, match=rf"tune: process {os.getpid()} is searching here; .*another --folder"),
    ):
        tuning.search(params(), bench)
    with hold(bench.folder, "searching"):
        pass


@pytest.mark.slow
def test_a_trial_that_fails_is_a_line(bench, capfd):
    one = replace(bench, overrides=("finetune.epochs=1", "model.arch=nonsense"))
    with pytest.raises(UserError, match=r"trial .*nonsense"):
        tuning.search(params("tune.trials=1"), one)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_trials_of_two_studies_are_trained_apart(bench):
    """Both draw the same values first, for they begin with one seed."""
    for seed in (0, 1):
        write_model(bench.pretrained, seed=seed)
        chosen = params("tune.trials=1", "finetune.epochs=1", "finetune.steps_per_epoch=1")
        own = replace(bench, overrides=("finetune.epochs=1", "finetune.steps_per_epoch=1", "finetune.threads=1"))
        assert tuning.search(chosen, own).trials[0].state == TrialState.COMPLETE
    assert len(list(bench.folder.rglob("training.json"))) == 2


@pytest.mark.slow
def test_a_search_that_is_interrupted_ends_at_once_and_goes_on_in_the_same_trial(bench, tmp_path):
    """Ctrl-C reaches the whole group: the search and the step that it watches."""
    short = ["tune.trials=1", "finetune.epochs=40", "finetune.steps_per_epoch=2", "finetune.threads=1", SPACE]
    command = [sys.executable, "-m", "segraft", "tune", "--dataset", str(bench.dataset)]
    command += ["--pretrained", str(bench.pretrained), "--folder", str(bench.folder)]
    command += [word for override in (*short, f"tracking.uri=sqlite:///{tmp_path}/m.db") for word in ("-S", override)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout and "epoch 1:" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    [output] = bench.folder.rglob("output.txt")
    assert not list(bench.folder.rglob("training.json")) and list(bench.folder.rglob("state.json"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best of 1 trials" in done.stdout, "what was cut short is no trial of its own"
    assert "resuming at step" in output.read_text() and len(list(bench.folder.rglob("training.json"))) == 1


def test_trials_are_children_in_mlflow_and_a_pruned_one_says_so(bench, tmp_path):
    chosen = params(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    study = tuning.open_study(chosen, bench)
    floats = {"lr": optuna.distributions.FloatDistribution(0.0001, 0.1)}
    for state, value in ((TrialState.COMPLETE, 0.4), (TrialState.PRUNED, None)):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                params={"lr": 0.01},
                distributions=floats,
                intermediate_values={1: 0.3, 2: 0.4},
            )
        )
        tuning.log(chosen, study.study_name, tuning.outcome(study.trials[-1]))
    with connect(chosen.tracking) as tracker:
        runs = {run.info.run_name: run.data for run in tracker.client.search_runs([tracker.experiment])}
    parent = runs[study.study_name]
    assert parent.metrics["best_miou"] == 0.4 and len(runs) == 3
    assert runs["trial-0"].metrics == {"best_miou": 0.4, "val_miou": 0.4} and runs["trial-0"].params["lr"] == "0.01"
    assert runs["trial-1"].tags["segraft.trial"] == "pruned" and runs["trial-1"].tags["mlflow.parentRunId"]


def test_katib_is_given_the_same_space_and_jobs_that_may_run_anywhere(tmp_path):
    more = ["cluster.gpu={type: nvidia.com/gpu, count: 1}", "cluster.secrets=[{name: s, key: k, env: E}]"]
    experiment = written(tmp_path, params(*STORE, *more))
    assert unknown(experiment, V1beta1Experiment.from_dict(experiment).to_dict()) == []
    spec = experiment["spec"]
    algorithm = spec["algorithm"]
    assert algorithm["algorithmName"] == "multivariate-tpe", "of Katib's own the one that takes n_startup_trials"
    assert {one["name"] for one in algorithm["algorithmSettings"]} == {"n_startup_trials", "random_state"}
    space = {one["name"]: (one["parameterType"], one["feasibleSpace"]) for one in spec["parameters"]}
    assert space["lr"] == ("double", {"min": "0.0001", "max": "0.1", "distribution": "logUniform"})
    assert space["batch_size"] == ("int", {"min": "2", "max": "8", "distribution": "uniform"})
    assert space["freeze"] == ("categorical", {"list": ["none", "encoder"]})
    assert [one["reference"] for one in spec["trialTemplate"]["trialParameters"]] == [*space, "${trialSpec.Name}"]
    pod = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["env"] == [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1 and pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}


def test_a_choice_is_written_whole_however_long_it_is():
    path = f"{'a' * 85} b"
    assert yaml.safe_load(tuning.text(path)) == path and yaml.safe_load(tuning.text([path, 0.1])) == [path, 0.1]


@pytest.mark.parametrize(
    ("trials", "parallel", "counts"), [(1, 2, (1, 1, 1)), (2, 100, (2, 2, 2)), (20, 4, (20, 4, 3))]
)
def test_katib_is_asked_for_no_more_trials_at_once_or_failed_than_there_are(tmp_path, trials, parallel, counts):
    spec = written(tmp_path, params(*STORE, f"tune.trials={trials}", f"tune.parallel={parallel}"))["spec"]
    assert (spec["maxTrialCount"], spec["parallelTrialCount"], spec["maxFailedTrialCount"]) == counts


def test_katib_needs_a_place_for_its_data():
    with pytest.raises(UserError, match="name the folder"):
        katib(params(), Path("packed"), Path("pretrained"))


def test_katib_s_file_must_be_one_that_can_be_made():
    with pytest.raises(UserError, match=r"--katib: /proc/nowhere/e.yaml: no file can be made there"):
        write_katib(params(*STORE), Path("packed"), Path("pretrained"), Path("/proc/nowhere/e.yaml"))


def test_an_experiment_holds_no_password():
    with pytest.raises(UserError, match=r"tracking.uri: https://[*]+@mlflow.example.org: .*cluster.secrets"):
        katib(params(*STORE, "tracking.uri=https://bob:hunter2@mlflow.example.org"), Path("packed"), Path("pretrained"))


def written(folder, chosen, dataset=Path("data/packed/target"), pretrained=Path("models/pretrained")):
    write_katib(chosen, dataset, pretrained, folder / "experiment.yaml")
    return yaml.safe_load((folder / "experiment.yaml").read_text())


def as_katib(experiment, name, drawn):
    """The shell command of one trial: Katib fills in what it drew, and what it reads of the trial."""
    template = experiment["spec"]["trialTemplate"]
    [container] = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    shell, flag, line = container["command"]
    assert (shell, flag) == ("sh", "-c")
    for one in template["trialParameters"]:
        value = name if one["reference"] == "${trialSpec.Name}" else drawn[one["reference"]]
        line = line.replace(f"${{trialParameters.{one['name']}}}", value)
    assert "${" not in line
    return line


@pytest.mark.slow
def test_a_trial_of_katib_s_runs_as_it_is_written_and_is_a_child_in_mlflow(bench, tmp_path):
    store = [f"cluster.store={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "model.encoder=resnet18"]
    short = ["finetune.epochs=2", "finetune.steps_per_epoch=2", "model.weights=random", "augment.crop=[64, 64]"]
    chosen = params(*store, *short)
    experiment = written(tmp_path, chosen, Path("packed"), Path("model"))
    line = as_katib(experiment, "segraft-tune-x7", {"lr": "0.01", "batch_size": "2", "freeze": "encoder"})
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [pattern] = experiment["spec"]["metricsCollectorSpec"]["source"]["filter"]["metricsFormat"]
    metrics = [match.groups() for match in map(re.compile(pattern).fullmatch, done.stdout.splitlines()) if match]
    assert [name for name, _ in metrics] == ["epoch", "miou"] * 2
    again = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert again.stdout == done.stdout, "a pod that is made anew once all is done prints what Katib collects, too"
    with connect(chosen.tracking) as tracker:
        runs = {run.info.run_name: run.data for run in tracker.client.search_runs([tracker.experiment])}
    trial = runs.pop("segraft-tune-x7")
    [(study, parent)] = runs.items()
    assert study == tuning.study_name(chosen, bench), "the same study as here"
    assert trial.params == {"lr": "0.01", "batch_size": "2", "freeze": "encoder"}
    assert trial.tags["segraft.trial"] == "complete" and trial.tags["mlflow.parentRunId"]
    assert parent.metrics["best_miou"] == trial.metrics["best_miou"] == max(float(v) for n, v in metrics if n == "miou")


def test_optuna_is_only_needed_to_search(tmp_path):
    code = "import sys; sys.modules['optuna'] = None\nfrom segraft.__main__ import main; sys.exit(main(sys.argv[1:]))"
    overrides = [word for override in STORE for word in ("-S", override)]
    command = [sys.executable, "-c", code, "tune", "--katib", str(tmp_path / "e.yaml"), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "e.yaml").is_file(), done.stderr
    assert json.dumps(yaml.safe_load((tmp_path / "e.yaml").read_text())["kind"]) == '"Experiment"'
