"""Limits of this process: affinity and control groups, version 1 and 2, on a machine and in a container."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pretrain_bench.benchmarks.support import process_limits

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(process_limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(process_limits, "OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GIB))
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".", 1)).write_text(f"{content}\n")


def limits() -> tuple[int, int, int]:
    memory = process_limits.usable_memory_bytes() // GIB
    return process_limits.usable_cpus(), memory, process_limits.killed_for_memory()


def test_without_control_groups_the_machine_and_the_affinity_count(groups: Path) -> None:
    assert limits() == (8, 64, 0)


def test_version_2_takes_the_least_of_all_groups_above(groups: Path) -> None:
    (groups / "self").write_text("0::/batch/job\n")
    write(groups / "cgroup", cpu__max="max 100000")
    write(groups / "cgroup/batch", cpu__max="250000 100000", memory__max="8589934592")
    write(groups / "cgroup/batch/job", cpu__max="max 100000", memory__max="max", memory__events="oom 3\noom_kill 2")
    assert limits() == (2, 8, 2)
    write(groups / "cgroup/batch/job", cpu__max="50000 100000")
    assert limits() == (1, 8, 2), "half a processor is still one"


def test_version_1_in_a_container_whose_path_is_the_hosts(groups: Path) -> None:
    (groups / "self").write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n")
    write(groups / "cgroup/cpu", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    write(groups / "cgroup/memory", memory__limit_in_bytes="4294967296", memory__oom_control="under_oom 0\noom_kill 1")
    assert limits() == (3, 4, 1)
    write(groups / "cgroup/cpu", cpu__cfs_quota_us="-1")
    write(groups / "cgroup/memory", memory__limit_in_bytes="9223372036854771712")
    assert limits()[:2] == (8, 64), "no limit"


def test_the_affinity_counts_where_it_is_less(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups / "self").write_text("0::/\n")
    write(groups / "cgroup", cpu__max="400000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert process_limits.usable_cpus() == 1
