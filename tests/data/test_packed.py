import json
import re
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segraft.data import packed
from segraft.data.loader import Loader
from segraft.data.packed import CARD, PackedDataset
from segraft.errors import UserError
from tests.training.conftest import disc, pack


@pytest.mark.parametrize(("codec", "tolerance"), [("raw", 0), ("jpeg", 40)])
def test_round_trip(tmp_path, codec, tolerance):
    dataset = PackedDataset(pack(tmp_path, train=5, codec=codec))
    assert [s.id for s in dataset.split("train")] == [f"disc_{i:03d}" for i in range(5)]
    for seed, sample in enumerate(dataset.split("train")):
        expected = disc(seed)
        assert np.array_equal(sample.mask, expected.mask)
        assert np.abs(sample.image.astype(int) - expected.image).mean() <= tolerance
        assert (sample.group, sample.tags) == ("discs", ())


def test_class_pixels_leave_out_the_ignored(tmp_path):
    split = PackedDataset(pack(tmp_path, train=3)).card.splits["train"]
    masks = np.stack([disc(seed).mask for seed in range(3)])
    assert split.class_pixels == ((masks == 0).sum(), (masks == 1).sum())


def test_many_shards_read_as_one_and_indices_are_checked(tmp_path):
    folder = pack(tmp_path, train=120)
    split = PackedDataset(folder).split("train")
    assert len(split.card.shards) > 2 and len(list(split)) == len(split) == 120
    assert split[119].id == "disc_119" and np.array_equal(split[50].mask, disc(50).mask)
    for index in (-1, 120):
        with pytest.raises(IndexError):
            split[index]


def test_samples_have_sizes_of_their_own_and_are_read_only(tmp_path):
    sample = PackedDataset(pack(tmp_path)).split("val")[0]
    assert sample.image.shape == (72, 100, 3) and not sample.image.flags.writeable


def test_a_fingerprint_changes_with_the_pixels_and_with_the_augmentations(tmp_path):
    prints = {PackedDataset(pack(tmp_path / str(n), train=n)).card.fingerprint for n in (3, 4)}
    card = PackedDataset(tmp_path / "3").card
    prints.add(card.model_copy(update={"crop": (32, 32)}).fingerprint)
    assert len(prints) == 3
    assert PackedDataset(pack(tmp_path / "again", train=3)).card.fingerprint == card.fingerprint


def test_the_card_is_documented():
    text = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
    told = text.partition("`dataset.json` holds")[2].partition("The dataset's fingerprint")[0]
    fields = {*packed.DatasetCard.model_fields, *packed.SplitCard.model_fields}
    assert fields == set(re.findall(r"`(\w+)`", told))


def test_not_a_packed_dataset(tmp_path):
    with pytest.raises(UserError, match=r"not a packed dataset: it has no dataset.json; run the augment step"):
        PackedDataset(tmp_path)
    pack(tmp_path)
    content = json.loads((tmp_path / CARD).read_text()) | {"format": 2}
    (tmp_path / CARD).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"dataset.json.format"):
        PackedDataset(tmp_path)


def test_a_shard_cannot_be_named_outside_the_folder(tmp_path):
    pack(tmp_path)
    text = (tmp_path / CARD).read_text().replace("train-00000.arrow", "../train-00000.arrow")
    (tmp_path / CARD).write_text(text)
    with pytest.raises(UserError, match=r"shards.0.file"):
        PackedDataset(tmp_path)


def test_an_object_store_gives_the_same_batches_from_a_checked_cache(tmp_path, monkeypatch):
    local = pack(tmp_path / "local", train=120)
    remote = fsspec.filesystem("memory")
    remote.put(str(local), "/bucket/set", recursive=True)
    dataset = PackedDataset("memory://bucket/set", cache=tmp_path / "cache")
    ours, theirs = Loader(dataset, 8, seed=1), Loader(PackedDataset(local), 8, seed=1)
    for step in (0, 3):
        assert np.array_equal(ours.batch(step).images, theirs.batch(step).images)
    assert list((tmp_path / "cache").glob("*.arrow"))
    remote.pipe_file("/bucket/set/val-00000.arrow", b"damaged")
    monkeypatch.setattr(packed, "PAUSES", (0.0,))
    with pytest.raises(UserError, match=r"val-00000.arrow: cannot be fetched: damaged"):
        dataset.split("val")[0]
    assert not list((tmp_path / "cache").glob("*.part"))
    dataset.close()
    assert not (tmp_path / "cache").exists() and len(list(local.iterdir())) > 3


class Flaky(MemoryFileSystem):
    """A store whose connection breaks in the middle of a file, as often as is asked."""

    protocol = "flaky"
    breaks = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def get_file(self, path, local, **options):
        if Flaky.breaks:
            Flaky.breaks -= 1
            Path(local).write_bytes(self.cat_file(path)[:99])
            raise ConnectionResetError("connection reset by peer")
        super().get_file(path, local, **options)


def test_a_broken_connection_is_tried_again_and_again_when_the_shard_is_asked_for(tmp_path, monkeypatch):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(packed, "PAUSES", (0.0, 0.0))
    fsspec.filesystem("flaky").put(str(pack(tmp_path / "local")), "/flaky/set", recursive=True)
    split = PackedDataset("flaky://flaky/set", cache=tmp_path / "cache").split("train")
    monkeypatch.setattr(Flaky, "breaks", 4)
    with pytest.raises(UserError, match=r"flaky://flaky/set/train-00000.arrow: cannot be fetched: connection reset"):
        split[0]
    assert not list((tmp_path / "cache").iterdir())
    assert split[0].id == "disc_000" and Flaky.breaks == 0
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".arrow"]


def test_a_cached_shard_that_was_damaged_is_fetched_again(tmp_path):
    local = pack(tmp_path / "local")
    first = PackedDataset(f"file://{local}", cache=tmp_path / "cache").split("val")[0]
    cached = next((tmp_path / "cache").iterdir())
    cached.write_bytes(cached.read_bytes()[:-9])
    again = PackedDataset(f"file://{local}", cache=tmp_path / "cache").split("val")[0]
    assert np.array_equal(first.image, again.image)


def test_a_damaged_or_missing_shard_is_named(tmp_path):
    folder = pack(tmp_path)
    path = folder / "train-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00000.arrow: damaged: .*dataset.json; run the augment step again"):
        PackedDataset(folder).split("train")[0]
    path.unlink()
    with pytest.raises(UserError, match=r"train-00000.arrow: missing, though dataset.json names it; run the augment"):
        PackedDataset(folder).split("train")[0]


def test_loader_is_a_pure_function_of_the_step(tmp_path):
    dataset = PackedDataset(pack(tmp_path, train=7))
    ahead = list(Loader(dataset, 4, seed=3, threads=3).batches(0, 6))
    for step in (5, 2, 0):
        again = Loader(dataset, 4, seed=3).batch(step)
        assert np.array_equal(ahead[step].images, again.images) and np.array_equal(ahead[step].masks, again.masks)
    assert not np.array_equal(ahead[0].images, Loader(dataset, 4, seed=4).batch(0).images)
    assert ahead[0].images.shape == (4, 64, 64, 3) and ahead[0].masks.shape == (4, 64, 64)


def test_splits_of_one_batch_are_cropped_and_coloured_by_chances_of_their_own(tmp_path):
    """The same images as labelled and as source ones: no crop is another's twin."""
    folder = pack(tmp_path, train=4)
    card = json.loads((folder / CARD).read_text())
    card["splits"]["source"] = card["splits"]["train"]
    (folder / CARD).write_text(json.dumps(card))
    loader = Loader(PackedDataset(folder), 8, seed=3, source_share=0.5)
    images = np.concatenate([loader.batch(step).images for step in range(4)])
    assert len({image.tobytes() for image in images}) == len(images)


def test_each_pass_shows_each_sample_once_in_another_order(tmp_path):
    loader = Loader(PackedDataset(pack(tmp_path, train=120)), 4, seed=3)
    first, second = loader.order(0), loader.order(1)
    assert sorted(first) == sorted(second) == list(range(120))
    assert not np.array_equal(first, second) and np.array_equal(first, loader.order(0))
