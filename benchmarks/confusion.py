"""Confusion matrix of one 1024×2048 image with 19 classes: ours against its peers, interleaved, in one process.

    python benchmarks/confusion.py

Every peer must give the same matrix, or the same mIoU, before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from segraft.evaluation.confusion import confusion
from segraft.evaluation.scores import miou

CLASSES, HEIGHT, WIDTH, IGNORE, ROUNDS = 19, 1024, 2048, 255, 7
TARGET = 50


def example() -> tuple[Any, Any]:
    """Blocks like those of a street scene, a prediction that is wrong on a tenth of them; all classes, no void."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, CLASSES, (HEIGHT // 16, WIDTH // 32), dtype=np.uint8)
    label = np.kron(blocks, np.ones((16, 32), np.uint8))
    wrong = rng.random(label.shape) < 0.1
    return label, np.where(wrong, rng.integers(0, CLASSES, label.shape, dtype=np.uint8), label)


def torchvision_reference(label: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """ConfusionMatrix.update of torchvision's references/segmentation/utils.py."""
    a, b = label.flatten(), prediction.flatten()
    k = (a >= 0) & (a < CLASSES)
    inds = CLASSES * a[k].to(torch.int64) + b[k]
    return torch.bincount(inds, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def packed_bincount(label: Any, prediction: Any) -> Any:
    packed = label.astype(np.uint16) * 256 + prediction
    return np.bincount(packed.ravel(), minlength=65536).reshape(256, 256)[:CLASSES, :CLASSES]


def main() -> None:
    label, prediction = example()
    a, b = torch.from_numpy(label).long()[None], torch.from_numpy(prediction).long()[None]
    ours = confusion(label, prediction, CLASSES, IGNORE)
    mean_iou = MeanIoU(num_classes=CLASSES, input_format="index")
    jaccard = MulticlassJaccardIndex(CLASSES, ignore_index=IGNORE, validate_args=False)
    runs: dict[str, Callable[[], Any]] = {
        "torchmetrics MeanIoU": lambda: mean_iou.update(b, a),
        "torchmetrics MulticlassJaccardIndex": lambda: jaccard.update(b, a),
        "torchvision references": lambda: torchvision_reference(a, b),
        "numpy bincount of packed pairs": lambda: packed_bincount(label, prediction),
        "segraft confusion": lambda: confusion(label, prediction, CLASSES, IGNORE),
    }
    for run in runs.values():
        run()
    assert np.array_equal(ours, torchvision_reference(a, b).numpy())
    assert np.array_equal(ours, packed_bincount(label, prediction))
    for metric in (mean_iou, jaccard):
        assert abs(float(metric.compute()) - float(miou(ours))) < 1e-5, metric

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = median["segraft confusion"]
    print(f"{HEIGHT}×{WIDTH}, {CLASSES} classes; medians of {ROUNDS} interleaved rounds")
    for name, value in median.items():
        print(f"{name:<38} {1e3 * value:9.1f} ms   {value / best:7.1f} × segraft")
    ratio = median["torchmetrics MeanIoU"] / best
    print(f"segraft is {ratio:.0f} × torchmetrics MeanIoU (target: {TARGET} ×)")
    raise SystemExit(0 if ratio >= TARGET else 1)


if __name__ == "__main__":
    main()
