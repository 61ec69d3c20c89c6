"""Applying and waiting, against a real HTTP server that answers as the Kubernetes API does."""

import pytest
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import kube_config

from segraft.deploy.cluster import Cluster, connect
from segraft.deploy.endpoint import render
from segraft.errors import UserError
from tests.deploy.api import READY, condition, kubeconfig
from tests.deploy.conftest import VERSION

STARTING = {"conditions": [condition("PredictorReady", "False", "Waiting for pods"), condition("Ready", "False")]}
URL = "/apis/serving.kserve.io/v1beta1/namespaces/segraft/inferenceservices/segraft"


def pod(name, digest, ready=True, **status):
    conditions = [condition("Ready", "True" if ready else "False")]
    metadata = {"name": name, "annotations": {"segraft/sha256": digest}}
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions, **status}}


@pytest.fixture
def cluster(api):
    address = f"http://127.0.0.1:{api.server_address[1]}"
    return lambda **how: Cluster(ApiClient(Configuration(host=address)), "segraft", poll=0.01, **{"settle": 0, **how})


@pytest.fixture
def service(knobs):
    return lambda variant="gpu": render(VERSION, knobs(f"endpoint=k8s/endpoint/{variant}"))[0]


def test_what_is_applied_is_waited_for(api, cluster, service, capsys):
    old, new = pod("old", "0" * 64), pod("new", VERSION.sha256)
    young = pod("new", VERSION.sha256, ready=False, phase="Pending")
    api.story = [({}, []), (STARTING, [old, young]), (READY, [old, new]), (READY, [new])]
    mine = cluster()
    mine.apply(service())
    (asked,) = api.asked
    assert asked["path"] == URL and asked["body"] == service()
    assert asked["query"] == {"fieldManager": ["segraft"], "force": ["false"]}
    ready = mine.wait(service(), 30)
    assert ready["status"]["url"] == READY["url"] and len(api.story) == 1, "it did not stop at a pod of the old version"
    assert "InferenceService segraft" in capsys.readouterr().err


def test_the_status_of_the_version_before_is_not_taken_for_the_new_one_s(api, cluster, service):
    api.story = [(READY, []), (READY, []), (READY | {"url": "http://later"}, [])]
    mine = cluster(settle=0.2)
    mine.apply(service("cpu"))
    assert mine.wait(service("cpu"), 30)["status"]["url"] == "http://later"


def test_knative_keeps_the_old_pods_and_needs_the_latest_revision(api, cluster, service):
    revisions = {"components": {"predictor": {"latestCreatedRevision": "s-2", "latestReadyRevision": "s-1"}}}
    same = {"components": {"predictor": {"latestCreatedRevision": "s-2", "latestReadyRevision": "s-2"}}}
    old = pod("old", "0" * 64)
    api.story = [(READY | revisions, [old]), (READY | same, [old])]
    mine = cluster()
    mine.apply(service("cpu"))
    assert mine.wait(service("cpu"), 30)["status"]["components"] == same["components"]


def test_a_model_that_does_not_load_is_reported_in_kserve_s_words(api, cluster, service):
    failure = {"reason": "ModelLoadFailed", "message": "s3://mlflow/1: no such bucket", "exitCode": 1}
    broken = STARTING | {"modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}}
    api.story = [(STARTING, []), (broken, [])]
    mine = cluster()
    mine.apply(service())
    with pytest.raises(UserError) as error:
        mine.wait(service(), 30)
    assert "InferenceService segraft: failed: ModelLoadFailed: s3://mlflow/1: no such bucket" in str(error.value)
    assert "PredictorReady: Waiting for pods" in str(error.value)


def test_when_the_time_is_over_conditions_and_pods_say_why(api, cluster, service):
    ended = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"message": "damaged\n"}},
    }
    pulling = {"state": {"waiting": {"reason": "ErrImagePull", "message": "segraft-serve: not found"}}}
    states = [{"name": "kserve-container", **ended}, {"name": "queue-proxy", **pulling}]
    api.story = [(STARTING, [pod("new-1", VERSION.sha256, ready=False, containerStatuses=states)])]
    mine = cluster()
    mine.apply(service())
    with pytest.raises(UserError) as error:
        mine.wait(service(), 0.1)
    assert "not ready after 0.1 s" in str(error.value) and "PredictorReady: Waiting for pods" in str(error.value)
    assert "pod new-1: kserve-container: damaged, queue-proxy: segraft-serve: not found" in str(error.value)


def test_refusals_are_the_cluster_s_own(api, cluster, service, knobs):
    api.forbidden = {"servingruntimes"}
    runtime, _ = render(VERSION, knobs("runtime=k8s/overlays/cpu"))
    with pytest.raises(UserError, match=r'ServingRuntime segraft: the cluster says 403: .*"segraft" is forbidden'):
        cluster().apply(runtime)
    api.kinds = set()
    with pytest.raises(UserError, match="404: 404 page not found; is KServe installed there"):
        cluster().apply(service())
    api.shutdown()
    api.server_close()
    with pytest.raises(UserError, match="InferenceService segraft: the cluster does not answer"):
        cluster().apply(service())


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (500, "[1]", r"InferenceService segraft: the cluster says 500: \[1\]"),
        (403, "null", "InferenceService segraft: the cluster says 403: null"),
        (
            200,
            "<html>Log in</html>",
            "http://127.0.0.1:[0-9]+: no Kubernetes API answers there, but '<html>Log in</html>'",
        ),
    ],
)
def test_an_answer_that_is_no_kubernetes_api_s_is_shown(api, cluster, service, code, text, message):
    api.answer = (code, text)
    with pytest.raises(UserError, match=message):
        cluster().apply(service())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "junk", "/kubeconfig: no kubeconfig: .*; `kubectl config view` helps"),
        (lambda text: "{{{", "no kubeconfig: .*expected the node content"),
        (lambda text: text.replace("token: secret", "tokenFile: /nowhere/token"), "no kubeconfig: .*'/nowhere/token'"),
        (lambda text: text.replace("current-context: x", "current-context: y"), "no cluster: .*name y"),
    ],
)
def test_a_broken_kubeconfig_is_named(api, tmp_path, monkeypatch, change, why):
    config = kubeconfig(api, tmp_path)
    config.write_text(change(config.read_text()))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    with pytest.raises(UserError, match=why):
        connect()


def test_a_field_that_someone_else_set_is_theirs_until_it_is_taken(api, cluster, service):
    api.owned = [("spec.predictor.model.storageUri", "s3://by-hand", "kubectl-patch")]
    with pytest.raises(UserError, match=r"409: .*kubectl-patch.*storageUri; --force takes these fields over"):
        cluster().apply(service())
    assert not api.objects
    cluster(force=True).apply(service())
    assert api.objects[URL]["spec"]["predictor"]["model"]["storageUri"] == VERSION.storage
