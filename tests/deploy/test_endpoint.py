"""What `segraft deploy` sends: the manifests of k8s/ and nothing else, with what the version and the knobs say."""

import shutil

import pytest
import yaml

from segraft.deploy.endpoint import render, share
from segraft.deploy.manifests import build
from segraft.errors import UserError
from tests.deploy.conftest import VERSION
from tests.k8s.conftest import ENDPOINTS, K8S, PLATFORMS, rendered, tree  # noqa: F401  # fixtures
from tests.k8s.custom import problems


@pytest.mark.parametrize("folder", [*ENDPOINTS, *PLATFORMS])
@pytest.mark.parametrize("kind", ["InferenceService", "ServingRuntime"])
def test_the_manifests_are_those_that_kubectl_would_send(rendered, folder, kind):  # noqa: F811
    assert build(K8S / folder, kind) == [r for r in rendered[folder] if r["kind"] == kind]


def test_an_overlay_of_one_s_own_pins_the_image(tmp_path):
    shutil.copytree(K8S, tmp_path / "k8s")
    images = [{"name": "segraft-serve", "newName": "registry.example.org/serve", "digest": "sha256:00"}]
    (tmp_path / "k8s/overlays/team").mkdir()
    (tmp_path / "k8s/overlays/team/kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["../gpu"], "images": images, "namespace": "team"})
    )
    (runtime,) = build(tmp_path / "k8s/overlays/team", "ServingRuntime")
    assert runtime["spec"]["containers"][0]["image"] == "registry.example.org/serve@sha256:00"
    assert runtime["metadata"]["namespace"] == "team"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"namePrefix": "my-"}, "namePrefix: not known here; `kubectl apply -k"),
        ({"patches": [{"patch": "{kind: InferenceService}"}]}, "only lists of operations"),
        (
            {"patches": [{"patch": "[{op: replace, path: /spec/nothing, value: 1}]"}]},
            "patch of InferenceService segraft: .*nothing",
        ),
        ({"resources": ["nothere.yaml"]}, r"nothere\.yaml: .*No such file.*; a kustomization names it"),
        ({"resources": ["broken.yaml"]}, r"broken\.yaml: .*expected"),
    ],
)
def test_what_would_not_be_done_as_kustomize_does_it_is_refused(tmp_path, told, message):
    shutil.copytree(K8S / "endpoint", tmp_path / "endpoint")
    (tmp_path / "endpoint/own").mkdir()
    (tmp_path / "endpoint/own/broken.yaml").write_text("kind: [")
    (tmp_path / "endpoint/own/kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../base"], **told}))
    with pytest.raises(UserError, match=message):
        build(tmp_path / "endpoint/own", "InferenceService")


def test_empty_documents_and_kustomizations_are_legal(tmp_path):
    shutil.copytree(K8S / "endpoint", tmp_path / "endpoint")
    (tmp_path / "endpoint/own").mkdir()
    (tmp_path / "endpoint/own/kustomization.yaml").write_text("namespace: team\n")
    assert build(tmp_path / "endpoint/own", "InferenceService") == []
    (tmp_path / "endpoint/own/more.yaml").write_text("---\nkind: ConfigMap\n---\n")
    told = {"resources": ["../base", "more.yaml"]}
    (tmp_path / "endpoint/own/kustomization.yaml").write_text(yaml.safe_dump(told))
    assert build(tmp_path / "endpoint/own", "InferenceService") == build(tmp_path / "endpoint/base", "InferenceService")


@pytest.mark.parametrize("variant", ["cpu", "gpu", "local"])
def test_an_endpoint_names_its_model_and_fits_its_schema(knobs, variant):
    image = "registry.example.org/serve@sha256:" + "0" * 64
    deploy = knobs(
        f"endpoint=k8s/endpoint/{variant}", f"runtime=k8s/overlays/{variant}", "namespace=team", f"image={image}"
    )
    runtime, service = render(VERSION, deploy)
    assert problems(runtime) == [] and problems(service) == []
    assert runtime["metadata"]["namespace"] == service["metadata"]["namespace"] == "team"
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    metadata, model = service["metadata"], service["spec"]["predictor"]["model"]
    assert metadata["labels"] == {"app.kubernetes.io/part-of": "segraft", "segraft/version": "3"}
    said = {key: text for key, text in metadata["annotations"].items() if key.startswith("segraft/")}
    wanted = {"segraft/model": "models:/segraft/3", "segraft/alias": "champion", "segraft/sha256": VERSION.sha256}
    assert said == wanted and all(isinstance(text, str) for text in metadata["annotations"].values())
    assert model["storageUri"] == VERSION.storage and model["image"] == image
    assert {e["name"]: e["value"] for e in model["env"]} == {
        "SEGRAFT_MODEL_VERSION": "3",
        "SEGRAFT_MODEL_SHA256": VERSION.sha256,
    }


def test_without_knobs_only_the_model_is_changed(knobs):
    (service,), (manifest,) = render(VERSION, knobs()), build(K8S / "endpoint/cpu", "InferenceService")
    for one in (service, manifest):
        for key in ("storageUri", "env"):
            one["spec"]["predictor"]["model"].pop(key, None)
        for kind in ("labels", "annotations"):
            one["metadata"][kind] = {k: v for k, v in one["metadata"][kind].items() if not k.startswith("segraft/")}
    assert service == manifest


@pytest.mark.parametrize(("canary", "percent"), [("null", 100), ("100", 100), ("25", 25), ("0", 0)])
def test_a_new_version_gets_all_requests_unless_it_is_asked_otherwise(knobs, canary, percent):
    assert share(render(VERSION, knobs(f"canary={canary}"))[-1]) == percent


def test_traffic_and_scale(knobs):
    (knative,) = render(VERSION, knobs("canary=25", "replicas=[1, 4]", "target=2"))
    predictor = knative["spec"]["predictor"]
    wanted = {"canaryTrafficPercent": 25, "minReplicas": 1, "maxReplicas": 4, "scaleTarget": 2}
    assert wanted.items() <= predictor.items()
    (keda,) = render(VERSION, knobs("endpoint=k8s/endpoint/gpu", "replicas=[3, 9]", "target=5", "namespace=team"))
    (metric,) = keda["spec"]["predictor"]["autoScaling"]["metrics"]
    assert metric["external"]["target"]["value"] == "5" and 'namespace="team"' in metric["external"]["metric"]["query"]
    assert (keda["spec"]["predictor"]["minReplicas"], keda["spec"]["predictor"]["maxReplicas"]) == (3, 9)
    assert problems(knative) == [] and problems(keda) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["endpoint=k8s/endpoint/gpu", "canary=10"], "canary: k8s/endpoint/gpu: only Knative"),
        (["endpoint=k8s/endpoint/local", "target=3"], "target: k8s/endpoint/local does not scale"),
        (["endpoint=k8s/endpoint/moon"], "k8s/endpoint/moon/kustomization.yaml: no such file"),
        (["endpoint=k8s/overlays/cpu"], "0 InferenceServices; expected one"),
        (["canary=101"], "deploy.canary"),
        (["replicas=[3, 1]"], "the fewest must not be more than the most"),
        (["namespace=Team"], "deploy.namespace"),
    ],
)
def test_a_knob_that_means_nothing_is_refused(knobs, changes, message):
    with pytest.raises(UserError, match=message):
        render(VERSION, knobs(*changes))
