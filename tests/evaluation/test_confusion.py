from __future__ import annotations

import numpy as np
import pytest

from segraft.evaluation.confusion import CHUNK, ConfusionMatrix, confusion


def count_one_by_one(label, prediction, classes, ignore_index=255):
    matrix = np.zeros((classes, classes), np.int64)
    for row, column in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if row != ignore_index:
            matrix[row, column] += 1
    return matrix


def test_rows_are_labels_and_columns_are_predictions():
    label, prediction = np.array([[0, 1, 1, 255]], np.uint8), np.array([[0, 0, 2, 1]], np.uint8)
    matrix = confusion(label, prediction, classes=3)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("classes", [2, 19, 250])
@pytest.mark.parametrize("shape", [(37, 41), (3, 8, 16), (0, 5)])
def test_agrees_with_counting_one_by_one(classes, shape):
    rng = np.random.default_rng(classes)
    label, prediction = (rng.integers(0, classes, shape, dtype=np.uint8) for _ in range(2))
    label[rng.random(shape) < 0.2] = 255
    assert np.array_equal(confusion(label, prediction, classes), count_one_by_one(label, prediction, classes))


def test_takes_views_that_are_not_contiguous_or_writeable():
    rng = np.random.default_rng(0)
    label, prediction = (rng.integers(0, 4, (20, 30), dtype=np.uint8) for _ in range(2))
    label.flags.writeable = False
    expected = count_one_by_one(label[::2, ::3], prediction[::2, ::3], 4)
    assert np.array_equal(confusion(label[::2, ::3], prediction[::2, ::3], 4), expected)


def test_is_exact_where_float32_is_not():
    size = 2 * CHUNK + 1
    label = np.zeros((1, size), np.uint8)
    assert float(np.float32(size)) != size
    assert confusion(label, label, 2).tolist() == [[size, 0], [0, 0]]


def test_an_ignore_index_that_is_a_class_counts_nowhere():
    label, prediction = np.array([[0, 1, 2]], np.uint8), np.array([[1, 1, 1]], np.uint8)
    assert confusion(label, prediction, 3, ignore_index=0).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_predictions_on_ignored_pixels_may_be_anything():
    assert confusion(np.array([[255]], np.uint8), np.array([[200]], np.uint8), 3).sum() == 0


@pytest.mark.parametrize(("name", "label", "prediction"), [("label", 11, 0), ("prediction", 0, 3)])
def test_a_value_that_is_no_class_is_named(name, label, prediction):
    with pytest.raises(ValueError, match=rf"{name}: found \[{max(label, prediction)}\]"):
        confusion(np.array([[label, 0]], np.uint8), np.array([[prediction, 0]], np.uint8), 3)


@pytest.mark.parametrize("prediction", [np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.int64)])
def test_another_shape_or_dtype_is_refused(prediction):
    with pytest.raises(ValueError, match="expected uint8 of one shape"):
        confusion(np.zeros((2, 2), np.uint8), prediction, 3)


def test_a_stream_adds_up_to_the_whole():
    rng = np.random.default_rng(1)
    label, prediction = (rng.integers(0, 5, (6, 9, 9), dtype=np.uint8) for _ in range(2))
    stream = ConfusionMatrix(5)
    for i in range(0, 6, 2):
        stream.update(label[i : i + 2], prediction[i : i + 2])
    assert np.array_equal(stream.matrix, confusion(label, prediction, 5))
