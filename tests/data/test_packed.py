import json

import fsspec
import numpy as np
import pytest

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


def test_an_object_store_gives_the_same_batches_from_a_checked_cache(tmp_path):
    local = pack(tmp_path / "local", train=120)
    remote = fsspec.filesystem("memory")
    remote.put(str(local), "/bucket/set", recursive=True)
    dataset = PackedDataset("memory://bucket/set", cache=tmp_path / "cache")
    ours, theirs = Loader(dataset, 8, seed=1), Loader(PackedDataset(local), 8, seed=1)
    for step in (0, 3):
        assert np.array_equal(ours.batch(step).images, theirs.batch(step).images)
    assert list((tmp_path / "cache").glob("*.arrow"))
    remote.pipe_file("/bucket/set/val-00000.arrow", b"damaged")
    with pytest.raises(UserError, match=r"val-00000.arrow: damaged"):
        dataset.split("val")[0]
    assert not list((tmp_path / "cache").glob("*.part"))


def test_loader_is_a_pure_function_of_the_step(tmp_path):
    dataset = PackedDataset(pack(tmp_path, train=7))
    ahead = list(Loader(dataset, 4, seed=3, threads=3).batches(0, 6))
    for step in (5, 2, 0):
        again = Loader(dataset, 4, seed=3).batch(step)
        assert np.array_equal(ahead[step].images, again.images) and np.array_equal(ahead[step].masks, again.masks)
    assert not np.array_equal(ahead[0].images, Loader(dataset, 4, seed=4).batch(0).images)
    assert ahead[0].images.shape == (4, 64, 64, 3) and ahead[0].masks.shape == (4, 64, 64)


def test_each_pass_shows_each_sample_once_in_another_order(tmp_path):
    loader = Loader(PackedDataset(pack(tmp_path, train=120)), 4, seed=3)
    first, second = loader.order(0), loader.order(1)
    assert sorted(first) == sorted(second) == list(range(120))
    assert not np.array_equal(first, second) and np.array_equal(first, loader.order(0))
