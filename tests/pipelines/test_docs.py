"""docs/kubeflow.md and --help: every command that they show is one."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from pipelines.graph import PIPELINES
from pipelines.run import EXAMPLES, arguments
from segraft.commands import plan, tune

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "kubeflow.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```console\n(.*?)^```", TEXT, re.M | re.S))


def commands(text, start):
    lines = [line.strip().removeprefix("$ ").split("  ")[0].split(" #")[0] for line in text.splitlines()]
    return [
        line.replace("…", "https://kubeflow.example.org")
        for line in lines
        if line.startswith(start) and not line.endswith(":")
    ]


@pytest.mark.parametrize("line", commands(BLOCKS + EXAMPLES, "python pipelines/run.py "))
def test_a_shown_run_is_one(line):
    assert arguments().parse_args(shlex.split(line)[2:]).pipeline in PIPELINES


@pytest.mark.parametrize("line", commands(BLOCKS, "segraft "))
def test_a_shown_segraft_command_is_one(line):
    name, *words = shlex.split(line)[1:]
    parser = argparse.ArgumentParser()
    {"plan": plan, "tune": tune}[name].arguments(parser)
    parser.parse_args(words)


def test_every_pipeline_is_in_the_table_and_every_option_in_the_help():
    assert all(f"| `{name}" in TEXT for name in PIPELINES)
    help_text = arguments().format_help()
    assert all(
        word in help_text for word in ("--plan", "--schedule", "KF_PIPELINES_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH")
    )
