from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.evaluation.predict import POOL, Predictor, batches, predict
from segraft.params import load_params
from segraft.training.batchnorm import to_group_norm

CARD = ModelCard(
    arch="unet",
    encoder="resnet18",
    taxonomy="toy",
    classes=tuple(ClassCard(name=name, color=(0, 0, 0)) for name in ("red", "green", "blue")),
    preprocessing=Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)),
)


class Strongest(torch.nn.Module):
    """A pixel's class is its strongest normalised channel; remembers the shapes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        assert x.is_contiguous(memory_format=torch.channels_last)
        return x


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def expected(image: np.ndarray) -> np.ndarray:
    how = CARD.preprocessing
    return ((image / np.float32(255) - np.float32(how.mean)) / np.float32(how.std)).argmax(-1)


def test_pads_cuts_back_and_normalises_as_the_card_says():
    model = Strongest()
    images = noise((33, 40), (64, 64), (50, 63), (1, 1), (96, 32))
    masks = predict(model, CARD, images)
    for image, mask in zip(images, masks, strict=True):
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected(image))
    assert sorted(model.seen) == [(1, 3, 32, 32), (1, 3, 96, 32), (3, 3, 64, 64)]


def test_no_images():
    assert predict(Strongest(), CARD, []) == []


@dataclass
class Sized:
    """All that `batches` looks at."""

    image: np.ndarray


def test_batches_are_of_one_padded_size_and_miss_nothing():
    samples = [Sized(image) for image in noise(*[(40, 40), (64, 33), (10, 90), (40, 40), (70, 70)] * 4)]
    made = list(batches(samples, 3))
    assert sorted(id(s) for batch in made for s in batch) == sorted(id(s) for s in samples)
    for batch in made:
        assert len(batch) <= 3
        assert len({tuple(-(-side // 32) for side in s.image.shape[:2]) for s in batch}) == 1


def test_memory_is_bounded_when_every_image_has_its_own_size():
    read = 0

    def stream():
        nonlocal read
        for i in range(1, 60):
            read += 1
            yield Sized(np.zeros((32 * i, 1, 3), np.uint8))

    given = 0
    for batch in batches(stream(), 2):
        given += len(batch)
        assert read - given <= 2 * POOL
    assert given == 59


def test_statistics_are_adapted_to_windows_where_windows_are_predicted(transfer):
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    how = params.evaluate.model_copy(update={"adapt_batch_norm": True, "window": (32, 32)})
    predictor, seen = Predictor(transfer / "models" / "finetuned", threads=1, how=how), set()
    predictor.model.register_forward_pre_hook(lambda model, inputs: seen.add(tuple(inputs[0].shape)))
    predictor.adapt([Sized(image) for image in noise((48, 64), (40, 72))], 2)
    assert {shape[2:] for shape in seen} == {(32, 32)}


def test_statistics_that_there_are_not_are_named(transfer, capsys):
    how = load_params(Path(__file__).parents[2] / "params.yaml").evaluate.model_copy(update={"adapt_batch_norm": True})
    predictor = Predictor(transfer / "models" / "finetuned", threads=1, how=how)
    to_group_norm(predictor.model)
    predictor.adapt([Sized(image) for image in noise((48, 64))], 2)
    assert "without effect: evaluate.adapt_batch_norm: finetuned has no BatchNorm" in capsys.readouterr().out


def test_a_model_folder_gives_the_same_answer_alone_and_in_a_batch(transfer):
    predictor = Predictor(transfer / "models" / "finetuned", threads=1)
    images = noise((48, 64), (48, 64), (40, 72))
    together = predictor(images)
    alone = [predictor([image])[0] for image in images]
    same = np.mean([np.mean(a == b) for a, b in zip(together, alone, strict=True)])
    assert [mask.shape for mask in together] == [(48, 64), (48, 64), (40, 72)]
    assert same == pytest.approx(1, abs=0.02)  # kernels differ by batch size; random weights leave many ties
