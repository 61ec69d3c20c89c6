"""From a registered model to what pods are told, and the whole of `segraft deploy`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kubernetes.config import kube_config

from segraft.commands.serve import identify
from segraft.deploy import find, read, roll_out
from segraft.deploy.cluster import Cluster
from segraft.deploy.version import CANARY, DEPLOYED, reachable
from segraft.errors import UserError
from segraft.orchestration.references import release
from segraft.params import change, load_params
from segraft.registry.versions import aliases, publish
from segraft.serving.stamp import folder_sha256
from segraft.tracking import Record, connect
from tests.components.test_run import ROOT, artifact
from tests.deploy.api import kubeconfig
from tests.k8s.custom import problems
from tests.registry.conftest import example, make_artifact, make_model, tracking  # noqa: F401
from tests.registry.test_server import Server

pytestmark = pytest.mark.usefixtures("own_environment")
COPY = "s3://models/segraft/1"


@pytest.fixture
def registered(tracking, make_artifact):  # noqa: F811
    """models:/{name}/1, the champion, in a store on this machine; gives its model folder."""

    def make(name):
        artifact, digest = make_artifact(0)
        with connect(tracking) as tracker:
            publish(tracker, name, tracker.log(Record(name, name, 1.0, 2.0)), artifact, digest, {})
            tracker.client.set_registered_model_alias(name, "champion", "1")
        return artifact / "data"

    return make


def test_a_version_is_found_by_its_alias_and_its_files_are_verified(registered, tracking, knobs, tmp_path):  # noqa: F811
    folder = registered("found")
    version = find("models:/found@champion", knobs(), tracking, COPY)
    assert (version.name, version.number, version.alias, version.storage) == ("found", "1", "champion", COPY)
    assert version.sha256 == folder_sha256(folder)
    assert find("models:/found/1", knobs(), tracking, COPY).alias == "champion", "a pipeline asks so"
    padded = find("models:/found/01", knobs(), tracking, COPY)
    assert (padded.number, padded.alias) == ("1", "champion")
    with connect(tracking) as tracker:
        tracker.client.delete_registered_model_alias("found", "champion")
    assert find("models:/found/1", knobs(), tracking, COPY).alias == ""


def test_the_server_refuses_another_folder_than_was_deployed(registered):
    folder = registered("guarded")
    digest = folder_sha256(folder)
    assert str(identify(folder, "m", "1", digest)) == f"m/1;sha256={digest}" == str(identify(folder, "m", "1", ""))
    (folder / "model.json").write_text((folder / "model.json").read_text() + " ")
    with pytest.raises(UserError, match=f"not {digest} as deployed: replaced or damaged"):
        identify(folder, "m", "1", digest)


@pytest.mark.parametrize(
    ("source", "artifacts", "found"),
    [
        ("s3://bucket/7/r/artifacts/model-0", "", "s3://bucket/7/r/artifacts/model-0"),
        ("gs://bucket/model-0/", "", "gs://bucket/model-0"),
        ("mlflow-artifacts:/7/r/artifacts/model-0", "s3://mlflow/", "s3://mlflow/7/r/artifacts/model-0"),
        ("mlflow-artifacts://host:5000/7/r/model-0", "s3://mlflow", "s3://mlflow/7/r/model-0"),
        ("mlflow-artifacts:/7/r/model-0", "", "set deploy.artifacts to where that is for pods"),
        ("file:///home/me/mlartifacts/7", "s3://mlflow", "no pod can read file:///home/me/mlartifacts/7. Register it"),
        (
            "/home/me/mlartifacts/7",
            "s3://mlflow",
            "or copy the model folder to one and name the place: --storage s3://",
        ),
    ],
)
def test_artefacts_are_named_as_pods_reach_them(knobs, source, artifacts, found):
    deploy = knobs(f"artifacts='{artifacts}'")
    if "://" in found and " " not in found:
        assert reachable(source, "models:/m/1", deploy) == found
    else:
        with pytest.raises(UserError) as error:
            reachable(source, "models:/m/1", deploy)
        assert found in str(error.value) and "models:/m/1" in str(error.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/named@canary", "models:/named@canary: named has no alias canary"),
        ("models:/nobody@champion", "models:/nobody@champion: not in the registry"),
        ("named", "expected models:/NAME@ALIAS"),
        ("models:/named@champion", "models:/named/1: no pod can read"),
    ],
)
def test_what_cannot_be_deployed_is_named(registered, tracking, knobs, uri, message):  # noqa: F811
    registered("named")
    with pytest.raises(UserError, match=message):
        find(uri, knobs(), tracking)


def test_without_a_cluster_nothing_is_deployed(registered, tracking, knobs, monkeypatch):  # noqa: F811
    registered("alone")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere/config")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match=r"no cluster: .*Set KUBECONFIG or write ~/.kube/config; --dry-run needs none"):
        roll_out("models:/alone@champion", knobs(), tracking, COPY)
    with connect(tracking) as tracker:
        assert DEPLOYED not in aliases(tracker, "alone")


def test_a_version_is_deployed_once_it_gets_all_requests(
    registered,
    tracking,  # noqa: F811
    knobs,
    api,
    tmp_path,
    monkeypatch,
):
    registered("tried")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(api, tmp_path)))
    monkeypatch.setattr(Cluster.__init__, "__defaults__", (False, 0.01, 0.0))
    whole = "models:/tried/1 answers at http://segraft.segraft.example.org"
    some = "models:/tried/1 gets 10 % of the requests at http://segraft.segraft.example.org, and the alias canary"
    for canary, said, alias in (("10", some, CANARY), ("100", whole, DEPLOYED), ("null", whole, DEPLOYED)):
        told = roll_out("models:/tried/1", knobs(f"canary={canary}"), tracking, COPY)
        assert told.startswith(said)
        with connect(tracking) as tracker:
            assert {a for a in aliases(tracker, "tried") if a in (CANARY, DEPLOYED)} == {alias}
            if alias == DEPLOYED:
                tracker.client.delete_registered_model_alias("tried", DEPLOYED)


def release_as_a_task(params, version, folder):
    """Run the component's body on what register wrote."""
    registered = artifact(dsl.Artifact, folder / "registered")
    Path(registered.path).write_text(json.dumps({"name": "segraft", "version": version}))
    manifests = {one["kind"]: one for one in read(params.deploy, ROOT)} if params.deploy.pipeline == "endpoint" else {}
    sections = (params.tracking.model_dump_json(), params.deploy.model_dump_json())
    release(*sections, json.dumps(manifests), registered)


def segraft(*argv, **environment):
    command = [sys.executable, "-m", "segraft", "deploy", *argv]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def server(tmp_path):
    """A real MLflow server that hands artefacts through."""
    running = Server(tmp_path)
    running.start()
    yield running
    running.kill()


@pytest.mark.slow
def test_a_model_of_a_tracking_server_is_deployed_by_hand_and_by_a_pipeline(
    make_artifact,  # noqa: F811
    server,
    api,
    tmp_path,
    monkeypatch,
    capsys,
):
    changes = [f"tracking.uri={server.uri}", "tracking.experiment=e", "deploy.image=r.example.org/s@sha256:00"]
    flags, params = [word for change in changes for word in ("-S", change)], load_params(ROOT / "params.yaml", changes)
    with connect(params.tracking) as tracker:
        run = tracker.log(Record("run", "k", 1.0, 2.0))
        publish(tracker, "segraft", run, *make_artifact(0), {})
    dry = segraft("models:/segraft@challenger", "--dry-run", "-S", "deploy.runtime=k8s/overlays/cpu", *flags)
    assert dry.returncode == 0, dry.stderr
    runtime, service = yaml.safe_load_all(dry.stdout)
    assert (runtime["kind"], service["kind"]) == ("ServingRuntime", "InferenceService") and problems(service) == []
    storage = service["spec"]["predictor"]["model"]["storageUri"]
    kept = tmp_path / "artifacts" / storage.removeprefix("s3://mlflow/")
    assert folder_sha256(kept) == service["metadata"]["annotations"]["segraft/sha256"]

    refused = segraft("models:/segraft@canary", *flags)
    assert refused.returncode == 65 and "segraft has no alias canary" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = segraft("models:/segraft@challenger", *flags, KUBECONFIG=str(kubeconfig(api, tmp_path)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "models:/segraft/1 answers at http://segraft.segraft.example.org\n"
    assert api.asked[0]["body"] == service and api.asked[0]["token"] == "Bearer secret"

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(api, tmp_path)))
    with connect(params.tracking) as tracker:
        assert aliases(tracker, "segraft")[DEPLOYED] == "1"
        tracker.client.delete_registered_model_alias("segraft", DEPLOYED)
    monkeypatch.chdir(tmp_path)
    release_as_a_task(change(params, "deploy", ["pipeline=alias"]), 1, tmp_path / "alias")
    assert len(api.asked) == 1 and capsys.readouterr().out.endswith("models:/segraft@deployed is version 1\n")
    release_as_a_task(change(params, "deploy", ["pipeline=endpoint"]), 1, tmp_path / "endpoint")
    assert len(api.asked) == 2 and "models:/segraft/1 answers at" in capsys.readouterr().out
    with connect(params.tracking) as tracker:
        assert aliases(tracker, "segraft")[DEPLOYED] == "1"
