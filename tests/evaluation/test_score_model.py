from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from segraft.data.packed import Packed, PackedDataset, ShardWriter
from segraft.errors import UserError
from segraft.evaluation import scores
from segraft.evaluation.confusion import confusion
from segraft.evaluation.predict import Predictor
from segraft.evaluation.run import score


@pytest.fixture(scope="module")
def scored(transfer):
    return score(transfer / "models" / "finetuned", transfer / "packed", "test", batch_size=3, threads=1)


def test_everything_follows_from_the_matrices_of_the_images(scored, transfer):
    samples = list(PackedDataset(transfer / "packed").split("test"))
    predictor = Predictor(transfer / "models" / "finetuned", threads=1)
    matrices = np.stack([confusion(s.mask, predictor([s.image])[0], 3) for s in samples])
    assert scored.ids == tuple(s.id for s in samples)
    assert scored.matrix.sum() == matrices.sum()
    assert scored.miou == pytest.approx(float(scores.miou(matrices.sum(0))), abs=0.02)
    assert scored.image_miou == pytest.approx(scores.miou(matrices), abs=0.05)
    rainy = ["rain <i>" in s.tags for s in samples]
    slices = scored.as_json()["slices"]
    assert slices["rain <i>"] == pytest.approx(float(scores.miou(matrices[rainy].sum(0))), abs=0.03)
    assert slices["night"] == pytest.approx(scored.miou)


def test_counts_are_of_the_images_in_their_order(scored):
    assert np.array_equal(scored.counts.sum(0), scores.counts(scored.matrix))
    labelled = [int((s != 255).sum()) for s in scored_masks(scored)]
    assert scored.counts[:, 1].sum(-1).tolist() == labelled


def scored_masks(scored):
    sizes = [(48, 64) if int(name[5]) % 3 else (40, 72) for name in scored.ids]
    return [np.concatenate([np.full((3, w), 255), np.zeros((h - 3, w))]) for h, w in sizes]


def test_json_holds_no_nan_and_names_every_class(scored):
    text = json.dumps(scored.as_json(), allow_nan=False)
    assert list(json.loads(text)["iou"]) == ["road", "sky <b>&", "car"]


def test_other_classes_are_refused(transfer, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(transfer / "models" / "finetuned", model)
    card = json.loads((model / "model.json").read_text())
    card["taxonomy"] = "lanes"
    for number, entry in enumerate(card["classes"]):
        entry["name"] = f"lane {number}"
    (model / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"model: knows the classes of lanes, .*write maps\.lanes in"):
        score(model, transfer / "packed", "test", 2)


def test_an_empty_split_is_refused(transfer):
    with pytest.raises(UserError, match="split gold has no samples"):
        score(transfer / "models" / "finetuned", transfer / "packed", "gold", 2)


def test_masks_of_ignored_pixels_alone_are_refused(transfer, tmp_path):
    packed = tmp_path / "packed"
    writer = ShardWriter(packed, "test", 3, "raw", 1)
    writer.add(Packed("a", "g", (), np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 255, np.uint8)))
    card = PackedDataset(transfer / "packed").card.model_copy(update={"splits": {"test": writer.close()}})
    (packed / "dataset.json").write_text(json.dumps(card.model_dump()))
    with pytest.raises(UserError, match="ignored pixels alone"):
        score(transfer / "models" / "finetuned", packed, "test", 2)
