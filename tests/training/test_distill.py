from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.models import create_model
from segraft.params import load_params
from segraft.training.distill import Distillation, channel_loss, feature_loss, logit_loss
from segraft.training.transfer import Translated

DISTILL = load_params(Path(__file__).parents[2] / "params.yaml").finetune.distill
CARD = ModelCard(
    arch="unet",
    encoder="resnet18",
    taxonomy="t",
    classes=(ClassCard(name="a", color=(0, 0, 0)), ClassCard(name="b", color=(9, 9, 9))),
    preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
)


def maps(seed, channels=3, side=8):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "loss", [lambda a, b: logit_loss(a, b, 2.0), lambda a, b: channel_loss(a, b, 4.0), feature_loss]
)
def test_zero_for_the_same_answer_and_above_for_another(loss):
    assert loss(maps(0), maps(0)).item() == pytest.approx(0, abs=1e-5) and loss(maps(0), maps(1)) > 0.01


def test_logit_is_hinton_s():
    student, teacher = maps(0), maps(1)
    p, q = ((z / 2).softmax(1) for z in (student, teacher))
    expected = 4 * (q * (q / p).log()).sum(1).mean()
    assert torch.allclose(logit_loss(student, teacher, 2.0), expected, atol=1e-5)


def test_channel_ignores_how_likely_a_class_is_and_sees_where_it_is():
    student, louder = maps(0), maps(0) + torch.tensor([5.0, 0, -5]).reshape(1, 3, 1, 1)
    assert channel_loss(student, louder, 4.0) < 1e-5 < logit_loss(student, louder, 4.0)
    assert channel_loss(student, student.roll(2, 3), 4.0) > 0.1


def test_answers_and_features_of_other_sizes_are_compared():
    assert torch.isfinite(logit_loss(maps(0, side=4), maps(1, side=16), 2.0))
    assert torch.isfinite(feature_loss(maps(0, channels=3, side=4), maps(1, channels=7, side=8)))
    smooth = functional.interpolate(maps(0, side=4), scale_factor=2, mode="nearest")
    assert feature_loss(maps(0, side=4), functional.adaptive_avg_pool2d(smooth, 4)) < 1e-6


@pytest.mark.parametrize("kind", ["logit", "channel", "feature"])
def test_a_student_comes_to_answer_as_its_teacher(kind):
    torch.manual_seed(0)
    teacher, student = create_model("unet", "resnet18", 2).eval(), create_model("fcn", "resnet18", 2)
    follow = Distillation(DISTILL.model_copy(update={"kind": kind, "weight": 2.0}), teacher, CARD, student)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.0002)
    losses = []
    for _ in range(8):
        logits = student((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        loss = follow(images, logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("kind", ["logit", "channel"])
def test_a_class_that_the_teacher_does_not_know_is_left_to_the_labels(kind):
    torch.manual_seed(0)
    donor, student = create_model("fcn", "resnet18", 2).eval(), create_model("fcn", "resnet18", 3)
    teacher = Translated(donor, np.array([[1, 0], [0, 0], [0, 1]], bool))
    follow = Distillation(DISTILL.model_copy(update={"kind": kind}), teacher, CARD, student)
    logits = maps(0).requires_grad_()
    follow(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), logits).backward()
    sizes = logits.grad.abs().amax((0, 2, 3))
    assert sizes[1] == 0 and sizes[0] > 0 and sizes[2] > 0
