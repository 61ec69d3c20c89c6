from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from segraft.evaluation import scores
from segraft.evaluation.confusion import confusion

MATRIX = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])  # the label never shows class 2


def test_by_hand():
    assert scores.iou(MATRIX) == pytest.approx([3 / 6, 4 / 7, np.nan], nan_ok=True)
    assert scores.dice(MATRIX) == pytest.approx([6 / 9, 8 / 11, np.nan], nan_ok=True)
    assert scores.accuracy(MATRIX) == pytest.approx([3 / 4, 4 / 6, np.nan], nan_ok=True)
    assert scores.miou(MATRIX) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert scores.mean_accuracy(MATRIX) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert scores.pixel_accuracy(MATRIX) == pytest.approx(7 / 10)


def test_a_class_that_only_the_prediction_shows_has_no_score_but_its_pixels_are_wrong():
    matrix = MATRIX.copy()
    matrix[0, 2] = 4
    assert np.isnan([scores.iou(matrix)[2], scores.dice(matrix)[2]]).all()
    assert scores.iou(matrix)[0] == pytest.approx(3 / 10)
    assert scores.pixel_accuracy(matrix) == pytest.approx(7 / 14)


def test_a_class_that_is_never_found_scores_zero():
    assert scores.iou(np.array([[5, 0], [5, 0]])).tolist() == [0.5, 0]


def test_nothing_labelled_has_no_score():
    empty = np.zeros((3, 3), np.int64)
    for score in (scores.miou, scores.mean_accuracy, scores.pixel_accuracy):
        assert np.isnan(score(empty))


def test_many_matrices_at_once():
    stack = np.stack([MATRIX, 2 * MATRIX, np.eye(3, dtype=int)])
    assert scores.miou(stack) == pytest.approx([float(scores.miou(m)) for m in stack])
    assert scores.pixel_accuracy(stack) == pytest.approx([float(scores.pixel_accuracy(m)) for m in stack])


def test_counts_are_enough_for_iou():
    assert scores.iou_of_counts(scores.counts(MATRIX)) == pytest.approx(scores.iou(MATRIX), nan_ok=True)


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 7, (4, 50, 50), dtype=np.uint8)
    prediction = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, 7, label.shape)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = 255
    matrix = confusion(label, prediction, 7)
    peers = {
        MulticlassJaccardIndex(7, ignore_index=255): scores.miou(matrix),
        MulticlassF1Score(7, ignore_index=255): scores.mean(scores.dice(matrix)),
        MulticlassAccuracy(7, ignore_index=255): scores.mean_accuracy(matrix),
        MulticlassAccuracy(7, ignore_index=255, average="micro"): scores.pixel_accuracy(matrix),
    }
    for peer, ours in peers.items():
        assert float(ours) == pytest.approx(float(peer(torch.from_numpy(prediction), torch.from_numpy(label).int())))
