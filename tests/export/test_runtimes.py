"""Every runtime says what PyTorch says, at any size, from many threads; those without torch import none."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from segraft.checkpoint import sha256
from segraft.errors import UserError
from segraft.evaluation.predict import Predictor
from segraft.serving.runtime import open_runtime
from segraft.serving.runtimes import FILES
from segraft.serving.runtimes.card import read_serving_card
from segraft.serving.runtimes.eager import Eager
from tests.export.conftest import INT8, QUICK
from tests.training.conftest import disc

LEAST = {"onnx-fp32": 0.9999, "openvino-fp32": 0.9999, "torch": 0.99, "openvino-bf16": 0.99}


def images(*sizes):
    return [np.stack([disc(300 + n, *size).image for n in range(2)]) for size in sizes]


@pytest.mark.parametrize("name", LEAST)
def test_agrees_with_pytorch_at_any_size(exported, name):
    agrees_at_any_size(exported, name, LEAST[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", INT8)
def test_int8_agrees_with_pytorch_at_any_size(quantized, name):
    agrees_at_any_size(quantized, name, 0.95)


@pytest.mark.slow
def test_compiled_agrees_with_eager(exported):
    (batch,) = images((64, 96))
    compiled, eager = open_runtime(exported, "torch-compiled", 2), Eager(exported, 2)
    found, wanted = compiled.predict(batch, logits=True), eager.predict(batch, logits=True)
    assert compiled.name == "torch-compiled" and np.mean(found.ids == wanted.ids) > 0.99
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=0, atol=0.05 * np.abs(wanted.logits).max())


def agrees_at_any_size(folder, name, least):
    truth, runtime = Eager(folder, 1).in_fp32(), open_runtime(folder, name, 1)
    assert (runtime.name, runtime.card, runtime.stride) == (name, truth.card, 32)
    for batch in images((72, 100), (64, 64), (130, 45)):
        found, wanted = runtime.predict(batch, logits=True), truth.predict(batch, logits=True)
        assert found.ids.dtype == np.uint8 and found.ids.shape == batch.shape[:3]
        assert found.logits.dtype == np.float32 and found.logits.shape == (2, 2, *batch.shape[1:3])
        assert np.mean(found.ids == wanted.ids) >= least
        assert np.mean(found.logits.argmax(1) == found.ids) > 0.999
        assert 0.01 < found.ids.mean() < 0.9, "both classes are seen"
        again = runtime.predict(batch)
        assert again.logits is None and np.mean(again.ids == found.ids) > 0.999


def test_fp32_logits_are_pytorch_s(exported):
    (batch,) = images((72, 100))
    wanted = Eager(exported, 1).in_fp32().predict(batch, logits=True).logits
    for name in ("onnx-fp32", "openvino-fp32"):
        found = open_runtime(exported, name, 1).predict(batch, logits=True).logits
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def test_eager_is_what_evaluate_scores(exported):
    (batch,) = images((50, 90))
    assert np.array_equal(Eager(exported, 1).predict(batch).ids, np.stack(Predictor(exported, 1)(list(batch))))


@pytest.mark.parametrize("name", ["openvino-bf16", "onnx-fp32", "torch"])
def test_many_threads_get_their_own_answers(exported, name):
    runtime = open_runtime(exported, name, 1)
    batches = [disc(n, 64 + 8 * (n % 3), 96).image[None] for n in range(24)]
    alone = [runtime.predict(batch).ids for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda batch: runtime.predict(batch).ids, batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", ["openvino-bf16", "onnx-fp32"])
def test_a_fresh_process_needs_no_torch(exported, name):
    script = f"""
import sys
from pathlib import Path
import numpy as np
from segraft.serving.runtime import open_runtime
found = open_runtime(Path({str(exported)!r}), {name!r}, 1).predict(np.zeros((1, 40, 50, 3), np.uint8))
assert found.ids.shape == (1, 40, 50)
assert not sys.modules.get("openvino_telemetry"), "nothing is sent anywhere"
print([m for m in ("torch", "nncf", "onnxscript", "mlflow", "pandas") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_auto_is_what_export_chose_and_torch_without_an_export(exported):
    assert open_runtime(exported).name == read_serving_card(exported).chosen
    assert open_runtime(exported.parent / "finetuned").name == "torch"


def test_a_runtime_that_is_not_there_is_an_error_that_lists_what_is(exported):
    with pytest.raises(UserError, match=r"'openvino-int8': .*finetuned holds no such runtime; choose auto or torch"):
        open_runtime(exported.parent / "finetuned", "openvino-int8")
    with pytest.raises(UserError, match=r"'tensorrt'.*holds no such runtime.*onnx-fp32, openvino-fp32, openvino-bf16"):
        open_runtime(exported, "tensorrt")


@pytest.mark.parametrize("name", QUICK)
def test_a_damaged_or_missing_graph_is_refused_before_it_is_parsed(copy, name):
    path = copy / FILES[name][-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}: its sha256 is not the one in serving.json"):
        open_runtime(copy, name)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}: missing; export the model again"):
        open_runtime(copy, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0"}, "was made from other weights"),
        ({"files": {"../evil.onnx": "0"}}, r"files: no runtime reads \['\.\./evil\.onnx'\]"),
        ({"extra": 1}, "extra: unknown key"),
        ({"stride": 512}, "stride: .*less than or equal to 256"),
    ],
)
def test_a_serving_card_that_is_not_one_is_refused(copy, change, message):
    path = copy / "serving.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        open_runtime(copy)


def test_broken_json_is_named(copy):
    (copy / "serving.json").write_text("{")
    with pytest.raises(UserError, match=r"serving\.json: not valid JSON"):
        open_runtime(copy)


GRAPHS = ["onnx-fp32", "openvino-fp32"]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_of_other_classes_is_refused(copy, name):
    path = copy / "model.json"
    card = json.loads(path.read_text())
    card["classes"].append({"name": "other", "color": [1, 2, 3]})
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"model\.onnx: logits of 2 classes; the model's card has 3; export it again"):
        open_runtime(copy, name, 1)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_file_that_is_no_graph_is_named(copy, name):
    (copy / "model.onnx").write_bytes(b"no graph")
    path = copy / "serving.json"
    serving = json.loads(path.read_text())
    serving["files"]["model.onnx"] = sha256(copy / "model.onnx")
    path.write_text(json.dumps(serving))
    with pytest.raises(UserError, match=r"model\.onnx: not a graph that this engine runs"):
        open_runtime(copy, name, 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda card: card["classes"][0].update(color=[1, 2, 256]), "color"),
        (lambda card: card["classes"][0].update(color=[1, 2, -1]), "color"),
        (lambda card: card.update(classes=card["classes"][:1] * 256), "classes"),
    ],
)
def test_a_card_that_no_mask_can_follow_is_refused(copy, change, field):
    path = copy / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match=rf"model\.json.*{field}"):
        open_runtime(copy, "torch", 1)
