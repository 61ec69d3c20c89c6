"""The Katib Experiment of k8s/tuning: what `segraft tune --katib` writes, and all that other manifests must be."""

import copy
import shlex
from pathlib import Path

import pytest
import yaml

from segraft.params import load_params
from segraft.tuning.katib import katib
from tests.k8s.conftest import K8S, PLATFORMS, TUNING
from tests.k8s.custom import problems
from tests.k8s.pods import pods, violations
from tests.k8s.test_manifests import core_problem, names_of, of_kind


@pytest.fixture
def experiment(rendered):
    (found,) = rendered[TUNING]
    return found


def test_the_experiment_is_what_the_command_in_its_kustomization_writes():
    comment = (K8S / "tuning/kustomization.yaml").read_text().split("apiVersion")[0]
    _, _, command = comment.replace("\\\n#", "").replace("#", "").partition("segraft tune --katib ")
    file, *settings = shlex.split(command)
    params = load_params(K8S.parent / "params.yaml", [word for word in settings if word != "-S"])
    written = katib(params, Path("data/packed/target"), Path("models/pretrained"))
    again = f"params.yaml has changed: say  segraft tune --katib {command.strip()}"
    assert yaml.safe_load((K8S.parent / file).read_text()) == written, again


def test_the_job_of_a_trial_is_what_its_schema_says(experiment):
    job = experiment["spec"]["trialTemplate"]["trialSpec"]
    assert core_problem(job) is None
    wrong = copy.deepcopy(job)
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    assert "volumeMount" in core_problem(wrong)
    experiment = copy.deepcopy(experiment)
    experiment["spec"]["paralelTrialCount"] = 2
    assert [line.split(":")[0] for line in problems(experiment)] == ["Experiment.spec.paralelTrialCount"]


def test_a_trial_s_pod_is_restricted_read_only_and_bounded(experiment):
    ((_, pod, _),) = pods(experiment)
    assert list(violations(pod)) == []
    assert pod["automountServiceAccountToken"] is False and pod["containers"][0]["image"] == "segraft:dev"


@pytest.mark.parametrize("overlay", PLATFORMS)
def test_a_trial_finds_its_volume_and_the_collector_is_let_in(rendered, experiment, overlay):
    claims = {claim["metadata"]["name"] for claim in of_kind(rendered[overlay], "PersistentVolumeClaim")}
    assert set(names_of(experiment, "claimName")) <= claims
    (namespace,) = of_kind(rendered[overlay], "Namespace")
    assert namespace["metadata"]["labels"]["katib.kubeflow.org/metrics-collector-injection"] == "enabled"
    assert experiment["metadata"]["namespace"] == namespace["metadata"]["name"]
