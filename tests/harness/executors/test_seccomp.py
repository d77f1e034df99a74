"""The seccomp profile of containers; `tests/hostile` makes the calls in a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.harness.executors.base import Allocation, StageLaunch, Stop
from pretrain_bench.harness.executors.docker import SECCOMP, DockerExecutor
from pretrain_bench.harness.executors.podman import PodmanExecutor
from tests.harness.store.test_store import spec

BUDGET = BudgetHalf(currency="optimizer_steps", optimizer_steps=1)
ESCAPES = {
    "io_uring_setup", "io_uring_enter", "io_uring_register", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "bpf",
    "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "mount", "move_mount", "fsopen", "open_tree", "umount2",
    "pivot_root", "unshare", "setns", "clone3", "open_by_handle_at", "init_module", "finit_module", "kexec_load",
}  # fmt: skip
"""Calls used by known escapes from containers, or to access the memory of other processes."""


class _Engine:
    def info(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("executor", [DockerExecutor, PodmanExecutor])
def test_every_container_has_the_profile(
    executor: type[DockerExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.executors.docker.remove_orphans", lambda *_: None)
    monkeypatch.setattr("pretrain_bench.harness.executors.docker.mounts_of", lambda _: [])
    launch = StageLaunch(tmp_path, spec(), BUDGET, tmp_path / "log", lambda _: None, Allocation(stop=Stop()))
    options = executor(_Engine())._settings(launch)["security_opt"]  # type: ignore[arg-type]
    assert "no-new-privileges" in options
    (given,) = [o.removeprefix("seccomp=") for o in options if o.startswith("seccomp=")]
    text = given if executor is DockerExecutor else Path(given).read_text()  # podman reads the file itself
    assert json.loads(text) == json.loads(SECCOMP.read_text())


def test_the_profile_refuses_what_escapes_use() -> None:
    profile = json.loads(SECCOMP.read_text())
    always = {n for rule in profile["syscalls"] if not rule.get("args") for n in rule["names"]}
    assert always >= ESCAPES and all(rule["action"] == "SCMP_ACT_ERRNO" for rule in profile["syscalls"])
    flags = [rule["args"][0]["value"] for rule in profile["syscalls"] if rule["names"] == ["clone"]]
    assert sum(flags) == 0x7E020000, "every namespace flag of clone but that of time, which clone does not take"
