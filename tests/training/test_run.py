"""Whole training runs on a tiny dataset: they learn, they repeat, and a kill changes nothing."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from segraft.checkpoint import load_model, read_card
from segraft.data.loader import Loader
from segraft.errors import UserError
from segraft.params import Model, load_params
from segraft.steps import run
from segraft.training import run as run_module

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
MODEL = PARAMS.model.model_copy(update={"arch": "fcn", "encoder": "resnet18", "weights": "random"})
TRAINING = PARAMS.finetune.model_copy(
    update={"epochs": 3, "steps_per_epoch": 5, "batch_size": 4, "checkpoint_every": 2, "lr": 0.002, "threads": 1}
)


def pretrain(folder: Path, discs: Path | str, model: Model = MODEL, **changes: object) -> dict[str, float]:
    training = TRAINING.model_dump() | changes
    paths = {"dataset": discs, "work": folder / "work", "weights": folder / "model", "log": folder / "log"}
    return run("pretrain", {"model": model, "pretrain": training}, paths)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, discs):
    folder = tmp_path_factory.mktemp("trained")
    return folder, pretrain(folder, discs)


def test_learns_and_explains_itself(trained):
    folder, metrics = trained
    model, card = load_model(folder / "model")
    assert metrics["miou"] > 0.6 and metrics["steps"] == 15
    assert [c.name for c in card.classes] == ["ground", "disc"] and card.provenance["step"] == "pretrain"
    assert not model.training and not list((folder / "work").glob("*/step_*"))
    history = (folder / "log" / "history.jsonl").read_text()
    assert history.count('"val_miou"') == 3 and '"loss"' in history


def test_a_seed_gives_the_same_weights(trained, tmp_path, discs):
    pretrain(tmp_path, discs)
    assert read_card(tmp_path / "model") == read_card(trained[0] / "model")
    pretrain(tmp_path, discs, seed=8)
    assert read_card(tmp_path / "model").weights_sha256 != read_card(trained[0] / "model").weights_sha256


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_run
from segraft.training import loop

step, kill_at = loop.Run._step, {kill_at}
def killing(self, batch):
    step(self, batch)
    if self.progress.step == kill_at:
        os.kill(os.getpid(), {signal})
loop.Run._step = killing
test_run.pretrain(Path({folder!r}), {discs!r})
"""


def killed(folder: Path, discs: Path | str, kill_at: int, number: int) -> int:
    script = KILLED.format(
        tests=str(Path(__file__).parent), kill_at=kill_at, folder=str(folder), discs=str(discs), signal=int(number)
    )
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[2]).returncode


@pytest.mark.parametrize(("kill_at", "number"), [(3, signal.SIGKILL), (9, signal.SIGKILL), (7, signal.SIGTERM)])
def test_a_killed_run_ends_with_the_same_weights(trained, tmp_path, discs, kill_at, number):
    code = killed(tmp_path, discs, kill_at, number)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert not (tmp_path / "model").exists() and list((tmp_path / "work").glob("*/step_*"))
    pretrain(tmp_path, discs)
    assert read_card(tmp_path / "model") == read_card(trained[0] / "model")


def test_a_killed_run_on_an_object_store_goes_on_from_what_it_has_fetched(trained, tmp_path, discs):
    store = shutil.copytree(discs, tmp_path / "store")
    killed(tmp_path, f"file://{store}", 9, signal.SIGKILL)
    for shard in store.glob("*.arrow"):
        shard.unlink()
    pretrain(tmp_path, f"file://{store}")
    assert read_card(tmp_path / "model") == read_card(trained[0] / "model")
    assert not (tmp_path / "work/shards").exists()


def test_a_checkpoint_of_other_params_is_not_resumed(trained, tmp_path, discs):
    killed(tmp_path, discs, 7, signal.SIGKILL)
    metrics = pretrain(tmp_path, discs, epochs=1)
    assert metrics["steps"] == 5


def test_waiting_for_data_is_part_of_the_time(tmp_path, discs, monkeypatch):
    ready = Loader.batch
    monkeypatch.setattr(Loader, "batch", lambda self, step: time.sleep(0.5) or ready(self, step))
    metrics = pretrain(tmp_path, discs, epochs=1)
    assert metrics["seconds"] > 3 * 0.5 and metrics["images_per_second"] < 20 / (3 * 0.5)  # two wait while others end


def test_a_killed_run_goes_on_though_it_is_to_be_saved_more_rarely(trained, tmp_path, discs, capsys):
    killed(tmp_path, discs, 9, signal.SIGKILL)
    pretrain(tmp_path, discs, checkpoint_every=50)
    assert "resuming at step 8 of 15" in capsys.readouterr().out
    wanted, found = (read_card(folder / "model").weights_sha256 for folder in (trained[0], tmp_path))
    assert found == wanted


def test_nan_loss_is_an_error_and_leaves_no_checkpoint_of_it(tmp_path, discs):
    with pytest.raises(UserError, match=r"loss is (nan|inf)"):
        pretrain(tmp_path, discs, optimizer="sgd", lr=1e9, clip_norm=0.0, warmup="none")
    assert not (tmp_path / "model").exists()


def test_one_image_a_batch_is_refused_where_the_network_pools_it_to_one_value(tmp_path, discs):
    pooling = MODEL.model_copy(update={"arch": "deeplabv3plus"})
    with pytest.raises(UserError, match="batch_size: 1: this network pools"):
        pretrain(tmp_path, discs, pooling, batch_size=1)
    assert pretrain(tmp_path, discs, pooling, batch_size=1, epochs=1, batch_norm="frozen")["steps"] == 5


def test_early_stopping(tmp_path, discs):
    metrics = pretrain(tmp_path, discs, lr=1e-9, patience=1, epochs=9, ema=0.0)
    assert metrics["steps"] < 45


def test_a_run_that_has_stopped_early_does_not_go_on_when_it_is_taken_up_again(tmp_path, discs, monkeypatch):
    """It is killed after its last checkpoint, before its weights are written."""
    how = {"lr": 1e-9, "patience": 1, "epochs": 9, "ema": 0.0}
    metrics = pretrain(tmp_path / "whole", discs, **how)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "save_model", raising(KeyboardInterrupt))
        pretrain(tmp_path / "killed", discs, **how)
    gc.collect()  # the killed run lets go of its folder
    assert pretrain(tmp_path / "killed", discs, **how)["steps"] == metrics["steps"]
    assert read_card(tmp_path / "killed" / "model") == read_card(tmp_path / "whole" / "model")


def raising(error: type[BaseException]):
    def call(*args: object) -> None:
        raise error

    return call


def test_finetune_grafts_and_zero_epochs_change_nothing(trained, tmp_path, discs):
    paths = {"dataset": discs, "work": tmp_path / "work", "weights": tmp_path / "model", "log": tmp_path / "log"}
    training = TRAINING.model_copy(update={"epochs": 0})
    run("finetune", {"model": MODEL, "finetune": training}, paths | {"pretrained": trained[0] / "model"})
    after, before = read_card(tmp_path / "model"), read_card(trained[0] / "model")
    assert after.weights_sha256 == before.weights_sha256
    assert after.provenance["pretrained"] == before.weights_sha256


def test_two_runs_in_one_work_folder(tmp_path, discs):
    from segraft.training.checkpoints import CheckpointStore

    store = CheckpointStore(tmp_path / "work", "0123456789abcdef")
    with pytest.raises(UserError, match=f"process {os.getpid()} is training here"):
        pretrain(tmp_path, discs)
    store.close(finished=True)


def test_trains_from_an_object_store(trained, tmp_path, discs):
    import fsspec

    fsspec.filesystem("memory").put(str(discs), "/bucket/discs", recursive=True)
    pretrain(tmp_path, "memory://bucket/discs")
    assert read_card(tmp_path / "model") == read_card(trained[0] / "model")
