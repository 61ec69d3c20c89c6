"""What is compiled: it parses, every reference leads somewhere, and the cluster's knobs land in it."""

import json
import shutil

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.graph import PIPELINES, Target, draw
from segraft.errors import UserError
from segraft.orchestration.secrecy import refuse_passwords
from segraft.params import load_params
from tests.pipelines.conftest import ROOT

RICH = (
    "cluster.image=registry.example.org/segraft@sha256:1234",
    "cluster.pull_policy=Always",
    "cluster.gpu={type: nvidia.com/gpu, count: 2}",
    'cluster.heavy={cpu: "6", memory: 24Gi}',
    "cluster.shm=4Gi",
    "cluster.node_selector={pool: gpu}",
    "cluster.tolerations=[{key: nvidia.com/gpu, operator: Exists, value: null, effect: NoSchedule}]",
    "cluster.volumes=[{claim: team-data, path: /mnt/data}]",
    "cluster.secrets=[{name: s3, key: secret, env: AWS_SECRET_ACCESS_KEY}]",
    "cluster.timeout=7200",
    "cluster.store=/mnt/data/segraft",
)


@pytest.fixture(params=[(name,) for name in PIPELINES] + [("transfer", "cluster.pack_parts=3")], ids=" ".join)
def pipeline(request, compiled):
    return compiled(*request.param)


def executors(spec):
    found = json_format.MessageToDict(spec.deployment_spec)["executors"]
    return {name: json_format.ParseDict(one, ir.PipelineDeploymentConfig.ExecutorSpec()) for name, one in found.items()}


def test_every_reference_leads_somewhere(pipeline):
    spec, pods, _ = pipeline
    known = executors(spec)
    seen = set()

    def walk(component, inputs):
        if component.WhichOneof("implementation") == "executor_label":
            assert component.executor_label in known
            seen.add(component.executor_label)
            return
        dag = component.dag
        for name, task in dag.tasks.items():
            assert task.component_ref.name in spec.components, name
            inner = spec.components[task.component_ref.name]
            assert set(task.dependent_tasks) <= set(dag.tasks), name
            for key, source in task.inputs.parameters.items():
                check(dag, inputs.parameters, source, "parameter", name)
                assert key in inner.input_definitions.parameters, (name, key)
            for key, source in task.inputs.artifacts.items():
                check(dag, inputs.artifacts, source, "artifact", name)
                assert key in inner.input_definitions.artifacts, (name, key)
            needed = {k for k, of in inner.input_definitions.parameters.items() if not of.is_optional}
            assert needed <= set(task.inputs.parameters) | {task.parameter_iterator.item_input}, name
            walk(inner, inner.input_definitions)

    def check(dag, parents, source, kind, name):
        if source.HasField(f"task_output_{kind}"):
            output = getattr(source, f"task_output_{kind}")
            assert output.producer_task in dag.tasks, (name, output.producer_task)
            made = spec.components[dag.tasks[output.producer_task].component_ref.name].output_definitions
            assert getattr(output, f"output_{kind}_key") in getattr(made, f"{kind}s"), (name, output)
        elif source.HasField(f"component_input_{kind}"):
            assert getattr(source, f"component_input_{kind}") in parents, (name, source)

    walk(spec.root, spec.root.input_definitions)
    assert seen == set(known) and set(pods) <= set(known), "nothing is declared for nobody"


def test_a_dangling_producer_is_found(compiled, monkeypatch):
    spec, pods, text = compiled("transfer")
    dag = spec.components["comp-exit-handler-1"].dag
    dag.tasks["finetune"].inputs.artifacts["pretrained"].task_output_artifact.producer_task = "nope"
    with pytest.raises(AssertionError, match="nope"):
        test_every_reference_leads_somewhere((spec, pods, text))


def test_the_yaml_installs_nothing_and_holds_no_secret(compiled, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush-hush")
    _, _, text = compiled("transfer", *RICH, fresh=True)
    assert "pip install" not in text and "hush" not in text and "secretKey" in text


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("tracking.uri=https://bob:hunter2@mlflow.example.org", "tracking.uri: https://[*]{3}@mlflow.example.org: "),
        ("tracking.uri=postgresql://bob:hunter2@db/mlflow", "tracking.uri"),
        ("cluster.repo=https://hunter2@git.example.org/team/data.git", "cluster.repo"),
        ("data.target.path=ftp://bob:hunter2@files.example.org/camvid", "data.target.path"),
    ],
)
def test_a_url_with_a_password_is_refused_for_a_cluster(compiled, change, key):
    with pytest.raises(UserError, match=f"{key}.*cluster.secrets") as error:
        compiled("transfer", change)
    assert "hunter2" not in str(error.value)


def test_a_user_is_no_password():
    refuse_passwords(load_params(ROOT / "params.yaml", ["cluster.repo=ssh://git@git.example.org/team/data.git"]))


def test_the_inputs_are_one_json_box_a_section(compiled):
    spec, _, _ = compiled("transfer")
    inputs = spec.root.input_definitions.parameters
    boxes = {name: of.default_value.string_value for name, of in inputs.items()}
    assert json.loads(boxes["finetune"])["lr"] == 0.002 and json.loads(boxes["augment"])["online"]["flip"] == 0.5
    assert set(json.loads(boxes["taxonomies"])) == {path.name for path in (ROOT / "data/taxonomies").iterdir()}
    assert all(of.parameter_type == ir.ParameterType.STRING for of in inputs.values())


def test_the_same_params_give_the_same_bytes(compiled):
    _, _, first = compiled("transfer")
    _, _, second = compiled("transfer", fresh=True)
    assert first == second


def test_the_cluster_s_knobs_land_in_the_pods(compiled):
    spec, pods, _ = compiled("transfer", *RICH)
    training = executors(spec)["exec-finetune"].container
    assert training.image == "registry.example.org/segraft@sha256:1234"
    assert training.resources.resource_cpu_limit == training.resources.resource_cpu_request == "6"
    assert training.resources.resource_memory_limit == "24Gi"
    assert training.resources.accelerator.resource_type == "nvidia.com/gpu"
    assert training.resources.accelerator.resource_count == "2"
    pod = pods["exec-finetune"]
    assert (pod.empty_dir_mounts[0].mount_path, pod.empty_dir_mounts[0].medium) == ("/dev/shm", "Memory")
    assert pod.empty_dir_mounts[0].size_limit == "4Gi"
    assert dict(pod.node_selector.labels) == {"pool": "gpu"}
    assert (pod.tolerations[0].key, pod.tolerations[0].effect) == ("nvidia.com/gpu", "NoSchedule")
    assert (pod.pvc_mount[0].constant, pod.pvc_mount[0].mount_path) == ("team-data", "/mnt/data")
    assert pod.secret_as_env[0].key_to_env[0].env_var == "AWS_SECRET_ACCESS_KEY"
    assert pod.image_pull_policy == "Always" and pod.active_deadline_seconds == 7200
    assert {env.name: env.value for env in training.env}["SEGRAFT_STORE"] == "/mnt/data/segraft"
    assert all(
        (p.security_context.run_as_user, p.security_context.run_as_non_root) == (10001, True) for p in pods.values()
    )
    assert pod.field_path_as_env[0].name == "SEGRAFT_RUN", "which execution it is, is no part of the cache's key"


def test_steps_that_do_not_train_get_no_gpu(compiled):
    spec, pods, _ = compiled("transfer", *RICH)
    light = executors(spec)["exec-validate"].container
    assert not light.resources.HasField("accelerator") and light.resources.resource_cpu_limit == "2"
    assert not pods["exec-validate"].empty_dir_mounts and not pods["exec-validate"].tolerations


def test_only_what_may_succeed_the_next_time_is_retried(compiled):
    def retried(pipeline):
        spec, _, _ = compiled(pipeline, "data.target.path=s3://bucket/camvid")
        tasks = [item for dag in spec.components.values() for item in dag.dag.tasks.items()]
        return {name for name, task in tasks if task.retry_policy.max_retry_count}

    server = {"fetch", "register", "deploy"}
    assert retried("transfer") == {"pretrain", "finetune", "scratch", *server}, "bad data stays bad"
    assert retried("finetune") == {"pretrained", "finetune", "scratch", *server}


def test_deployment_waits_for_the_gate_and_the_exit_handler_for_everything(compiled):
    spec, _, _ = compiled("transfer")
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    gate = next(task for name, task in tasks.items() if name.startswith("condition"))
    assert "register" in gate.trigger_policy.condition and "true" in gate.trigger_policy.condition.lower()
    assert list(spec.components[gate.component_ref.name].dag.tasks) == ["deploy"]
    finish = spec.root.dag.tasks["finish"]
    assert finish.trigger_policy.strategy == finish.trigger_policy.ALL_UPSTREAM_TASKS_COMPLETED
    assert not finish.caching_options.enable_cache


def test_the_endpoint_s_manifests_are_the_project_s_and_travel_with_the_pipeline(compiled, tmp_path):
    def boxes(*overrides):
        spec, _, text = compiled("transfer", *overrides)
        assert "{{.Name}}" not in text and "{{ .Name }}" not in text, "Argo would take it for a template of its own"
        return json.loads(spec.root.input_definitions.parameters["manifests"].default_value.string_value)

    assert boxes() == {}, "a pipeline that moves an alias needs none"
    shutil.copytree(ROOT / "k8s/endpoint", tmp_path / "endpoint")
    service = tmp_path / "endpoint/base/inferenceservice.yaml"
    service.write_text(service.read_text().replace("s3://mlflow/champion", "'{{.Name}}'"))
    own = boxes("deploy.pipeline=endpoint", f"deploy.endpoint={tmp_path}/endpoint/gpu")
    model = own["InferenceService/segraft"]["spec"]["predictor"]["model"]
    assert list(own) == ["InferenceService/segraft"] and model["storageUri"] == "{{.Name}}"


def test_a_sweep_runs_each_setting_and_chooses_on_val(compiled):
    spec, _, _ = compiled("sweep", "sweep.settings=[[lr=0.001], [lr=0.01, freeze=encoder]]", "sweep.parallel=2")
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    loop = next(task for name, task in tasks.items() if name.startswith("for-loop"))
    settings = [json.loads(one) for one in json.loads(loop.parameter_iterator.items.raw)]
    assert [(s["lr"], s["freeze"]) for s in settings] == [(0.001, "none"), (0.01, "encoder")]
    assert loop.iterator_policy.parallelism_limit == 2 and "choose" in tasks


def test_a_large_source_is_packed_in_parts_side_by_side(compiled):
    spec, _, _ = compiled("transfer", "cluster.pack_parts=3")
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    loop = next(task for name, task in tasks.items() if name.startswith("for-loop"))
    assert json.loads(loop.parameter_iterator.items.raw) == ["0/3", "1/3", "2/3"]
    assert "augment" not in tasks and {"join", "augment-target"} <= set(tasks)
    assert tasks["pretrain"].inputs.artifacts["dataset"].task_output_artifact.producer_task == "join"
    assert tasks["finetune"].inputs.artifacts["dataset"].task_output_artifact.producer_task == "augment-target"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.target.path=data/camvid"], "data.target.path: data/camvid is on this machine"),
        (["data.target.taxonomy=nowhere"], "nowhere.yaml: no such taxonomy"),
        (["sweep.settings=[[lrr=1]]"], "params.yaml has no finetune.lrr"),
        (["sweep.settings=[[lr=-1]]"], "finetune.lr: .*greater than 0"),
        (["cluster.shm=lots"], "cluster.shm: String should match"),
        (["deploy.pipeline=endpoint", "deploy.endpoint=k8s/endpoint/moon"], "moon/kustomization.yaml: no such"),
        (["deploy.pipeline=endpoint", "deploy.runtime=k8s/overlays/cpu"], "deploy.runtime: .* a run may not"),
        (["data.target.path=data/camvid", "cluster.repo=/no/such/repository"], "cluster.repo: /no/such/repository: "),
    ],
)
def test_what_a_user_can_mend_is_said_before_anything_is_submitted(compiled, overrides, message):
    with pytest.raises(UserError, match=message):
        compiled("sweep", *overrides)


def test_a_model_to_start_from_is_asked_for_and_looked_for():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(UserError, match="--model: which model to start from"):
        draw("finetune", Target(params, "", False), ROOT)
    with pytest.raises(UserError, match="--model: nowhere: no such model folder"):
        draw("finetune", Target(params, "", False, "nowhere"), ROOT)
    with pytest.raises(UserError, match="--model: models/finetuned is on this machine; name a registered model"):
        draw("finetune", Target(params, "", True, "models/finetuned"), ROOT)


def test_a_model_on_a_volume_that_is_not_seen_from_here_is_read_anew():
    params = load_params(ROOT / "params.yaml")
    for place, cached in (("/mnt/data/model", False), (str(ROOT / "data/taxonomies"), True)):
        pipeline = draw("finetune", Target(params, "sha256:0", True, place), ROOT)
        task = pipeline.pipeline_spec.components["comp-exit-handler-1"].dag.tasks["pretrained"]
        assert task.caching_options.enable_cache is cached


def test_data_by_reference_is_a_version_of_its_own_in_the_inputs(compiled):
    place = "data.target.path=/mnt/data/camvid"
    spec, *_ = compiled("transfer", place)
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    assert tasks["locate"].inputs.parameters["place"].runtime_value.constant.string_value == "/mnt/data/camvid"
    assert not tasks["locate"].caching_options.enable_cache, "nobody here can tell whether the volume has changed"
    assert (
        "augment" in tasks
        and tasks["augment"].inputs.artifacts["target"].task_output_artifact.producer_task == "locate"
    )


def test_what_an_object_store_holds_is_brought_in_each_run_for_its_url_says_nothing_of_its_content(compiled):
    spec, *_ = compiled("transfer", "data.target.path=s3://bucket/camvid", f"cluster.repo={ROOT}")
    fetched = {
        task.inputs.parameters["path"].runtime_value.constant.string_value: task
        for name, task in spec.components["comp-exit-handler-1"].dag.tasks.items()
        if name.startswith("fetch")
    }
    assert not fetched["s3://bucket/camvid"].caching_options.enable_cache
    assert not any(one.WhichOneof("spec") == "importer" for one in executors(spec).values())
