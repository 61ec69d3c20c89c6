from pathlib import Path

import pytest
import torch

from segraft.models import create_model
from segraft.params import load_params
from segraft.training.transfer import freeze, graft, parameter_groups

TRAINING = load_params(Path(__file__).parents[2] / "params.yaml").finetune


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return create_model("unet", "resnet18", 5), create_model("unet", "resnet18", 5)


def test_everything_is_kept_between_twins(models):
    donor, model = models
    report = graft(model, donor.state_dict(), same_classes=True)
    assert {entry.outcome for entry in report} == {"kept"}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), donor.state_dict().values(), strict=True))


def test_other_classes_leave_the_classifier_alone(models):
    donor, _ = models
    model = create_model("unet", "resnet18", 5)
    before = model.segmentation_head[0].weight.clone()
    report = {entry.tensor: entry for entry in graft(model, donor.state_dict(), same_classes=False)}
    assert torch.equal(model.segmentation_head[0].weight, before)
    assert report["segmentation_head.0.weight"].outcome == "mismatched"
    assert "other classes" in report["segmentation_head.0.weight"].why
    assert torch.equal(model.encoder.conv1.weight, donor.encoder.conv1.weight)


def test_another_class_count_is_a_mismatch_and_another_decoder_is_skipped(models):
    donor, _ = models
    report = graft(create_model("unet", "resnet18", 7), donor.state_dict(), same_classes=False)
    assert {e.tensor for e in report if e.outcome == "mismatched"} == {
        "segmentation_head.0.weight",
        "segmentation_head.0.bias",
    }
    report = graft(create_model("deeplabv3plus", "resnet18", 5), donor.state_dict(), same_classes=True)
    outcomes = {e.outcome: e for e in report if e.tensor.startswith("decoder.")}
    assert "kept" not in outcomes and outcomes["skipped"].why


def test_frozen_means_weights_and_statistics_and_survives_train():
    model = create_model("unet", "resnet18", 3)
    freeze(model.encoder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not any(name.startswith("encoder.") for name in moved)
    assert any("running_mean" in name for name in moved), "the decoder's BatchNorm still learns"


def test_parameter_groups_scale_the_encoder_and_spare_norms_from_decay():
    model = create_model("unet", "resnet18", 3)
    training = TRAINING.model_copy(update={"lr": 0.01, "encoder_lr": 0.1, "weight_decay": 0.05})
    groups = parameter_groups(model, training)
    rates = {id(p): (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rates[id(model.encoder.conv1.weight)] == (pytest.approx(0.001), 0.05)
    assert rates[id(model.encoder.bn1.weight)] == (pytest.approx(0.001), 0.0)
    assert rates[id(model.segmentation_head[0].weight)] == (0.01, 0.05)
    assert len(rates) == len(list(model.parameters()))
