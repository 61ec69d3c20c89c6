from pathlib import Path

import numpy as np
import pytest
import torch

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.data.packed import DatasetCard
from segraft.data.taxonomy import kin, load_taxonomy
from segraft.errors import UserError
from segraft.models import create_model
from segraft.training import transfer
from segraft.training.transfer import Translated, describe, graft, links, translated, transplant
from tests.training.conftest import ONLINE

TAXONOMIES = Path(__file__).parents[2] / "data" / "taxonomies"
SAME = np.eye(5, dtype=bool)


def classes_of(name):
    return tuple(ClassCard(name=c.name, color=c.color) for c in load_taxonomy(TAXONOMIES, name).classes)


def model_card(taxonomy):
    how = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    return ModelCard(
        arch="unet", encoder="resnet18", taxonomy=taxonomy, classes=classes_of(taxonomy), preprocessing=how
    )


def dataset_card(taxonomy):
    related = kin(TAXONOMIES, load_taxonomy(TAXONOMIES, taxonomy))
    classes = classes_of(taxonomy)
    return DatasetCard(
        taxonomy=taxonomy, classes=classes, codec="raw", crop=(64, 64), online=ONLINE, splits={}, kin=related
    )


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return create_model("unet", "resnet18", 5), create_model("unet", "resnet18", 5)


def test_everything_is_kept_between_twins(models):
    donor, model = models
    report = graft(model, donor.state_dict(), SAME)
    assert {entry.outcome for entry in report} == {"kept"}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), donor.state_dict().values(), strict=True))


def test_classes_in_another_order_are_reordered_and_the_rest_is_kept(models):
    donor, _ = models
    model = create_model("unet", "resnet18", 5)
    report = {entry.tensor: entry for entry in graft(model, donor.state_dict(), SAME[::-1])}
    assert torch.equal(model.segmentation_head[0].weight, donor.segmentation_head[0].weight.flip(0))
    assert report["segmentation_head.0.bias"].outcome == "transplanted"
    assert report["segmentation_head.0.weight"].why == "5 copied"
    assert torch.equal(model.encoder.conv1.weight, donor.encoder.conv1.weight)


def test_a_classifier_of_strangers_is_left_to_chance(models):
    donor, _ = models
    model = create_model("unet", "resnet18", 5)
    before = model.segmentation_head[0].weight.clone()
    report = {entry.tensor: entry for entry in graft(model, donor.state_dict(), np.zeros((5, 5), bool))}
    assert torch.equal(model.segmentation_head[0].weight, before)
    assert (
        report["segmentation_head.0.weight"].outcome == "mismatched"
        and report["encoder.conv1.weight"].outcome == "kept"
    )


def test_another_decoder_is_skipped(models):
    report = graft(create_model("deeplabv3plus", "resnet18", 5), models[0].state_dict(), SAME)
    outcomes = {e.outcome: e for e in report if e.tensor.startswith("decoder.")}
    assert "kept" not in outcomes and outcomes["skipped"].why


def test_cityscapes_goes_with_streets_as_the_taxonomy_says():
    theirs, ours = model_card("cityscapes"), dataset_card("streets")
    found = links(theirs, ours)
    names = [c.name for c in theirs.classes]
    of = {c.name: {names[i] for i in np.flatnonzero(row)} for c, row in zip(ours.classes, found, strict=True)}
    assert of["vehicle"] == {"car", "truck", "bus", "train"} and of["road"] == {"road"}
    assert of["sign"] == {"traffic light", "traffic sign"} and describe(found) == "5 copied, 6 merged"


def test_the_other_way_round_classes_are_split():
    found = links(model_card("streets"), dataset_card("cityscapes"))
    assert describe(found) == "5 copied, 14 split" and (found.sum(1) == 1).all()


def test_without_a_map_classes_go_by_name():
    ours = dataset_card("streets").model_copy(update={"kin": {}})
    found = links(model_card("cityscapes"), ours)
    assert found.sum() == 8 and found[0, 0], "road, sidewalk, building, fence, pole, vegetation, sky, person"


OWN = torch.arange(8.0).reshape(4, 2, 1, 1)
THEIRS = torch.tensor([[1.0, 2], [3, 4], [5, 8]]).reshape(3, 2, 1, 1)
LINKS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]], bool)


def test_rows_are_copied_merged_and_left_to_chance():
    rows = transplant(OWN, THEIRS, LINKS)
    assert torch.equal(rows[0], THEIRS[0]) and torch.equal(rows[1], THEIRS[1:].mean(0))
    assert torch.equal(rows[2:], OWN[2:])
    bias = transplant(torch.zeros(4), torch.tensor([1.0, 2.0, 4.0]), LINKS)
    assert bias.tolist() == pytest.approx([1.0, 3 + np.log(2), 0.0, 0.0])


def test_twins_share_their_parent_s_probability_and_differ_slightly():
    split = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
    torch.manual_seed(0)
    rows = transplant(torch.zeros(4, 50, 1, 1), torch.randn(3, 50, 1, 1), split)
    bias = transplant(torch.zeros(4), torch.tensor([1.0, 2.0, 4.0]), split)
    assert bias.tolist() == pytest.approx([1 - np.log(2), 1 - np.log(2), 2.0, 4.0])
    assert not torch.equal(rows[0], rows[1]) and torch.allclose(rows[0], rows[1], atol=0.2)
    assert torch.exp(bias[:2]).sum() == pytest.approx(np.e)


@pytest.mark.parametrize("arch", ["unet", "fcn8s", "deeplabv2"])
@pytest.mark.parametrize("links", [[[1, 0, 0], [0, 1, 1]], [[1, 0, 0], [1, 0, 0], [0, 1, 1]]])
def test_merged_and_split_rows_agree_with_the_exact_answer_where_the_parents_do(arch, links, monkeypatch):
    """The heads of FCN-8s and DeepLab v2 add up three and four classifiers."""
    monkeypatch.setattr(transfer, "PERTURBATION", 0.0)
    donor = create_model(arch, "resnet18", 3).eval()
    with torch.no_grad():
        for score in (m for m in donor.segmentation_head.modules() if isinstance(m, torch.nn.Conv2d)):
            score.weight[2] = score.weight[1]
            score.bias[:] = torch.tensor([0.3, 0.1, 0.1])
    classes = np.array(links, bool)
    model = create_model(arch, "resnet18", len(links)).eval()
    graft(model, donor.state_dict(), classes)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(images), Translated(donor, classes)(images), atol=1e-5)


def test_a_translated_model_sums_probabilities_and_never_says_what_it_does_not_know():
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Identity()

        def forward(self, images):
            return torch.log(torch.tensor([0.4, 0.35, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, *images.shape[2:])

    answer = Translated(Fixed(), LINKS)(torch.zeros(1, 3, 4, 4)).softmax(1)[0, :, 0, 0]
    assert answer.tolist() == pytest.approx([0.4, 0.6, 0.0, 0.0])


def test_a_model_that_shares_no_class_is_refused():
    stranger = model_card("camvid").model_copy(
        update={
            "taxonomy": "cells",
            "classes": (ClassCard(name="a", color=(0, 0, 0)), ClassCard(name="b", color=(1, 1, 1))),
        }
    )
    with pytest.raises(UserError, match=r"m: knows the classes of cells, .* write maps.cells in .*camvid.yaml"):
        translated(torch.nn.Identity(), stranger, dataset_card("camvid"), "m")
