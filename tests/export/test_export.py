"""Step export: what it writes, what its gate lets through, and what the registry takes."""

import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from segraft.checkpoint import load_model, read_card, sha256
from segraft.errors import UserError
from segraft.evaluation.confusion import ConfusionMatrix
from segraft.export.graph import difference, export_graph
from segraft.export.measure import Tally
from segraft.export.quantize import quantize_onnx
from segraft.export.run import answering, choose, judge
from segraft.integrity import seal as seal_folder
from segraft.models import create_model
from segraft.params import Export
from segraft.registry.artifact import pack, verify_artifact
from segraft.serving.drift import read_reference
from segraft.serving.runtimes import FILES
from segraft.serving.runtimes.card import Measured, read_serving_card
from segraft.serving.runtimes.eager import Served
from segraft.steps import run
from tests.export.conftest import INT8, QUICK
from tests.exported import KNOBS, MEAN, STD, export


def test_the_folder_says_what_was_measured(exported):
    card = read_serving_card(exported)
    assert set(card.runtimes) == {"torch", *QUICK} and card.unavailable == {}
    assert card.measured_on["split"] == "val" and card.measured_on["images"] == 2
    assert card.files == {"model.onnx": sha256(exported / "model.onnx")}
    for name, of in card.runtimes.items():
        assert of.latency_ms > 0 and 0 < of.miou <= 1 and of.agreement >= 0.9, name
    passed = {name: of.latency_ms for name, of in card.runtimes.items() if of.passed}
    assert card.chosen == min(passed, key=passed.get) and "fastest" in card.why


@pytest.mark.slow
def test_int8_is_smaller_and_measured(quantized):
    card = read_serving_card(quantized)
    assert set(card.runtimes) == {"torch", *QUICK, *INT8}
    assert card.files == {name: sha256(quantized / name) for of in FILES.values() for name in of}
    for name in INT8:
        assert card.runtimes[name].size_mb < 0.4 * card.runtimes["onnx-fp32"].size_mb
        assert card.runtimes[name].agreement > 0.9


def test_a_runtime_that_does_not_run_is_left_out_with_the_reason(copy):
    (copy / "model.onnx").write_bytes(b"no graph")
    found, failed = answering(copy, ("torch", "onnx-fp32"), 1, np.zeros((64, 64, 3), np.uint8))
    assert set(found) == {"torch"} and "model.onnx" in failed["onnx-fp32"]


def test_int8_before_separable_convolutions_runs(exported, tmp_path):
    torch.manual_seed(0)
    network, card = create_model("deeplabv3plus", "resnet18", 2).eval(), read_card(exported)
    export_graph(network, card, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    quantize_onnx(tmp_path / "model.onnx", list(images), 32, tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    wanted = Served(network, card).eval()(torch.from_numpy(images))[1].detach().numpy()
    (found,) = session.run(["logits"], {"images": images})
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted).mean()


def test_it_is_a_model_folder_still(exported):
    network, card = load_model(exported)
    assert card == load_model(exported.parent / "finetuned")[1] and not network.training


def test_the_drift_reference_describes_the_training_images(exported):
    reference = read_reference(exported)
    statistics = reference.statistics
    assert reference.images == 2 and {"brightness", "confidence", "area.disc"} <= set(statistics)
    assert 0.5 <= statistics["confidence"].mean <= 1 and 0.02 < statistics["area.disc"].mean < 0.4
    assert statistics["area.ground"].mean == pytest.approx(1 - statistics["area.disc"].mean)


def test_the_test_split_is_never_read(learned, tmp_path):
    shutil.copytree(learned / "packed", tmp_path / "packed")
    shutil.copytree(learned / "finetuned", tmp_path / "finetuned")
    (tmp_path / "packed/test-00000.arrow").unlink()
    assert export(tmp_path, tmp_path / "exported", ())["agreement"] > 0.9
    assert set(read_serving_card(tmp_path / "exported").runtimes) == {"torch"}
    (tmp_path / "packed/val-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"val-00000\.arrow"):
        export(tmp_path, tmp_path / "again", ())


def test_other_classes_are_refused(transfer, exported, tmp_path):
    paths = {"finetuned": exported, "dataset": transfer / "packed", "exported": tmp_path / "out"}
    with pytest.raises(UserError, match=r"knows \['ground', 'disc'\].*the gate needs images of its classes"):
        run("export", {"export": {"runtimes": [], **KNOBS}}, paths)
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_named(learned, tmp_path):
    shutil.copytree(learned / "finetuned", tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    paths = {"finetuned": tmp_path / "model", "dataset": learned / "packed", "exported": tmp_path / "out"}
    with pytest.raises(UserError, match=r"weights\.safetensors: missing; make the model folder again"):
        run("export", {"export": {"runtimes": [], **KNOBS}}, paths)


def tally(right, wrong, seconds):
    of = Tally(ConfusionMatrix(2), [seconds], right, right + wrong)
    of.matrix.matrix[:] = np.array([[right, wrong], [0, right + wrong]])
    return of


def gate(**changes):
    return Export(runtimes=(), **(KNOBS | {"max_miou_loss": 0.5, "min_agreement": 0.98} | changes))


def test_the_gate_names_what_a_runtime_fails_at():
    truth = tally(1000, 0, 0.4)
    tallies = {"torch": tally(1000, 0, 0.3), "fast": tally(900, 100, 0.1), "good": tally(999, 1, 0.2)}
    measured = judge(gate(), truth, tallies, dict.fromkeys(tallies, 1.0))
    assert [of.passed for of in measured.values()] == [True, False, True]
    assert "loses 9.55 points of mIoU, max_miou_loss is 0.5" in measured["fast"].why
    assert "agrees on 0.9000 of the pixels, min_agreement is 0.98" in measured["fast"].why
    assert choose(measured) == ("good", "the fastest of 2 that passed the parity gate, 1.5 times as fast as torch")
    loose = judge(gate(max_miou_loss=10, min_agreement=0.5), truth, tallies, dict.fromkeys(tallies, 1.0))
    assert choose(loose)[0] == "fast"


def test_torch_serves_when_nothing_passes():
    of = Measured(latency_ms=1, size_mb=1, miou=None, agreement=0, passed=False, why="x")
    assert choose({"torch": of, "fast": of}) == ("torch", "no runtime passed the parity gate")


@pytest.mark.slow
def test_a_gate_that_lets_little_through_still_exports(learned, tmp_path):
    metrics = export(learned, tmp_path / "out", ("openvino-bf16",), min_agreement=1.0, max_miou_loss=0.0)
    card = read_serving_card(tmp_path / "out")
    assert card.chosen == ("openvino-bf16" if card.runtimes["openvino-bf16"].passed else "torch")
    assert card.runtimes["openvino-bf16"].passed or "min_agreement is 1" in card.runtimes["openvino-bf16"].why
    assert metrics["latency_ms"] > 0


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_lite0"])
def test_a_graph_holds_at_sizes_it_was_not_traced_at(tmp_path, encoder, exported):
    torch.manual_seed(0)
    network = create_model("unet", encoder, 2).eval()
    before = network(torch.ones(1, 3, 96, 64))
    assert export_graph(network, read_card(exported), tmp_path / "g.onnx") == "trace"
    assert torch.allclose(network(torch.ones(1, 3, 96, 64)), before, atol=1e-5), "static padding changes nothing"
    served = Served(network, read_card(exported))
    assert difference(served, tmp_path / "g.onnx") < 1e-3
    served.scale.mul_(2)
    assert difference(served, tmp_path / "g.onnx") > 0.01, "the check can fail"


class BakesItsSize(torch.nn.Module):
    """Tracing turns the divisor into a constant."""

    def forward(self, x):
        return torch.cat([x[:, :1] / int(x.shape[-1]), x[:, 1:2]], 1)


def test_what_tracing_would_bake_in_is_exported_otherwise(tmp_path, exported):
    assert export_graph(BakesItsSize(), read_card(exported), tmp_path / "g.onnx") == "torch.export"


class HasNoGraph(torch.nn.Module):
    def forward(self, x):
        return x[:, :2] * torch.linalg.eigvalsh(x[0, 0, :2, :2]).sum()


def test_a_network_without_a_graph_says_why(tmp_path, exported):
    with pytest.raises(UserError, match=r"unet on efficientnet_lite0 has no ONNX graph: trace: .*torch\.export: "):
        export_graph(HasNoGraph(), read_card(exported), tmp_path / "g.onnx")
    assert not (tmp_path / "g.onnx").exists()


def test_the_registry_takes_the_graphs_and_nothing_else(exported, tmp_path):
    example = np.zeros((1, 32, 32, 3), np.uint8)
    seal = pack(exported, example, tmp_path / "artifact")
    verify_artifact(tmp_path / "artifact", seal)
    held = {path.name for path in (tmp_path / "artifact/data").iterdir()}
    assert held == {"model.json", "weights.safetensors", "serving.json", *read_serving_card(exported).files}
    (tmp_path / "artifact/data/model.onnx").rename(tmp_path / "artifact/data/other.onnx")
    with pytest.raises(UserError, match="not a model of segraft"):
        verify_artifact(tmp_path / "artifact", seal_folder(tmp_path / "artifact"))


def test_a_damaged_graph_is_not_packed(copy, tmp_path):
    (copy / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.onnx: its sha256"):
        pack(copy, np.zeros((1, 32, 32, 3), np.uint8), tmp_path / "artifact")


def test_what_is_measured_uses_the_model_s_own_preprocessing(exported):
    how = read_card(exported).preprocessing
    assert (how.mean, how.std) == (MEAN, STD)
