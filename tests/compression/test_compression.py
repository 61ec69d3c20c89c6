"""Pruned channels are gone and the model is smaller; pruned weights are zero and stay so; the budget is kept."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segraft.checkpoint import load_model, read_card, save_model
from segraft.compression.chart import draw
from segraft.compression.prune import ROUND_TO, TooMuch, prune_channels, prune_weights, sparsity
from segraft.compression.recover import prune_and_recover, teach
from segraft.compression.search import Budget, Candidate, Form, Search, compress, pareto
from segraft.compression.widths import widths
from segraft.errors import UserError
from segraft.evaluation.predict import Predictor
from segraft.evaluation.run import score
from segraft.models import create_model
from segraft.params import Export, load_params
from segraft.serving.runtime import open_runtime
from segraft.serving.runtimes.card import read_serving_card
from tests.exported import KNOBS
from tests.training.conftest import disc

ROOT = Path(__file__).parents[2]
STUDENT = "resnet18"
START = load_params(ROOT / "params.yaml", ["model.weights=random"]).model
SHORT = ["epochs=1", "steps_per_epoch=3", "batch_size=2", "ema=0.0", "checkpoint_every=0", "warmup_steps=1"]


@pytest.fixture(scope="module")
def folders(learned, tmp_path_factory):
    """A folder with `model` and `packed`."""
    folder = tmp_path_factory.mktemp("compression")
    shutil.copytree(learned / "packed", folder / "packed")
    shutil.copytree(learned / "finetuned", folder / "model")
    return folder


@pytest.fixture(scope="module")
def training():
    return load_params(ROOT / "params.yaml", [f"finetune.{change}" for change in SHORT]).finetune


def elements(network):
    return sum(p.numel() for p in network.parameters())


def losses(network):
    """Of a network of two classes, on two images."""
    for seed in range(2):
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        yield nn.functional.cross_entropy(network(images), (images[:, 0] > 0).long())


@pytest.mark.parametrize(("arch", "encoder"), [("unet", "efficientnet_lite0"), ("deeplabv3plus", "resnet18")])
def test_pruned_channels_are_gone(arch, encoder, tmp_path, folders):
    torch.manual_seed(0)
    network = create_model(arch, encoder, 2).eval()
    before, widths = (
        elements(network),
        {n: m.out_channels for n, m in network.named_modules() if isinstance(m, nn.Conv2d)},
    )
    channels = prune_channels(network, 0.5, losses(network))
    assert elements(network) < 0.75 * before
    assert all(0 < width < widths[name] for name, width in channels.items())
    odd = [width for width in channels.values() if width % ROUND_TO]
    # In DeepLabV3+ a depthwise convolution reads two layers side by side: what is left of both is rounded together.
    assert sum(odd) % ROUND_TO == 0 and len(odd) <= (2 if arch == "deeplabv3plus" else 0)
    image = torch.randn(1, 3, 64, 96)
    assert network(image).shape == (1, 2, 64, 96)
    card = read_card(folders / "model").model_copy(update={"arch": arch, "encoder": encoder, "channels": channels})
    save_model(tmp_path, network, card)
    assert torch.equal(load_model(tmp_path)[0](image), network(image)), "the folder says how narrow it is"


def test_a_card_that_lies_about_its_widths_is_refused(tmp_path, folders):
    network, card = load_model(folders / "model")
    channels = prune_channels(network, 0.5, losses(network))
    name = next(iter(channels))
    for said in ({}, channels | {name: 1}, {key: width for key, width in channels.items() if key != name}):
        save_model(tmp_path, network, card.model_copy(update={"channels": said}))
        with pytest.raises(UserError, match=r"channels: not those of the weights|do not fit"):
            load_model(tmp_path)


def test_the_channels_that_the_loss_misses_least_go_first(folders):
    network, _ = load_model(folders / "model")
    decoder = network.get_submodule("decoder")
    conv, norm = (next(m for m in decoder.modules() if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    with torch.no_grad():
        norm.weight[::2], norm.bias[::2] = 0, -1  # the ReLU behind it lets nothing through, large as the weights may be
        conv.weight[::2] *= 10
    strong = {float(row.norm()) for row in conv.weight[1::2].detach()}
    prune_channels(network, 0.3, losses(network))
    kept = [float(row.norm()) for row in conv.weight.detach()]
    assert len(strong) <= len(kept) < 2 * len(strong)
    assert strong <= set(kept)


def convolution_weights(network):
    return torch.cat([m.weight.detach().abs().flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])


def test_magnitude_pruning_zeroes_the_smallest_and_training_keeps_them_zero(folders):
    network, _ = load_model(folders / "model")
    before = convolution_weights(network)
    prune_weights(network, 0.6)
    after = convolution_weights(network)
    assert sparsity(network) == pytest.approx(0.6, abs=0.001)
    assert after[after > 0].min() >= before[after == 0].max()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    network.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    moved = convolution_weights(network)
    assert torch.equal(moved == 0, after == 0) and not torch.equal(moved, after)


@pytest.mark.slow
def test_weights_stay_zero_through_a_whole_training(folders, tmp_path, training):
    out = tmp_path / "sparse"
    how = training.model_copy(update={"ema": 0.9})
    prune_and_recover(folders / "model", folders / "packed", 0.6, "weights", how, tmp_path / "work", out)
    recovered, card = load_model(out)
    assert sparsity(recovered) == pytest.approx(0.6, abs=0.001)
    assert card.provenance["pruned"]["sparsity"] == pytest.approx(0.6, abs=0.001) and card.channels == {}
    assert not torch.equal(convolution_weights(recovered), convolution_weights(load_model(folders / "model")[0]))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 0.85])
def test_the_share_that_goes_is_the_share_that_was_asked_for(share):
    torch.manual_seed(0)
    network = create_model("unet", "efficientnet_lite0", 3)
    before = widths(network)
    images, masks = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    prune_channels(network, share, [torch.nn.functional.cross_entropy(network(images), masks)])
    after = widths(network)
    assert 1 - sum(after.values()) / sum(before.values()) == pytest.approx(share, abs=0.05)
    assert min(after[name] / width for name, width in before.items()) >= 0.1


def test_a_share_that_would_leave_layers_less_than_a_tenth_is_refused():
    network = create_model("unet", "efficientnet_lite0", 3)
    loss = network(torch.randn(2, 3, 64, 64)).square().mean()
    with pytest.raises(TooMuch, match="95% of the channels cannot go"):
        prune_channels(network, 0.95, [loss])


@pytest.mark.parametrize(
    ("arch", "encoder", "part"),
    [("fpn", "mit_b0", "an encoder"), ("unet", "convnext_tiny", "an encoder"), ("upernet", "resnet18", "an arch")],
)
def test_a_network_with_other_layers_is_refused_by_the_name_of_one(arch, encoder, part):
    with pytest.raises(UserError, match=rf"(en|de)coder\..*Norm.* cannot be narrowed; .* take {part} of convolutions"):
        prune_channels(create_model(arch, encoder, 3), 0.25, [])


@pytest.mark.slow
def test_training_on_wins_accuracy_back(folders, tmp_path, training):
    longer = training.model_copy(update={"steps_per_epoch": 12, "lr": 0.003})
    scores = {}
    for name, how in {"pruned": training.model_copy(update={"epochs": 0}), "recovered": longer}.items():
        prune_and_recover(
            folders / "model", folders / "packed", 0.8, "weights", how, tmp_path / f"w-{name}", tmp_path / name
        )
        scores[name] = score(tmp_path / name, folders / "packed", "val", 2).miou
    assert scores["recovered"] > scores["pruned"] + 0.05
    provenance = read_card(tmp_path / "recovered").provenance["pruned"]
    assert provenance["of"] == read_card(folders / "model").weights_sha256 and provenance["share"] == 0.8


@pytest.mark.parametrize("kind", ["channels", "weights"])
def test_what_finetune_says_of_teachers_and_the_starting_point_holds_for_pruned_models(
    kind, folders, tmp_path, training
):
    weights = {}
    told = {"folder": str(folders / "model"), "pretrained": "pretrained", "nobody": None}
    changes = {name: {"distill": training.distill.model_copy(update={"teacher": of})} for name, of in told.items()}
    changes |= {"held": {"l2_sp": 1e9}, "as cut": {"epochs": 0}}
    for name, change in changes.items():
        how, out = training.model_copy(update=change), tmp_path / name
        prune_and_recover(folders / "model", folders / "packed", 0.5, kind, how, tmp_path / f"work-{name}", out)
        weights[name] = convolution_weights(load_model(out)[0])
    assert torch.equal(weights["folder"], weights["pretrained"])
    assert not torch.equal(weights["folder"], weights["nobody"])
    assert torch.allclose(weights["held"], weights["as cut"], atol=1e-6)
    assert not torch.allclose(weights["nobody"], weights["as cut"], atol=1e-6)
    pruned = {name: read_card(tmp_path / name).provenance["pruned"] for name in told}
    assert pruned["folder"]["teacher"] == read_card(folders / "model").weights_sha256
    assert "teacher" not in pruned["nobody"]


def test_a_teacher_that_is_not_there_is_one_clear_error(folders, tmp_path, training):
    how = training.model_copy(update={"distill": training.distill.model_copy(update={"teacher": "/nowhere"})})
    with pytest.raises(UserError, match="nowhere: not a model folder"):
        prune_and_recover(folders / "model", folders / "packed", 0.5, "channels", how, tmp_path / "w", tmp_path / "out")


def test_a_student_has_its_own_encoder_and_learns_from_the_model(folders, tmp_path, training):
    for name in ("one", "two"):
        place = tmp_path / name
        teach(folders / "model", folders / "packed", STUDENT, START, training, place / "work", place / "model")
    card, model = read_card(tmp_path / "one" / "model"), read_card(folders / "model")
    assert (card.arch, card.encoder, card.classes) == (model.arch, STUDENT, model.classes)
    assert card.provenance["teacher"] == model.weights_sha256 and card.provenance["steps"] == 3
    assert card == read_card(tmp_path / "two" / "model")


def test_a_student_of_a_pruned_model_is_as_wide_as_its_encoder(folders, tmp_path, training):
    network, card = load_model(folders / "model")
    pruned = card.model_copy(update={"channels": prune_channels(network, 0.5, losses(network))})
    save_model(tmp_path / "pruned", network, pruned)
    teach(tmp_path / "pruned", folders / "packed", STUDENT, START, training, tmp_path / "work", tmp_path / "student")
    assert read_card(tmp_path / "student").channels == {}


def test_a_student_takes_its_statistics_from_the_images_whatever_finetune_does_with_the_model_s(
    folders, tmp_path, training
):
    for policy, kind in (("frozen", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        how, place = training.model_copy(update={"batch_norm": policy, "lora_rank": 2}), tmp_path / policy
        teach(folders / "model", folders / "packed", STUDENT, START, how, place / "work", place / "model")
        encoder = load_model(place / "model")[0].get_submodule("encoder")
        norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
        assert {type(norm) for norm in norms} == {kind}
        assert policy == "group" or all(norm.running_mean.any() for norm in norms)


def candidate(**changes):
    of = Candidate(Form(), "a", latency_ms=10, size_mb=10, miou=0.5, miou_loss=1, agrees=True)
    return replace(of, **changes)


def test_the_front_is_what_no_other_beats():
    fast, small, exact = candidate(latency_ms=1), candidate(size_mb=1), candidate(miou_loss=0, miou=0.51)
    beaten, liar = candidate(latency_ms=11), candidate(latency_ms=0.1, agrees=False)
    assert pareto([beaten, exact, liar, small, fast]) == [fast, exact, small]
    assert pareto([fast, fast]) == [fast, fast], "equals do not beat each other"


@pytest.mark.parametrize(
    ("budget", "fits"),
    [
        (Budget(), True),
        (Budget(ms=9), False),
        (Budget(mb=9), False),
        (Budget(miou_loss=0.5), False),
        (Budget(10, 10, 1), True),
    ],
)
def test_a_budget(budget, fits):
    assert candidate().within(budget) == fits
    assert not candidate(agrees=False).within(budget)


def test_the_drawing_holds_every_candidate_and_no_address():
    import xml.etree.ElementTree as ET

    of = [candidate(), candidate(latency_ms=1, runtime="<b>"), candidate(latency_ms=30)]
    svg = draw(of, of[:2], of[0], Budget(ms=5))
    root = ET.fromstring(svg)
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("circle") == 3 and "b" not in names
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert (
        "1  a, 0 % pruned: 10.0 ms, 10.0 MB, 50.00" in texts and "2  <b>, 0 % pruned: 1.0 ms, 10.0 MB, 50.00" in texts
    )
    assert [address for address in svg.split('"') if "://" in address] == ["http://www.w3.org/2000/svg"]


def test_what_is_listed_beside_the_drawing_has_room():
    """A letter takes no more than 7 units at 12 pixels: DejaVu Sans, of those that are common, is the widest."""
    import xml.etree.ElementTree as ET

    student = replace(candidate(), form=Form(student="mobilenet_v3_small"))
    front = [replace(student, latency_ms=100.0 + n, runtime="openvino-bf16", miou=0.4 + n / 100) for n in range(30)]
    root = ET.fromstring(draw(front, front, None, Budget()))
    listed = [element for element in root if "mobilenet" in (element.text or "")]
    assert len(listed) == 30
    for element in listed:
        assert float(element.get("x")) + 7 * len(element.text) <= float(root.get("width"))
        assert float(element.get("y")) <= float(root.get("height"))


def test_the_line_of_the_drawing_joins_what_is_the_most_accurate_at_its_speed():
    front = [candidate(latency_ms=ms, miou=miou) for ms, miou in ((1, 0.2), (2, 0.4), (3, 0.3), (4, 0.5))]
    line = draw(front, front, None, Budget()).partition('points="')[2].partition('"')[0].split()
    heights = [float(point.partition(",")[2]) for point in line]
    assert len(line) == 3 and heights == sorted(heights, reverse=True)


@pytest.fixture(scope="module")
def searched(folders, training):
    gate = Export(runtimes=("openvino-fp32",), **(KNOBS | {"max_miou_loss": 100.0, "min_agreement": 0.8}))
    what = ((0.5,), "channels", (STUDENT,))
    search = Search(folders / "model", folders / "packed", *what, START, training, gate)
    best = compress(search, Budget(mb=16), folders / "out")
    return search, best, folders / "out"


@pytest.mark.slow
def test_the_search_keeps_the_budget_and_the_model_serves(searched):
    _, best, out = searched
    assert best.size_mb <= 16 and best.form == Form(0.5)
    found = json.loads((out / "pareto.json").read_text())
    assert {(c["share"], c["student"], c["runtime"]) for c in found["candidates"]} == {
        (*form, r) for form in ((0.0, ""), (0.5, ""), (0.0, STUDENT)) for r in ("torch", "openvino-fp32")
    }
    assert found["budget"] == {"ms": None, "mb": 16, "miou_loss": None} and found["chosen"]["runtime"] == best.runtime
    assert (out / "pareto.svg").read_text().startswith("<svg")
    sizes = {c["share"]: c["size_mb"] for c in found["candidates"] if not c["student"]}
    assert sizes[0.5] < 0.7 * sizes[0.0]
    runtime = open_runtime(out / "model")
    image = disc(1).image
    assert runtime.name == best.runtime == read_serving_card(out / "model").chosen
    assert (runtime.predict(image[None]).ids[0] == Predictor(out / "model", 1)([image])[0]).mean() > 0.95


@pytest.mark.slow
def test_a_loss_is_measured_on_all_of_val(searched, folders):
    _, _, out = searched
    whole = next((out / "levels").glob("channels-0-*/exported-*"))
    card = read_serving_card(whole)
    assert card.measured_on["images"] == 3 > KNOBS["images"]
    assert card.measured_on["fp32"]["miou"] == pytest.approx(score(whole, folders / "packed", "val", 1).miou, abs=0.01)
    found = json.loads((out / "pareto.json").read_text())["candidates"]
    for c in found:
        assert c["miou_loss"] == pytest.approx(100 * (card.measured_on["fp32"]["miou"] - c["miou"]), abs=1e-3)


@pytest.mark.slow
def test_another_budget_trains_nothing_and_one_that_nothing_fits_says_what_comes_closest(searched):
    search, _, out = searched
    before = {path: path.stat().st_mtime_ns for path in (out / "levels").rglob("*.safetensors")}
    assert compress(search, Budget(), out).miou == max(
        c["miou"] for c in json.loads((out / "pareto.json").read_text())["candidates"]
    )
    with pytest.raises(UserError, match=r"nothing fits the budget; closest: .*, (50 % pruned|student resnet18): .* MB"):
        compress(search, Budget(mb=0.01), out)
    assert json.loads((out / "pareto.json").read_text())["chosen"] is None
    assert not (out / "model").exists(), "what an earlier budget allowed does not fit this one"
    assert {path: path.stat().st_mtime_ns for path in (out / "levels").rglob("*.safetensors")} == before


@pytest.mark.slow
def test_another_gate_measures_anew_and_trains_nothing(searched, capsys):
    search, _, out = searched
    trained = {path: path.stat().st_mtime_ns for path in (out / "levels").glob("*/model/*")}
    gate = search.export.model_copy(update={"min_agreement": 0.0})
    best = compress(replace(search, export=gate, students=()), Budget(), out)
    said = capsys.readouterr().out
    assert "measuring 50 % pruned" in said and "making" not in said
    assert f"{best.runtime}, {best.form}" in said.partition("what no other beats")[2]
    assert {path: path.stat().st_mtime_ns for path in (out / "levels").glob("*/model/*")} == trained


def test_a_model_of_other_classes_is_refused_by_its_own_name(folders, training, tmp_path):
    network, card = load_model(folders / "model")
    others = tuple(c.model_copy(update={"name": f"{c.name}s"}) for c in card.classes)
    save_model(tmp_path / "other", network, card.model_copy(update={"classes": others}))
    gate = Export(runtimes=("torch",), **KNOBS)
    search = Search(tmp_path / "other", folders / "packed", (), "channels", (), START, training, gate)
    with pytest.raises(UserError, match=r"other: knows \[.*s'\], .*packed has"):
        compress(search, Budget(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pruned_costs_less_arithmetic(folders):
    network, _ = load_model(folders / "model")
    narrow, _ = load_model(folders / "model")
    prune_channels(narrow, 0.5, losses(narrow))
    image = torch.randn(1, 3, 256, 512)
    cost = {}
    for name, model in (("whole", network), ("pruned", narrow)):
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            model(image)
        cost[name] = flops.get_total_flops()
    assert cost["pruned"] < 0.8 * cost["whole"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--levels", "1.5"], "each must be at least 0 and below 1"),
        (["--max-ms", "0"], "--max-ms 0.0: must be above 0"),
        (["--max-miou-loss", "nan"], "--max-miou-loss nan: give a number"),
        (["--students", "resnet19"], "segraft compress: --students: 'resnet19': unknown; choose one of"),
        (["--model", "params.yaml"], "params.yaml: not a model folder"),
    ],
)
def test_bad_flags(flags, message, folders):
    where = ["--model", folders / "model", "--dataset", folders / "packed"]
    done = subprocess.run(
        [sys.executable, "-m", "segraft", "compress", *where, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 65 and message in done.stderr
