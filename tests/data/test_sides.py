"""A source that is packed in parts and joined is the source that is packed whole."""

import os

import numpy as np
import pytest

from segraft.data.loader import Loader
from segraft.data.packed import PackedDataset
from segraft.data.sides import Given, join, pack_source
from tests.steps.test_augment import AUGMENT, DATA, world  # noqa: F401


@pytest.fixture
def given(world):  # noqa: F811
    return Given(DATA, AUGMENT.model_copy(update={"shard_mb": 1}), world / "taxonomies", world / "manifest")


@pytest.mark.parametrize("parts", [3, 20])
def test_the_same_samples_in_the_same_order(given, world, tmp_path, parts):  # noqa: F811
    whole = pack_source(given, world / "source", tmp_path / "whole")
    folders = [tmp_path / str(number) for number in range(parts)]
    for number, folder in enumerate(folders):
        pack_source(given, world / "source", folder, (number, parts))
    card = join(folders, tmp_path / "joined")
    assert card.model_dump(exclude={"splits"}) == whole.model_dump(exclude={"splits"})
    one, other = PackedDataset(tmp_path / "whole"), PackedDataset(tmp_path / "joined")
    for split in whole.splits:
        assert [s.id for s in one.split(split)] == [s.id for s in other.split(split)]
        for a, b in zip(one.split(split), other.split(split), strict=True):
            assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) and a.tags == b.tags
        for counted in ("samples", "class_pixels", "shown_pixels"):
            assert getattr(card.splits[split], counted) == getattr(whole.splits[split], counted)
    assert Loader(other, 4, seed=0).batch(0).images.shape == (4, 64, 64, 3)


def test_shards_are_linked_where_that_is_possible_and_else_copied(given, world, tmp_path, monkeypatch):  # noqa: F811
    part = tmp_path / "part"
    pack_source(given, world / "source", part)
    join([part], tmp_path / "linked")
    [file] = (path.name for path in part.glob("train*"))
    assert (tmp_path / "linked" / file).samefile(part / file)

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    join([part], tmp_path / "copied")
    assert (tmp_path / "copied" / file).read_bytes() == (part / file).read_bytes()
    assert not (tmp_path / "copied" / file).samefile(part / file)
