import errno
import resource

import pytest
import torch

from segraft.training import checkpoints
from segraft.training.checkpoints import CheckpointStore

PARTS = {"model": {"w": torch.arange(4.0)}, "optimizer": {}}


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path, "ab" * 32)
    yield store
    store.close(finished=False)


def steps(store):
    return [path.name for path in store._steps()]


def test_round_trip_keeps_the_last_two(store):
    for step in (1, 2, 3):
        store.save(step, {"model": {"w": torch.full((2,), float(step))}}, {"step": step})
    parts, state = store.load()
    assert state == {"step": 3} and torch.equal(parts["model"]["w"], torch.full((2,), 3.0))
    assert steps(store) == ["step_00000003", "step_00000002"]


def test_the_same_step_again_replaces_what_was_there(store):
    store.save(1, PARTS, {"step": 1})
    (store._folder / "step_00000001" / "model.safetensors").write_bytes(b"damaged")
    store.save(1, PARTS, {"step": 1, "again": True})
    assert store.load()[1] == {"step": 1, "again": True} and steps(store) == ["step_00000001"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "sha256.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_loaded(store, capsys, name, damage):
    for step in (1, 2):
        store.save(step, PARTS, {"step": step})
    path = store._folder / "step_00000002" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-3])
    assert store.load()[1] == {"step": 1}
    assert "step_00000002 is damaged" in capsys.readouterr().out


def test_a_full_disk_leaves_the_earlier_checkpoint(store, monkeypatch):
    store.save(1, PARTS, {"step": 1})

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(2, PARTS, {"step": 2})
    assert steps(store) == ["step_00000001"] and not list(store._folder.glob("*.tmp"))
    assert store.load()[1] == {"step": 1}


def test_tensors_that_the_disk_has_no_room_for_are_an_oserror_that_names_the_file(store):
    store.save(1, PARTS, {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors") as refused:
            store.save(2, {"model": {"w": torch.zeros(1 << 16)}}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno == errno.EFBIG
    assert steps(store) == ["step_00000001"] and not list(store._folder.glob("*.tmp"))


def test_strays_of_a_killed_save_are_removed(tmp_path):
    stray = tmp_path / ("ab" * 8) / "step_00000009.tmp"
    stray.mkdir(parents=True)
    store = CheckpointStore(tmp_path, "ab" * 32)
    assert not stray.exists() and store.load() is None
    store.close(finished=True)


def test_checkpoints_of_another_fingerprint_are_dropped_with_a_word(tmp_path, capsys):
    first = CheckpointStore(tmp_path, "ab" * 32)
    first.save(1, PARTS, {})
    first.close(finished=False)
    second = CheckpointStore(tmp_path, "cd" * 32)
    assert second.load() is None
    assert f"{'ab' * 8}: checkpoints of a run with other params" in capsys.readouterr().out
    second.close(finished=True)
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]
