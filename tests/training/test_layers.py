from pathlib import Path

import pytest
import torch

from segraft.errors import UserError
from segraft.models import create_model
from segraft.params import load_params
from segraft.training.layers import Layers, freeze, stages, thaw

ROOT = Path(__file__).parents[2]
TRAINING = load_params(ROOT / "params.yaml").finetune


def network(encoder="resnet18", arch="unet"):
    torch.manual_seed(0)
    return create_model(arch, encoder, 3)


def layers(model, total=100, **changes):
    return Layers(model, TRAINING.model_copy(update=changes), total)


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def one_step(model):
    """Names of the tensors that a training step moves."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model.train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_frozen_means_weights_and_statistics_and_survives_train_until_it_is_thawed():
    model = network()
    layers(model, freeze="encoder")
    moved = one_step(model)
    assert moved and not any(name.startswith("encoder.") for name in moved)
    assert any("running_mean" in name for name in moved), "the decoder's BatchNorm still learns"
    thaw(model.encoder)
    assert {"encoder.conv1.weight", "encoder.bn1.running_mean"} <= one_step(model)


def test_a_linear_probe_moves_the_classifier_alone():
    model = network()
    layers(model, freeze="body")
    assert one_step(model) == {"segmentation_head.0.weight", "segmentation_head.0.bias"}


def test_the_stages_of_a_resnet_are_its_own():
    encoder = network().encoder
    expected = [[encoder.conv1, encoder.bn1], [encoder.layer1], [encoder.layer2], [encoder.layer3], [encoder.layer4]]
    assert stages(encoder) == expected


@pytest.mark.parametrize(("arch", "name"), [("unet", "efficientnet_lite0"), ("segformer", "mit_b0"), ("unet", "vgg11")])
def test_stages_hold_every_parameter_once_and_in_running_order(arch, name):
    model = network(name, arch)
    found = stages(model.encoder)
    parameters = [
        p
        for stage in found
        for piece in stage
        for p in ([piece] if isinstance(piece, torch.Tensor) else piece.parameters())
    ]
    assert len(found) >= 4 and len(parameters) == len(set(parameters))
    reached = [n for n, p in model.encoder.named_parameters() if p in set(parameters)]
    assert len(reached) == len(list(model.encoder.parameters()))
    first, last = (next(p for piece in stage for p in piece.parameters()) for stage in (found[0], found[-1]))
    assert first.shape[1] == 3 and last.shape[0] > first.shape[0]


def test_groups_scale_the_encoder_and_spare_norms_from_decay():
    model = network()
    groups = layers(model, lr=0.01, encoder_lr=0.1, weight_decay=0.05).groups
    rates = {id(p): (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rates[id(model.encoder.conv1.weight)] == (pytest.approx(0.001), 0.05)
    assert rates[id(model.encoder.bn1.weight)] == (pytest.approx(0.001), 0.0)
    assert rates[id(model.segmentation_head[0].weight)] == (0.01, 0.05)
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("arch", "encoder", "spared"),
    [
        ("unet", "convnext_tiny", ".layer_scale"),
        ("segformer", "vit_tiny", ".pos_embed"),
        ("segformer", "vit_tiny", ".cls_token"),
    ],
)
def test_scales_and_embeddings_are_spared_from_decay(arch, encoder, spared):
    model = network(encoder, arch)
    groups = layers(model, weight_decay=0.05).groups
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    named = dict(model.named_parameters())
    assert {decays[id(p)] for name, p in named.items() if name.endswith(spared)} == {0.0}
    assert {decays[id(p)] for name, p in named.items() if p.ndim in (2, 4) and p[0].numel() > 1} == {0.05}


def test_layer_decay_slows_each_stage_by_the_factor():
    model = network()
    groups = layers(model, lr=0.01, encoder_lr=1.0, layer_decay=0.5).groups
    peaks = {p: g["peak"] for g in groups for p in g["params"]}
    encoder = model.encoder
    assert peaks[encoder.layer4[0].conv1.weight] == 0.01 and peaks[encoder.layer3[0].conv1.weight] == 0.005
    assert peaks[encoder.conv1.weight] == peaks[encoder.bn1.weight] == 0.01 / 16


def test_gradual_thaws_the_last_stage_first_and_all_by_the_end_of_the_thaw():
    model = network()
    plan = layers(model, total=100, freeze="gradual", thaw=0.5)
    assert not any(name.startswith("encoder.") for name in trained(model))
    starts = {p: g["start"] for g in plan.groups for p in g["params"]}
    assert len(starts) == len(list(model.parameters())), "what is to thaw is in the optimizer from the first step on"
    assert starts[model.encoder.layer4[0].conv1.weight] == 10 and starts[model.encoder.conv1.weight] == 50
    plan.at(9)
    assert not any(name.startswith("encoder.") for name in trained(model))
    plan.at(10)
    assert {name.split(".")[1] for name in trained(model) if name.startswith("encoder.")} == {"layer4"}
    moved = one_step(model)
    assert "encoder.layer4.0.bn1.running_mean" in moved and "encoder.layer3.0.bn1.running_mean" not in moved
    plan.at(50)
    assert len(trained(model)) == len(list(model.parameters()))


def test_what_thaws_keeps_its_statistics_if_they_are_to_stay():
    model = network()
    plan = layers(model, total=100, freeze="gradual", thaw=0.5, batch_norm="frozen")
    plan.at(100)
    moved = one_step(model)
    assert "encoder.conv1.weight" in moved and not any("running" in name for name in moved)


def test_gradual_resumes_where_it_was():
    model = network()
    layers(model, total=100, freeze="gradual", thaw=0.5).at(35)
    assert {name.split(".")[1] for name in trained(model) if name.startswith("encoder.")} == {
        "layer4",
        "layer3",
        "layer2",
    }


def test_freeze_reaches_a_bare_parameter():
    parameter = torch.nn.Parameter(torch.zeros(2))
    freeze(parameter)
    assert not parameter.requires_grad


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["freeze=most"], "finetune.freeze: .*'gradual'.*found 'most'"),
        (["layer_decay=0"], "finetune.layer_decay: .*greater than 0"),
        (["thaw=1.5"], "finetune.thaw: .*less than or equal to 1"),
        (["batch_norm=fresh"], "finetune.batch_norm: .*'reestimate'.*found 'fresh'"),
        (["l2_sp=-1"], "finetune.l2_sp: .*greater than or equal to 0"),
        (["lora_rank=4", "freeze=encoder"], "lora_rank: .* say freeze: none"),
        (["source_share=1.0"], "finetune.source_share: .*less than 1"),
        (["distill.kind=hint"], "finetune.distill.kind: .*'channel'.*found 'hint'"),
        (["distill.temperature=0"], "finetune.distill.temperature: .*greater than 0"),
        (["self_train.weight=1.0", "ema=0.0"], "self_train: .* give ema a value above 0"),
        (["self_train.threshold=1.0"], "finetune.self_train.threshold: .*less than 1"),
    ],
)
def test_bad_values_are_one_clear_error(overrides, message):
    with pytest.raises(UserError, match=message):
        load_params(ROOT / "params.yaml", [f"finetune.{override}" for override in overrides])
