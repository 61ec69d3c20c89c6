"""Threads follow the container's limit, not the node's size."""

import os

import pytest

from segraft.machine import cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "wanted"), [("max 100000", ALL), ("50000 100000", 1), ("100000 100000", 1)])
def test_limit_of_version_2(tmp_path, text, wanted):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cores(tmp_path) == wanted


def test_a_part_of_a_core_rounds_up_but_not_beyond_what_is_bound(tmp_path):
    (tmp_path / "cpu.max").write_text(f"{100000 * ALL - 50000} 100000")
    assert cores(tmp_path) == ALL


@pytest.mark.parametrize(("quota", "wanted"), [("-1", ALL), ("100000", 1)])
def test_limit_of_version_1(tmp_path, quota, wanted):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cores(tmp_path) == wanted


def test_no_cgroup_is_no_limit(tmp_path):
    assert cores(tmp_path) == ALL
