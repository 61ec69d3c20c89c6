from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn import functional

from segraft.data.packed import CoarseCard, SplitCard
from segraft.errors import UserError
from segraft.params import LossName, load_params
from segraft.training.losses import Loss, _jaccard_steps, class_weights, cross_entropy

ROOT = Path(__file__).parents[2]
TRAINING = load_params(ROOT / "params.yaml").finetune
SPLIT = SplitCard(shards=(), samples=2, class_pixels=(60, 30, 6), shown_pixels=(96, 96, 48))
KINDS = ["inverse", "inverse_sqrt", "median_frequency", "effective_number"]
NAMES = get_args(LossName)


def example():
    torch.manual_seed(0)
    masks = torch.randint(0, 3, (2, 8, 8))
    masks[0, :4] = 255
    return torch.randn(2, 3, 8, 8, requires_grad=True), masks


def loss_of(terms, **changes):
    training = TRAINING.model_copy(update={"loss": terms, **changes})
    return Loss(training, SPLIT, 255, torch.device("cpu"))


def hard(masks, classes=3):
    """Logits that are all but certain of a mask."""
    return 40.0 * functional.one_hot(masks, classes).movedim(-1, 1).float()


def test_is_torch_s_mean_where_nothing_is_weighted():
    logits, masks = example()
    expected = functional.cross_entropy(logits, masks, ignore_index=255)
    assert torch.allclose(cross_entropy(logits, masks, None, 255), expected)


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_get_no_gradient_and_change_nothing(name):
    logits, masks = example()
    loss = loss_of({name: 1.0}, ohem_keep=1.0)
    value = loss(logits, masks)
    value.backward()
    assert logits.grad[0, :, :4].abs().max() == 0 and logits.grad[0, :, 4:].abs().max() > 0
    other = logits.detach().clone()
    other[0, :, :4] = 9.0
    assert torch.equal(loss(other, masks), value)


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_is_zero_not_nan(name):
    logits, masks = example()
    loss = loss_of({name: 1.0})(logits, torch.full_like(masks, 255))
    loss.backward()
    assert loss.shape == () and loss == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "boundary"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_following_the_gradient_finds_the_labels(name, dtype):
    _, masks = example()
    logits = (0.1 * torch.randn(2, 3, 8, 8)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    loss = loss_of({name: 1.0}, class_weights="none")
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(logits.to(dtype), masks)
        assert value.dtype == torch.float32 and torch.isfinite(value)
        value.backward()
        optimizer.step()
    right = (logits.argmax(1) == masks)[masks != 255].float().mean()
    assert right > 0.99


@pytest.mark.parametrize("name", ["dice", "tversky", "lovasz"])
def test_of_a_hard_prediction_the_region_losses_are_one_minus_the_score(name):
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 255]]])
    said = torch.tensor([[[0, 0, 1, 1, 1, 1, 0, 0]]])
    tp, fp, fn = torch.tensor([[2.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    alpha, beta = {"dice": (0.5, 0.5), "tversky": (0.3, 0.7), "lovasz": (1.0, 1.0)}[name]
    expected = (1 - tp / (tp + alpha * fp + beta * fn)).mean()
    assert loss_of({name: 1.0})(hard(said), truth).item() == pytest.approx(expected.item(), abs=1e-5)


def test_lovasz_steps_of_a_rare_class_are_those_of_float64():
    """Differences of neighbours near 1 would be zeros here."""
    truth = torch.zeros(2**20)
    truth[::4099] = 1
    exact = 1 - (truth.double().sum() - truth.double().cumsum(0)) / (truth.sum() + (1 - truth.double()).cumsum(0))
    steps = torch.cat([exact[:1], exact.diff()])
    assert torch.allclose(_jaccard_steps(truth).double(), steps, rtol=1e-3, atol=1e-15)


def test_tversky_s_two_weights_are_of_false_and_of_missed_pixels():
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
    said = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1]]])  # class 0 has false pixels, class 1 missed ones
    dear, cheap = (loss_of({"tversky": 1.0}, tversky=(0.001, miss))(hard(said, 2), truth) for miss in (2.0, 0.001))
    assert cheap < 0.01 and dear.item() == pytest.approx((1 - 2 / (2 + 2 * 2)) / 2, abs=1e-3)


def edge(at):
    """A mask of two classes that meet in column `at`."""
    mask = torch.zeros(1, 24, 24, dtype=torch.int64)
    mask[:, :, at:] = 1
    return mask


def test_boundary_grows_with_the_distance_of_the_edge_and_can_be_followed_to_0():
    loss = loss_of({"boundary": 1.0})
    near, far = (loss(hard(edge(at)), edge(12)) for at in (13, 18))
    assert loss(hard(edge(12)), edge(12)) < 1e-4 < far and near < 0.2 < 0.9 < far
    logits = (
        0.03 * hard(edge(15)) + torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    before = loss(logits, edge(12)).item()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, edge(12)).backward()
        optimizer.step()
    assert loss(logits, edge(12)) < 0.2 * before


def test_boundary_beside_ignored_pixels_is_none():
    loss, masks, blind = loss_of({"boundary": 1.0}), edge(12), torch.zeros(1, 24, 24, dtype=torch.int64)
    assert loss(hard(blind), masks) > 0.5
    masks[:, :, 11:13] = 255
    assert loss(hard(blind), masks) == 0


def test_focal_is_cross_entropy_at_gamma_0_and_forgets_the_easy_pixels_above():
    logits, masks = example()
    assert torch.allclose(
        loss_of({"focal": 1.0}, focal_gamma=0.0)(logits, masks), loss_of({"cross_entropy": 1.0})(logits, masks)
    )
    easy = hard(masks.where(masks != 255, 0)) * 0.1
    plain, focal = (loss_of({name: 1.0})(easy, masks) for name in ("cross_entropy", "focal"))
    assert focal < 0.01 * plain


def test_ohem_is_the_mean_of_the_hardest_pixels():
    logits, masks = example()
    each = functional.cross_entropy(logits, masks, ignore_index=255, reduction="none")[masks != 255]
    value = loss_of({"ohem": 1.0}, ohem_keep=0.25, class_weights="none")(logits, masks)
    assert torch.allclose(value, each.sort(descending=True).values[:24].mean()) and each.numel() == 96


def test_smoothing_asks_for_less_than_certainty():
    masks = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    plain, smooth = (loss_of({"cross_entropy": 1.0}, label_smoothing=s) for s in (0.0, 0.1))
    assert plain(hard(masks), masks) < 1e-4 < 1 < smooth(hard(masks), masks)
    assert smooth(0.1 * hard(masks), masks) < smooth(hard(masks), masks)


def test_several_losses_add_up_by_their_weights():
    logits, masks = example()
    parts = [loss_of({name: 1.0})(logits, masks) for name in ("cross_entropy", "dice")]
    both = loss_of({"cross_entropy": 1.0, "dice": 0.5})(logits, masks)
    assert torch.allclose(both, parts[0] + 0.5 * parts[1])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_rise_with_rarity_average_one_and_are_bounded(kind):
    pixels = [600, 300, 90, 0, 1]
    weights = class_weights(pixels, kind, [1000] * 5)
    share = torch.tensor(pixels) / sum(pixels)
    assert weights[0] < weights[1] < weights[2] <= weights[4]
    assert (weights * share).sum() == pytest.approx(1.0, abs=1e-5)
    assert weights[4] / weights[0] <= 10.001 and weights[3] == 1.0


def test_the_kinds_are_what_their_papers_say():
    pixels, shown = [500, 300, 200], [1000, 1000, 400]
    ratio = {kind: class_weights(pixels, kind, shown) for kind in KINDS}
    ratio = {kind: (weights / weights[0]).tolist() for kind, weights in ratio.items()}
    assert ratio["inverse"] == pytest.approx([1, 5 / 3, 5 / 2])
    assert ratio["inverse_sqrt"] == pytest.approx([1, (5 / 3) ** 0.5, (5 / 2) ** 0.5])
    assert ratio["median_frequency"] == pytest.approx([1, 5 / 3, 1])
    mean = 1000 / 3
    beta = (mean - 1) / mean
    cui = [(1 - beta) / (1 - beta**n) for n in pixels]
    assert ratio["effective_number"] == pytest.approx([w / cui[0] for w in cui], rel=0.01)


def test_no_weights_without_a_rule_or_without_labels():
    assert class_weights([90, 10], "none") is None and class_weights([0, 0], "inverse") is None


def test_median_frequency_needs_to_know_which_images_show_a_class():
    with pytest.raises(UserError, match=r"median_frequency: .* run the augment step again"):
        class_weights([90, 10], "median_frequency")


@pytest.mark.parametrize("name", ["cross_entropy", "ohem", "focal"])
def test_a_weighted_class_counts_more(name):
    logits, masks = example()
    plain, weighted = (loss_of({name: 1.0}, class_weights=kind) for kind in ("none", "inverse"))
    rare = torch.full_like(masks, 2)
    assert weighted(logits, rare) > 2 * plain(logits, rare)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss={dise: 1.0}", "finetune.loss.*cross_entropy.*dise"),
        ("loss={}", "finetune.loss: .*at least 1"),
        ("loss={dice: 0}", "finetune.loss.dice: .*greater than 0"),
        ("class_weights=rare", "finetune.class_weights: .*effective_number.*found 'rare'"),
        ("label_smoothing=1.0", "finetune.label_smoothing: .*less than 1"),
        ("ohem_keep=0", "finetune.ohem_keep: .*greater than 0"),
        ("focal_gamma=-1", "finetune.focal_gamma: .*greater than or equal to 0"),
        ("tversky=[0.5]", "finetune.tversky"),
        ("loss={boundary: 1.0}", "boundary does not see which side .* add another loss"),
    ],
)
def test_bad_values_are_one_clear_error(override, message):
    with pytest.raises(UserError, match=message):
        load_params(ROOT / "params.yaml", [f"finetune.{override}"])


def coarse_loss(terms, **changes):
    training = TRAINING.model_copy(update={"loss": terms, **changes})
    return Loss(training, SPLIT, 255, torch.device("cpu"), [CoarseCard(name="1 or 2", members=(1, 2))])


@pytest.mark.parametrize("class_weights", ["none", "inverse"])
def test_a_coarse_label_raises_the_sum_of_its_classes_and_does_not_choose_among_them(class_weights):
    loss = coarse_loss({"cross_entropy": 1.0}, class_weights=class_weights)
    logits = torch.tensor([0.3, 0.1, 0.9]).reshape(1, 3, 1, 1).requires_grad_()
    value = loss(logits, torch.full((1, 1, 1), 3))
    p = logits.detach().softmax(1)[0, :, 0, 0]
    weight = 1.0 if class_weights == "none" else loss._weights[1:].mean()
    assert value.item() == pytest.approx(float(-(p[1] + p[2]).log() * weight), rel=1e-5)
    value.backward()
    gradient = logits.grad[0, :, 0, 0]
    assert gradient[0] > 0 and torch.allclose(gradient[1] / gradient[2], p[1] / p[2], rtol=1e-4)


def test_fine_and_coarse_pixels_count_alike():
    logits, masks = example()
    fine = loss_of({"cross_entropy": 1.0}, class_weights="none")
    both = coarse_loss({"cross_entropy": 1.0}, class_weights="none")
    assert torch.allclose(both(logits, masks), fine(logits, masks)), "no pixel is coarse"
    masks[1, :2] = 3
    each = -logits.log_softmax(1)
    each = torch.where(masks == 3, -(-each[:, 1:]).logsumexp(1), each.gather(1, masks.clamp(max=2)[:, None])[:, 0])
    assert torch.allclose(both(logits, masks), each[masks != 255].mean())


@pytest.mark.parametrize("name", NAMES)
def test_coarse_labels_leave_the_other_losses_to_the_fine_ones(name):
    logits, masks = example()
    masks[1] = 3
    ignored = masks.where(masks != 3, 255)
    fine = loss_of({name: 1.0})(logits, ignored) * 32 / 96
    coarse = coarse_loss({"cross_entropy": 1.0})(logits, masks.where(masks == 3, 255)) * 64 / 96
    assert torch.allclose(coarse_loss({name: 1.0})(logits, masks), fine + coarse, atol=1e-6)
    logits.grad = None
    coarse_loss({name: 1.0})(logits, torch.full_like(masks, 255)).backward()
    assert logits.grad.abs().max() == 0
