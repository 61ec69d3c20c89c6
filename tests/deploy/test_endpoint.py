"""What `segraft deploy` sends: the manifests of k8s/ and nothing else, with what the version and the knobs say."""

import shutil

import pytest
import yaml

from segraft.deploy.endpoint import render, share
from segraft.deploy.manifests import build
from segraft.errors import UserError
from tests.deploy.conftest import VERSION
from tests.k8s.conftest import ENDPOINTS, K8S, PLATFORMS, kustomize, rendered, tree  # noqa: F401  # fixtures
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


HEAD = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: segraft, namespace: segraft}\n"
ON_ALL = {"kind": "InferenceService"}


@pytest.fixture
def own(tmp_path):
    """A kustomization of one's own beside those of k8s/endpoint, with files; gives its folder."""
    shutil.copytree(K8S / "endpoint", tmp_path / "endpoint")

    def write(told, **files):
        folder = tmp_path / "endpoint/own"
        folder.mkdir()
        for name, text in {"kustomization": told if isinstance(told, str) else yaml.safe_dump(told), **files}.items():
            (folder / f"{name}.yaml").write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({}, HEAD + "spec: {predictor: {minReplicas: 5, model: {env: [{name: A, value: b}], runtime: null}}}"),
        ({}, HEAD + "spec: {predictor: {topologySpreadConstraints: [{maxSkew: 2}]}}"),
        ({"target": ON_ALL}, HEAD.replace("segraft", "other") + "spec: {predictor: {minReplicas: 5}}"),
        ({"target": {"name": "seg.*"}}, "- {op: add, path: /metadata/labels/team, value: b}\n"),
        ({"target": {"name": "seg"}}, "- {op: add, path: /metadata/labels/team, value: b}\n"),
    ],
)
def test_a_patch_in_a_file_does_what_it_does_to_kubectl(own, kustomize, patch, text):  # noqa: F811
    images = [{"name": "x", "newTag": "v2", "digest": "sha256:00"}]
    folder = own({"resources": ["../base"], "patches": [{"path": "p.yaml", **patch}], "images": images}, p=text)
    assert build(folder, "InferenceService") == kustomize(folder)


def test_a_patch_without_a_target_is_for_what_it_names(own):
    two = HEAD + "---\n" + HEAD.replace("name: segraft", "name: other")
    patches = [{"patch": HEAD + "spec: {predictor: {minReplicas: 5}}"}, {"patch": HEAD.replace("Inference", "X")}]
    found = build(own({"resources": ["two.yaml"], "patches": patches}, two=two), "InferenceService")
    assert {one["metadata"]["name"]: one.get("spec") for one in found} == {
        "segraft": {"predictor": {"minReplicas": 5}},
        "other": None,
    }


def test_images_are_renamed_wherever_there_is_one(own):
    containers = "[{name: a, image: x}, {name: b}]"
    text = f"{HEAD}spec: {{predictor: {{containers: {containers}, initContainers: {containers}}}}}"
    told = {"resources": ["i.yaml"], "images": [{"name": "x", "newName": "y", "newTag": "v2"}]}
    [service] = build(own(told, i=text), "InferenceService")
    renamed = [{"name": "a", "image": "y:v2"}, {"name": "b"}]
    assert service["spec"]["predictor"] == {"containers": renamed, "initContainers": renamed}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"namePrefix": "my-"}, r"own/kustomization\.yaml: namePrefix: not known here; `kubectl apply -k"),
        ({"patches": 5}, r"kustomization\.yaml\.patches: .*list \(found 5\)"),
        ({"patches": [{}]}, r"patches\.0: expected either a patch or the path of one"),
        ({"patches": [{"patch": "{{{"}]}, r"patches\.0\.patch: not valid YAML"),
        ({"patches": [{"patch": "5"}]}, r"patches\.0\.patch: neither a list of operations .* found 5"),
        ({"patches": [{"patch": "{kind: InferenceService}"}]}, r"patches\.0\.patch\.apiVersion: missing"),
        ({"patches": [{"patch": "[{op: remove, path: /spec}]"}]}, r"patches\.0\.target: missing"),
        ({"patches": [{"patch": "[{op: cut, path: /spec}]", "target": {}}]}, r"patch\.operations\.0\.op: .*'cut'"),
        (
            {"patches": [{"patch": "[]", "target": {"kind": "("}}]},
            r"patches\.0\.target\.kind: not a regular expression",
        ),
        ({"patches": [{"patch": "[]", "target": {"group": "x"}}]}, r"patches\.0\.target: group: not known here"),
        ({"patches": [{"path": "../base/kustomization.yaml"}]}, r"patches\.0\.path: \.\./base.*: outside "),
        ({"patches": [{"path": "nothere.yaml"}]}, r"own/nothere\.yaml: no such file"),
        ({"patches": [{"path": "other.yaml"}]}, r"own/other\.yaml: no InferenceService other .*; there: segraft"),
        ({"patches": [{"patch": f"{HEAD}$patch: delete"}]}, r"patches\.0\.patch: keys such as \$patch are not known"),
        (
            {"patches": [{"patch": "[{op: replace, path: /spec/nothing, value: 1}]", "target": ON_ALL}]},
            "patch of InferenceService segraft: .*nothing",
        ),
        (
            {"patches": [{"patch": "[{op: remove, path: /metadata/name}]", "target": ON_ALL}]},
            r"after it InferenceService\.metadata\.name: missing",
        ),
        ({"resources": ["nothere.yaml"]}, r"nothere\.yaml: .*No such file.*; a kustomization names it"),
        ({"resources": ["broken.yaml"]}, r"broken\.yaml: .*expected"),
        ({"resources": ["nameless.yaml"]}, r"nameless\.yaml\.metadata: missing"),
        ({"resources": ["."]}, r"kustomization\.yaml\.resources: they lead back to .*own, which is being read"),
        ({"images": [{"name": "x", "newTag": 2}]}, r"images\.0\.newTag: .*string \(found 2\)"),
        ("", r"own/kustomization\.yaml: expected a kustomization, .*found NoneType"),
    ],
)
def test_what_would_not_be_done_as_kustomize_does_it_is_refused(own, told, message):
    folder = own(
        {"resources": ["../base"], **told} if told else told,
        broken="kind: [",
        nameless="apiVersion: v1\nkind: InferenceService",
        other=HEAD.replace("name: segraft", "name: other"),
    )
    with pytest.raises(UserError, match=message):
        build(folder, "InferenceService")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{predictor: {containers: [{name: kserve-container}]}}", r"spec\.predictor\.model: missing"),
        ("{predictor: {model: {env: {A: b}}}}", r"spec\.predictor\.model\.env: .*list"),
        (
            "{predictor: {model: {}, autoScaling: {metrics: [{external: {target: {}}}]}}}",
            r"spec\..*\.external\.metric: missing",
        ),
    ],
)
def test_an_endpoint_whose_model_cannot_be_replaced_is_refused(own, knobs, spec, message):
    folder = own({"resources": ["i.yaml"]}, i=f"{HEAD}spec: {spec}")
    with pytest.raises(UserError, match=rf"deploy\.endpoint: {folder}: InferenceService\.{message}"):
        render(VERSION, knobs(f"endpoint={folder}"))


def test_null_is_as_good_as_nothing(own, knobs):
    head = HEAD.replace("{name", "{labels: null, annotations: null, name")
    scaling = "autoScaling: {metrics: [{type: Resource, resource: {name: cpu}}]}"
    folder = own({"resources": ["i.yaml"]}, i=f"{head}spec: {{predictor: {{model: {{env: null}}, {scaling}}}}}")
    [service] = render(VERSION, knobs(f"endpoint={folder}"))
    assert service["metadata"]["labels"] == {"segraft/version": "3"} and problems(service) == []


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
    assert metric["external"]["target"]["value"] == "5"
    pods = '{namespace="team", pod=~"segraft-predictor-.+"}'
    assert metric["external"]["metric"]["query"] == f"avg(segraft_requests_in_progress{pods})"
    assert (keda["spec"]["predictor"]["minReplicas"], keda["spec"]["predictor"]["maxReplicas"]) == (3, 9)
    assert problems(knative) == [] and problems(keda) == []


def test_an_endpoint_of_another_name_is_scaled_by_its_own_pods(own, knobs):
    rename = {"target": {"kind": "InferenceService"}, "patch": "[{op: replace, path: /metadata/name, value: other}]"}
    [service] = render(VERSION, knobs(f"endpoint={own({'resources': ['../gpu'], 'patches': [rename]})}"))
    [metric] = service["spec"]["predictor"]["autoScaling"]["metrics"]
    assert (
        service["metadata"]["name"] == "other" and 'pod=~"other-predictor-.+"' in metric["external"]["metric"]["query"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["endpoint=k8s/endpoint/gpu", "canary=10"], "canary: k8s/endpoint/gpu: only Knative"),
        (["endpoint=k8s/endpoint/local", "target=3"], "target: k8s/endpoint/local does not scale"),
        (["endpoint=k8s/endpoint/moon"], "k8s/endpoint/moon/kustomization.yaml: no such file"),
        (["runtime=k8s/endpoint/cpu"], "deploy.runtime: k8s/endpoint/cpu: no ServingRuntime; name an overlay"),
        (["endpoint=k8s/overlays/cpu"], "0 InferenceServices; expected one"),
        (["canary=101"], "deploy.canary"),
        (["replicas=[3, 1]"], "the fewest must not be more than the most"),
        (["namespace=Team"], "deploy.namespace"),
    ],
)
def test_a_knob_that_means_nothing_is_refused(knobs, changes, message):
    with pytest.raises(UserError, match=message):
        render(VERSION, knobs(*changes))
