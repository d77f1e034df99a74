"""In Docker: each hostile stage ends within its limits with the right outcome, and the next run succeeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.harness.executors import container_owner
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.store.store import LOG, Store
from tests.harness.executors.test_bubblewrap import launch_in
from tests.hostile.cases import CAPS, cases_in, check_case, check_system_calls
from tests.hostile.sandboxes import InEngine


@pytest.mark.parametrize("case", cases_in("docker"))
def test_a_hostile_stage(case: str, in_docker: InEngine, planned: PlannedStage, tmp_path: Path) -> None:
    check_case(in_docker, "docker", case, planned, tmp_path)


def test_the_output_of_a_stage_is_on_a_file_system_of_its_own_size(
    in_docker: InEngine, planned: PlannedStage, tmp_path: Path
) -> None:
    """A writer that the watcher misses stops at the size of the file system, slightly above its cap."""
    if not in_docker.executor({}).limits_disk:
        pytest.skip("this user may not mount a file system")
    store = Store(tmp_path / "runs")
    record = in_docker.run("disk_at_once", planned, store)
    log = (store.folder("pretrain", planned.spec.key) / LOG).read_text()
    (wrote,) = [int(line.split()[1]) for line in log.splitlines() if line.startswith("wrote ")]
    assert CAPS.disk_mib is not None and CAPS.disk_mib < wrote < CAPS.disk_mib * 1.2 + 20, log
    assert record.outcome == "over_budget" and "disk" in record.message
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line], "left mounted"
    assert "disk" not in " ".join(record.not_enforced)


def test_system_calls_that_no_stage_needs_are_refused(
    in_docker: InEngine, planned: PlannedStage, tmp_path: Path
) -> None:
    check_system_calls(in_docker, planned, tmp_path)


def test_a_stage_stays_on_the_processors_that_the_harness_was_given(
    in_docker: InEngine, planned: PlannedStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a stage that requests all CPUs."""
    last = max(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {last})
    assert in_docker.run("processors", planned, Store(tmp_path / "runs")).outcome == "ok"
    log = (Store(tmp_path / "runs").folder("pretrain", planned.spec.key) / LOG).read_text()
    assert f"processors [{last}]" in log


LOADS = """
import _ctypes, ctypes, os, shutil
for folder in (os.environ["TRITON_CACHE_DIR"], "/tmp"):
    try:
        ctypes.CDLL(shutil.copy(_ctypes.__file__, folder))
        print(folder, "loaded")
    except OSError:
        print(folder, "refused")
"""


def test_a_gpu_stage_can_load_what_triton_compiles(in_docker: InEngine, planned: PlannedStage, tmp_path: Path) -> None:
    """The engine mounts /tmp without the right to execute; Triton's cache has it."""
    spec = planned.spec.model_copy(update={"device": "cuda"})
    settings = in_docker.executor({})._settings(launch_in(tmp_path, spec))
    assert settings.pop("device_requests"), "no GPU here"
    run = in_docker.engine.containers.run
    said = run(in_docker.base, ["-c", LOADS], entrypoint="python3", remove=True, **settings)
    assert said.decode().splitlines() == ["/triton loaded", "/tmp refused"]
    on_cpu = in_docker.executor({})._settings(launch_in(tmp_path, planned.spec))
    assert list(on_cpu["tmpfs"]) == ["/tmp"] and "TRITON_CACHE_DIR" not in on_cpu["environment"]


def test_a_container_that_a_killed_harness_left_is_removed(engine: Any, in_docker: InEngine) -> None:
    dead = f"{container_owner.owner(os.getpid()).rpartition(':')[0]}:12.34"
    left = engine.containers.run(
        in_docker.base,
        ["hangs"],
        detach=True,
        labels={container_owner.OWNER_LABEL: dead, container_owner.KEY_LABEL: "k"},
    )
    kept = engine.containers.run(
        in_docker.base, ["hangs"], detach=True, labels={container_owner.OWNER_LABEL: container_owner.owner(os.getpid())}
    )
    copied = left.commit("bench-hostile", "copied")
    of_user = engine.containers.run(copied.id, ["hangs"], detach=True)
    try:
        assert container_owner.remove_orphans(engine) == ["k"]
        names = [c.id for c in engine.containers.list(all=True, filters={"label": container_owner.OWNER_LABEL})]
        assert set(names) == {kept.id, of_user.id} and left.id not in names
    finally:
        kept.remove(force=True)
        of_user.remove(force=True)
        engine.images.remove(copied.id, force=True)
