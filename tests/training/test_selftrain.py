from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segraft.data.loader import Batch
from segraft.errors import UserError
from segraft.params import load_params
from segraft.training.selftrain import SelfTraining, pseudo_labels

KNOBS = load_params(Path(__file__).parents[2] / "params.yaml").finetune.self_train


class Fake:
    """Unlabelled batches: all pixels 100."""

    split = (0,)

    def batches(self, start, stop):
        return (
            Batch(np.full((2, 8, 8, 3), 100, np.uint8), np.full((2, 8, 8), 255, np.uint8)) for _ in range(start, stop)
        )


class Sees(nn.Module):
    """Class 1 with certainty in the left half, an even guess in the right one."""

    def forward(self, images):
        logits = torch.zeros(len(images), 3, 8, 8)
        logits[:, 1, :, :4] = 20
        return logits


class Student:
    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        return torch.zeros(len(images), 3, 8, 8, requires_grad=True)


IMAGES = torch.full((2, 8, 8, 3), 200, dtype=torch.uint8)
MASKS = torch.zeros(2, 8, 8, dtype=torch.int64)
MASKS[:, :4] = 2
MASKS[:, 7] = 255


def learn(step=0, **changes):
    knobs = KNOBS.model_copy(update={"weight": 1.0, **changes})
    student = Student()
    training = SelfTraining(knobs, 7, Fake(), 255)
    loss = training(step, 9, IMAGES, MASKS, lambda x: x.permute(0, 3, 1, 2).float(), student, Sees())
    return loss, student.seen[0]


def test_pseudo_labels_and_the_share_of_sure_pixels():
    labels, sure = pseudo_labels(Sees(), torch.zeros(2, 3, 8, 8), 0.968)
    assert (labels[:, :, :4] == 1).all() and sure.tolist() == [0.5, 0.5]


def test_the_loss_weighs_as_much_as_the_teacher_is_sure():
    loss, seen = learn(mix=0.0, mask=0.0)
    assert (seen == 100).all() and loss.item() == pytest.approx(0.5 * np.log(3))
    assert learn(mix=0.0, mask=0.0, threshold=0.2)[0].item() == pytest.approx(np.log(3))
    assert learn(mix=0.0, mask=0.0, weight=2.0)[0].item() == pytest.approx(np.log(3))


def test_class_mix_pastes_half_of_the_classes_with_their_labels():
    loss, seen = learn(mix=1.0, mask=0.0)
    pasted = (seen == 200).all(1)
    for mask, own in zip(MASKS, pasted, strict=True):
        assert {int(label) for label in mask[own].unique()} in ({0}, {2})
        assert own.sum() == (mask == int(mask[own][0])).sum(), "a class comes whole, and nothing else does"
    weights = torch.where(pasted, 1.0, 0.5)
    assert loss.item() == pytest.approx(float(weights.mean()) * np.log(3), rel=1e-5)


def test_masking_hides_about_the_share_of_the_patches():
    _, seen = learn(mix=0.0, mask=0.7, patch=1)
    assert 0.5 < (seen == 0).float().mean() < 0.9
    _, seen = learn(mix=0.0, mask=0.5, patch=3)
    patch = (seen == 0)[:, 0, :3, :3].flatten(1)
    assert (patch.all(1) | ~patch.any(1)).all()


def test_chance_hangs_on_the_step_alone():
    assert torch.equal(learn(step=3, mask=0.5, patch=2)[1], learn(step=3, mask=0.5, patch=2)[1])
    assert not torch.equal(learn(step=3, mask=0.5, patch=2)[1], learn(step=4, mask=0.5, patch=2)[1])


def test_no_unlabelled_images_is_an_error_that_says_where_to_name_some():
    class Empty(Fake):
        split = ()

    with pytest.raises(UserError, match=r"no unlabelled images; name some in augment\.unlabelled"):
        SelfTraining(KNOBS, 7, Empty(), 255)
