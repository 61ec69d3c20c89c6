"""The dense CRF: its filter against the exact Gaussian, what it does to a boundary, and that evaluate runs it."""

import numpy as np
import pytest

from segraft.errors import UserError
from segraft.evaluation.crf import Permutohedral, _simplex, refine
from segraft.params import Crf

KNOBS = {"iterations": 10, "smooth": 3.0, "smooth_std": 1.0, "appearance": 4.0, "position_std": 67.0, "color_std": 3.0}


def crf(**changes):
    return Crf(**KNOBS | changes)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_the_lattice_filters_as_an_exact_gaussian_does(dimensions):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, dimensions)).astype(np.float32)
    values = rng.random((600, 4)).astype(np.float32)
    kernel = np.exp(-((points[:, None] - points[None]) ** 2).sum(2) / 2)
    found = Permutohedral(points).filter(values)
    exact = kernel @ values
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98
    assert np.median(abs(found / exact / np.median(found / exact) - 1)) < 0.1


def test_what_is_far_away_adds_nothing():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(50, 3)), rng.normal(100, 1, (50, 3))]).astype(np.float32)
    for shining, dark in ((slice(50), slice(50, 100)), (slice(50, 100), slice(50))):
        values = np.zeros((100, 1), np.float32)
        values[shining] = 1
        found = Permutohedral(points).filter(values)
        assert (found[dark] == 0).all() and (found[shining] > 0).all()


def test_points_lie_within_their_simplices():
    points = np.random.default_rng(0).normal(scale=5, size=(500, 5)).astype(np.float32)
    corners, shares = _simplex(points)
    assert shares.min() >= -1e-5 and np.allclose(shares.sum(1), 1, atol=1e-5)
    assert len(np.unique(corners.reshape(-1, 5), axis=0)) < 6 * 500, "neighbours share corners"


def blurred_disc(size=96):
    """A disc, a noisy image of it, and an answer whose boundary a stride of 16 has washed out."""
    import cv2

    rng = np.random.default_rng(0)
    rows, columns = np.indices((size, size))
    truth = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 3) ** 2
    image = np.where(truth[..., None], (180, 90, 60), (60, 120, 160)) + rng.normal(scale=3, size=(size, size, 3))
    coarse = cv2.resize(truth.astype(np.float32), (size // 16, size // 16), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR).clip(0.05, 0.95)
    return truth, image.clip(0, 255).astype(np.uint8), np.stack([1 - soft, soft], 2).astype(np.float32)


def test_it_sharpens_a_boundary():
    truth, image, answer = blurred_disc()
    before = (answer.argmax(2) != truth).sum()
    after = (refine(answer, image, crf()).argmax(2) != truth).sum()
    assert before > 100 and after < before / 10


def test_each_kernel_does_its_part():
    truth, image, answer = blurred_disc()
    wrong = {
        name: (refine(answer, image, crf(**changes)).argmax(2) != truth).sum()
        for name, changes in {"both": {}, "place": {"appearance": 0}, "wide": {"color_std": 200.0}}.items()
    }
    assert wrong["both"] < wrong["place"] and wrong["both"] < wrong["wide"], "colour is what finds the edge"
    speckled = answer.copy()
    speckled[::7, ::7] = 0.5 + 0.3 * (speckled[::7, ::7, ::-1] - 0.5)
    islands = (refine(speckled, image, crf(appearance=0)).argmax(2) != answer.argmax(2)).sum()
    assert islands < (speckled.argmax(2) != answer.argmax(2)).sum() / 10, "smoothness removes single pixels"


def test_no_iterations_change_nothing_and_probabilities_stay_probabilities():
    _, image, answer = blurred_disc(32)
    assert refine(answer, image, crf(iterations=0)) is answer
    refined = refine(answer, image, crf(iterations=2))
    assert np.allclose(refined.sum(2), 1, atol=1e-5) and (refined >= 0).all() and refined.dtype == np.float32


def test_evaluate_runs_it_when_it_is_asked_to():
    import torch

    from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
    from segraft.evaluation.predict import predict
    from segraft.params import Evaluate

    class Washed(torch.nn.Module):
        """Answers with the red channel at an eighth of the resolution."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            coarse = torch.nn.functional.avg_pool2d(images[:, :1], 8) * 20 - 9
            wide = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
            return torch.cat([-wide, wide], 1) / 4

    truth, image, _ = blurred_disc(72)
    classes = tuple(ClassCard(name=name, color=(i, i, i)) for i, name in enumerate("ab"))
    how = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(arch="a", encoder="e", taxonomy="t", classes=classes, preprocessing=how)
    masks = {}
    for iterations in (0, 5):
        knobs = Evaluate(
            batch_size=1, examples=1, threads=0, window=None, crf=crf(iterations=iterations), adapt_batch_norm=False
        )
        masks[iterations] = predict(Washed().eval(), card, [image], knobs)[0]
        assert masks[iterations].shape == (72, 72)
    assert (masks[5] != truth).sum() < (masks[0] != truth).sum() / 3


def test_a_lattice_that_is_too_fine_is_one_clear_error():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    shares = np.full((2, 64, 64), 0.5, np.float32)
    with pytest.raises(UserError, match=r"evaluate\.crf: .*color_std .* too small"):
        refine(shares, image, crf(color_std=0.1))
