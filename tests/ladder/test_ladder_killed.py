"""A ladder that is killed in the middle of a cell."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from glob import glob
from pathlib import Path

import pytest
import yaml

from segraft.ladder.cells import Data, climb, source_pixels
from segraft.ladder.table import outcome
from segraft.params import load_params
from tests.ladder.test_ladder import SMALL, pretrained, target  # noqa: F401
from tests.test_contract import ROOT

KILLED = SMALL.model_copy(
    update={
        "finetune": SMALL.finetune.model_copy(update={"epochs": 2, "steps_per_epoch": 20, "checkpoint_every": 2}),
        "ladder": SMALL.ladder.model_copy(update={"seeds": (1,), "labels": (0.5,), "rungs": ("encoder", "full")}),
    }
)


def in_second_cell(work):
    """Whether one cell is done, and another has a checkpoint."""
    done = {path.stem for path in work.glob("cells/*.json")}
    saved = glob(f"{work}/work/*/**/step_" + 8 * "[0-9]", recursive=True)
    return bool(done) and any(Path(path).relative_to(work / "work").parts[0] not in done for path in saved)


@pytest.mark.slow
def test_a_ladder_killed_inside_a_cell_ends_with_the_same_table(tmp_path, target, pretrained, discs):  # noqa: F811
    """SIGKILL while the second cell trains: the first is kept, the second goes on from its checkpoint."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = KILLED.model_dump(mode="json", by_alias=True)
    params, work = tmp_path / "params.yaml", tmp_path / "work"
    params.write_text(yaml.safe_dump(values | {n: small[n] for n in ("model", "finetune", "ladder")}))
    command = [sys.executable, "-m", "segraft", "ladder", "--params", params, "--report", tmp_path / "report"]
    command += ["--source", discs, "--target", target, "--pretrained", pretrained, "--work", work]

    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while process.poll() is None and not in_second_cell(work):
        time.sleep(0.005)
    assert process.poll() is None, "it was to be killed while it trains"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (kept,) = work.glob("cells/*.json")
    written = kept.stat().st_mtime_ns

    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "resuming at step" in again.stdout and kept.stat().st_mtime_ns == written
    assert not list(work.glob("work/*"))

    quiet = Data(load_params(params), target, pretrained, source_pixels(pretrained, discs), tmp_path / "undisturbed")
    ours, theirs = (outcome(climb(replace(quiet, folder=folder))) for folder in (work, quiet.folder))
    assert [replace(row, seconds=0) for row in ours.rows] == [replace(row, seconds=0) for row in theirs.rows]
    assert all(f"{100 * row.score.mean:5.1f} % (" in again.stdout for row in theirs.rows)
