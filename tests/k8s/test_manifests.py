"""Every manifest of k8s/, rendered as the cluster would get it, against what its kind may hold and a pod may do."""

import copy
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from segraft.commands.serve import MOUNTED, from_environment
from segraft.params import load_params
from tests.k8s.conftest import K8S, PLATFORMS, TUNING
from tests.k8s.custom import problems
from tests.k8s.network import allowed, outside
from tests.k8s.pods import pods, violations

KUBERNETES = "1.34"


def of_kind(resources, kind, name=None):
    return [r for r in resources if r["kind"] == kind and name in (None, r["metadata"]["name"])]


def core_problem(resource):
    import kubernetes_validate

    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return None


def test_every_resource_is_what_its_schema_says(resources):
    custom = {r["kind"]: problems(r) for r in resources if problems(r) is not None}
    assert all(found == [] for found in custom.values()), custom
    core = {f"{r['kind']}/{r['metadata']['name']}": core_problem(r) for r in resources if r["kind"] not in custom}
    assert set(core.values()) <= {None}, core


def test_the_checks_of_schemas_find_planted_errors(rendered):
    service = copy.deepcopy(rendered["endpoint/gpu"][0])
    service["spec"]["predictor"]["model"]["readinessProbe"] = {"httpGet": {"port": 8080, "paht": "/"}}
    service["spec"]["predictor"]["minReplicas"] = "two"
    service["spec"]["predictor"]["autoScaling"]["metrics"][0]["external"]["metric"]["querry"] = "up"
    assert [line.split(":")[0].rpartition(".")[2] for line in problems(service)] == ["querry", "minReplicas", "paht"]

    runtime = copy.deepcopy(of_kind(rendered["overlays/cpu"], "TrainingRuntime")[0])
    node = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    node["containers"][0]["imagePulPolicy"] = "Always"
    runtime["spec"]["mlPolicy"]["numNode"] = 2
    assert [line.split(":")[0].rpartition(".")[2] for line in problems(runtime)] == ["numNode", "imagePulPolicy"]
    runtime["spec"]["mlPolicy"]["numNodes"] = "many"
    assert any("numNodes" in line for line in problems(runtime))

    deployment = copy.deepcopy(of_kind(rendered["overlays/cpu"], "Deployment")[0])
    deployment["spec"]["replcas"] = 1
    assert "replcas" in core_problem(deployment)


def test_every_pod_is_restricted_read_only_and_bounded(platform):
    found = [(r, path, pod) for r in platform for path, pod, _ in pods(r)]
    assert {r["kind"] for r, *_ in found} == {"Deployment", "Job", "ServingRuntime", "StatefulSet", "TrainingRuntime"}
    bad = {f"{r['kind']}/{r['metadata']['name']}{path}": list(violations(pod)) for r, path, pod in found}
    assert not any(bad.values()), bad
    namespace = of_kind(platform, "Namespace")[0]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pod, box: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod, box: pod["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "volume h"),
        (lambda pod, box: pod.update(securityContext={}), "runAsNonRoot"),
        (lambda pod, box: box["securityContext"].update(runAsUser=0), "root"),
        (lambda pod, box: box["securityContext"].update(privileged=True), "privileged"),
        (lambda pod, box: box["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
        (lambda pod, box: box["securityContext"].update(capabilities={"drop": ["NET_RAW"]}), "drop ALL"),
        (lambda pod, box: box["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
        (lambda pod, box: box["resources"].pop("limits"), "no memory in its limits"),
    ],
)
def test_the_check_of_pods_finds_planted_faults(rendered, change, message):
    deployment = copy.deepcopy(of_kind(rendered["overlays/cpu"], "Deployment")[0])
    ((_, pod, _),) = pods(deployment)
    change(pod, pod["containers"][0])
    assert any(message in line for line in violations(pod))


SOURCES = {
    "mlflow": {"app.kubernetes.io/name": "mlflow"},
    "buckets": {"app.kubernetes.io/name": "buckets"},
    "run": {"pipeline/runid": "1"},
    "node": {"jobset.sigs.k8s.io/jobset-name": "pretrain"},
    "trial": {"katib.kubeflow.org/trial": "t"},
    "server": {"serving.kserve.io/inferenceservice": "segraft"},
    "notebook": {"notebook-name": "mine"},
    "search": {"katib.kubeflow.org/suggestion": "segraft-tune"},
    "artifacts": {"app": "ml-pipeline-ui-artifact"},
    "stranger": {},
}
TARGETS = {
    ("postgres", 5432): {"mlflow"},
    ("objectstore", 8333): {"mlflow", "buckets", "run", "node", "server", "trial", "notebook"},
    ("mlflow", 5000): {"run", "node", "trial", "notebook"},
}


def test_the_network_lets_through_what_is_needed_and_nothing_else(platform):
    policies = of_kind(platform, "NetworkPolicy")
    for (name, port), wanted in TARGETS.items():
        target = {"app.kubernetes.io/name": name}
        assert {s for s, labels in SOURCES.items() if allowed(policies, labels, target, port)} == wanted, name
        assert not any(allowed(policies, labels, target, port + 1) for labels in SOURCES.values()), name
    assert allowed(policies, SOURCES["node"], SOURCES["node"], 29500)
    assert not allowed(policies, SOURCES["stranger"], SOURCES["node"], 29500)


OUTSIDE = ("istio-system", "kubeflow", "elsewhere")
ENTERED = {
    ("search", 6789): {"kubeflow"},
    ("search", 6788): {"kubeflow", "trial"},
    ("notebook", 8888): {"istio-system", "kubeflow"},
    ("artifacts", 3000): {"istio-system", "kubeflow"},
    ("server", 8080): {"istio-system", "kubeflow"},
    ("stranger", 8080): set(),
}
"""What Kubeflow puts here beside the platform, and who comes in."""
LEFT = {
    ("kubeflow", 6789): {"run", "trial", "search", "notebook", "artifacts"},
    ("kubeflow", 8888): {"run", "notebook", "artifacts"},
    ("API server", 6443): {"run", "search", "notebook", "artifacts"},
    ("elsewhere", 8080): set(),
}


def test_what_kubeflow_puts_beside_the_platform_is_reached_and_reaches_kubeflow(platform):
    policies = of_kind(platform, "NetworkPolicy")
    callers = SOURCES | {name: outside(name) for name in OUTSIDE}
    for (name, port), wanted in ENTERED.items():
        assert {s for s, labels in callers.items() if allowed(policies, labels, SOURCES[name], port)} == wanted, name
    for (name, port), wanted in LEFT.items():
        found = {s for s, labels in SOURCES.items() if allowed(policies, labels, outside(name), port)}
        assert found == wanted, (name, port)


def test_a_lost_node_ends_the_job_so_that_jobset_starts_all_of_them_again(platform):
    (runtime,) = of_kind(platform, "TrainingRuntime")
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 5, "docs/cluster.md says how often"


def test_a_node_can_be_drained_whatever_the_number_of_pods(platform):
    budgets = [budget["spec"] for budget in of_kind(platform, "PodDisruptionBudget")]
    assert budgets and all(b.get("maxUnavailable", 0) >= 1 and "minAvailable" not in b for b in budgets), budgets


def test_stores_have_no_sidecar_for_some_of_their_callers_have_none(platform):
    """A Profile's AuthorizationPolicy lets through who shows a certificate: no Job, trial or init container does."""
    stores = {"mlflow", "objectstore", "postgres"}
    labels = {r["metadata"]["name"]: of for r in platform for _, _, of in pods(r) if r["metadata"]["name"] in stores}
    assert {name: of["sidecar.istio.io/inject"] for name, of in labels.items()} == dict.fromkeys(stores, "false")


def test_addresses_are_services_that_exist(platform):
    services = {(s["metadata"]["name"], p["port"]) for s in of_kind(platform, "Service") for p in s["spec"]["ports"]}
    found = set(re.findall(r"(?:https?://|@)([a-z]+)(?:\.segraft)?:(\d+)", yaml.safe_dump_all(platform)))
    annotations = [r["metadata"].get("annotations", {}) for r in of_kind(platform, "Secret")]
    endpoint = next(a["serving.kserve.io/s3-endpoint"] for a in annotations if a)
    assert {(name, int(port)) for name, port in found} == services
    assert endpoint == "objectstore.segraft:8333" and ("objectstore", 8333) in services


def test_services_select_pods_that_listen(platform):
    for service in of_kind(platform, "Service"):
        listening = [
            {port["containerPort"] for box in pod["containers"] for port in box["ports"]}
            for resource in platform
            for _, pod, labels in pods(resource)
            if service["spec"]["selector"].items() <= labels.items()
        ]
        assert len(listening) == 1 and {p["port"] for p in service["spec"]["ports"]} <= listening[0]


def names_of(value, key):
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        for item in value.values():
            yield from names_of(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from names_of(item, key)


def test_secrets_accounts_and_claims_that_are_named_exist(platform, rendered):
    everything = [*platform, *rendered["endpoint/gpu"]]
    secrets = {s["metadata"]["name"]: set(s["data"]) for s in of_kind(platform, "Secret")}
    for reference in names_of(everything, "secretKeyRef"):
        assert reference["key"] in secrets[reference["name"]]
    for reference in names_of(everything, "secretRef"):
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} == secrets[reference["name"]]
    assert set(names_of(everything, "secretName")) <= set(secrets)
    accounts = {a["metadata"]["name"]: a for a in of_kind(platform, "ServiceAccount")}
    assert set(names_of(everything, "serviceAccountName")) <= set(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    assert [s["name"] for s in accounts["serving"]["secrets"]] == ["serving-store"]
    claims = {c["metadata"]["name"] for c in of_kind(platform, "PersistentVolumeClaim")}
    assert set(names_of(everything, "claimName")) <= claims


def test_rights_are_in_one_namespace_and_name_what_they_allow(platform):
    assert not of_kind(platform, "ClusterRole") and not of_kind(platform, "ClusterRoleBinding")
    (role,) = of_kind(platform, "Role")
    for rule in role["rules"]:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        assert not {"secrets", "pods/exec", "serviceaccounts"} & set(rule["resources"])
    changing = {
        r for rule in role["rules"] if {"create", "patch", "delete"} & set(rule["verbs"]) for r in rule["resources"]
    }
    assert changing == {"trainjobs", "inferenceservices"}


def test_no_tag_moves_by_itself_and_our_images_can_be_set_in_one_place(platform):
    images = {image for image in names_of(platform, "image") if isinstance(image, str)}
    assert all(":" in image and not image.endswith(":latest") for image in images)
    assert {image.split(":")[0] for image in images} == {
        "segraft", "segraft-serve", "segraft-tracking", "postgres", "chrislusf/seaweedfs",
    }  # fmt: skip


def test_gpus_are_asked_for_where_they_are_tolerated(rendered):
    for overlay in PLATFORMS:
        for kind in ("TrainingRuntime", "ServingRuntime"):
            (resource,) = of_kind(rendered[overlay], kind)
            ((_, pod, _),) = pods(resource)
            gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
            tolerated = any(t["key"] == "nvidia.com/gpu" for t in pod.get("tolerations", []))
            assert (gpus, tolerated) == (("1", True) if overlay.endswith("gpu") else (None, False))
            assert any(volume.get("emptyDir", {}).get("medium") == "Memory" for volume in pod["volumes"])


def test_knative_gets_a_pod_that_it_takes(rendered):
    (runtime,) = of_kind(rendered["overlays/cpu"], "ServingRuntime")
    predictor = rendered["endpoint/cpu"][0]["spec"]["predictor"]
    assert len(runtime["spec"]["containers"][0]["ports"]) == 1
    assert not {"terminationGracePeriodSeconds", "topologySpreadConstraints"} & set(predictor)
    assert predictor["minReplicas"] == 0


def test_the_endpoint_s_settings_are_the_server_s(rendered, tree):
    params = load_params(K8S.parent / "params.yaml")
    (runtime,) = of_kind(rendered["overlays/gpu"], "ServingRuntime")
    (box,) = runtime["spec"]["containers"]
    environment = {entry["name"]: entry["value"].replace("{{.Name}}", "segraft") for entry in box["env"]}
    serve = load_params(K8S.parent / "params.yaml", from_environment(environment)).serve
    assert [port["containerPort"] for port in box["ports"]] == [serve.http_port, serve.grpc_port]
    assert (serve.host, serve.name, box["args"]) == ("0.0.0.0", "segraft", [MOUNTED])
    predictor = rendered["endpoint/gpu"][0]["spec"]["predictor"]
    assert predictor["terminationGracePeriodSeconds"] > params.serve.drain + params.serve.grace
    assert predictor["timeout"] >= params.serve.timeout
    query = predictor["autoScaling"]["metrics"][0]["external"]["metric"]["query"]
    exported = (K8S.parent / "segraft/serving/metrics.py").read_text()
    assert f'"{re.search("segraft_[a-z_]+", query)[0]}"' in exported


def test_credentials_are_random_private_and_never_committed(tree):
    folder = tree / "base/secrets"
    values = re.findall(r"(?:PASSWORD|SECRET_ACCESS_KEY)=(\w+)", "\n".join(f.read_text() for f in folder.glob("*.env")))
    assert len(values) == len(set(values)) == 5 and all(len(value) == 48 for value in values)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    again = subprocess.run(["./credentials"], cwd=tree, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already" in again.stderr
    ignored = subprocess.run(["git", "check-ignore", "-q", "k8s/base/secrets/postgres.env"], cwd=K8S.parent)
    assert ignored.returncode == 0


def as_workload(resource):
    """What becomes of a custom resource, for a checker that knows core kinds alone: a Job, or the Pod of a server."""
    ((_, pod, _),) = pods(resource)
    explained = resource["metadata"].get("annotations", {})
    metadata = {"name": resource["metadata"]["name"] + "-pod", "namespace": "segraft", "annotations": explained}
    if resource["kind"] in ("ServingRuntime", "InferenceService"):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
    template = {"metadata": {"labels": {"from": resource["kind"]}}, "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}


def test_checkov_finds_nothing_that_is_not_explained(rendered, checkov, tmp_path):
    policies = of_kind(rendered[PLATFORMS[0]], "NetworkPolicy")
    for overlay in (*PLATFORMS, TUNING):
        shown = [r for r in rendered[overlay] if r["kind"] != "Secret"] + (policies if overlay == TUNING else [])
        shown += [as_workload(r) for r in shown if problems(r) is not None]
        (tmp_path / f"{Path(overlay).name}.yaml").write_text(yaml.safe_dump_all(shown))
    shutil.copy(K8S.parent / "components/Dockerfile", tmp_path / "Dockerfile")
    command = [*checkov, "-d", str(tmp_path), "--framework", "kubernetes", "dockerfile", "--compact", "--quiet"]
    command += ["--skip-download"]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert found.returncode == 0, found.stdout
    counts = re.findall(r"Passed checks: (\d+), Failed checks: (\d+)", found.stdout)
    assert len(counts) == 2 and all(int(passed) > 50 and failed == "0" for passed, failed in counts)
