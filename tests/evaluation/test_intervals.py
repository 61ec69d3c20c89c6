from __future__ import annotations

import numpy as np
import pytest

from segraft.evaluation import scores
from segraft.evaluation.intervals import interval, resampled_miou


def images(count: int, skill: float, seed: int = 0) -> np.ndarray:
    """(N, 3, 2) counts of a two-class model that is right on about `skill` of the pixels of each image."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(100, np.clip(rng.normal(skill, 0.1, (count, 2)), 0, 1))
    matrices = np.zeros((count, 2, 2), np.int64)
    for i in range(2):
        matrices[:, i, i], matrices[:, i, 1 - i] = right[:, i], 100 - right[:, i]
    return scores.counts(matrices)


def miou(counts: np.ndarray) -> float:
    return float(scores.mean(scores.iou_of_counts(counts.sum(0))))


def test_the_same_scores_give_the_same_interval():
    counts = images(20, 0.7)
    assert interval(resampled_miou(counts)) == interval(resampled_miou(counts.copy()))


def test_holds_the_score_and_narrows_with_more_images():
    few, many = interval(resampled_miou(images(10, 0.7))), interval(resampled_miou(images(1000, 0.7)))
    assert many[0] < miou(images(1000, 0.7)) < many[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 5


def test_images_that_are_all_alike_leave_no_doubt():
    counts = np.repeat(images(1, 0.7), 30, axis=0)
    assert interval(resampled_miou(counts)) == pytest.approx((miou(counts), miou(counts)))


def test_covers_the_truth_about_as_often_as_it_says():
    truth = miou(images(20000, 0.7, seed=1))
    ends = [interval(resampled_miou(images(60, 0.7, seed))) for seed in range(100, 160)]
    assert 0.85 <= np.mean([low <= truth <= high for low, high in ends]) <= 1


def test_a_difference_of_two_models_on_the_same_images_is_paired():
    hard = np.linspace(0, 30, 25).astype(int)
    a = images(25, 0.8)
    a[:, 0] = 90 - hard[:, None]
    b = a.copy()
    b[:, 0] -= 3  # three pixels a class worse on every image
    paired = interval(resampled_miou(a) - resampled_miou(b))
    alone = interval(resampled_miou(a))
    assert paired[0] > 0
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 5
    assert interval(resampled_miou(a) - resampled_miou(a)) == (0, 0)


def test_a_resample_without_a_score_is_left_out():
    counts = np.concatenate([images(1, 0.7), np.zeros((1, 3, 2), np.int64)])
    assert interval(resampled_miou(counts)) == pytest.approx((miou(counts), miou(counts)))
