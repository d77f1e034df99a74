"""Stages on scratch disks: the store receives complete files while they run and all files at the end, and the next attempt resumes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.contract.events import EVENTS_FILE, End, EventWriter
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import Allocation, Execution, StageLaunch, Stop
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running import scratch
from pretrain_bench.harness.running.capacity import demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.stage_runner import Cancelled, RunOptions, StageJob, StageRunner
from pretrain_bench.harness.store.hashes import hash_artifacts
from pretrain_bench.harness.store.store import Store
from tests.faults.in_process import SleepingInProcess
from tests.harness.running.sleeping import CAPACITY


class OnScratch(SleepingInProcess):
    """Records where it runs; with `stop`, saves its progress and ends early, like a stage that receives SIGTERM."""

    def __init__(self, stop: Stop | None = None) -> None:
        self.roots: list[Path] = []
        self.found: list[str] = []
        self.stop = stop

    def run(self, launch: StageLaunch) -> Execution:
        self.roots.append(launch.root)
        progress = launch.root / "out/progress"
        self.found.append(progress.read_text() if progress.is_file() else "")
        if self.stop is None:
            return super().run(launch)
        progress.write_text("7")
        EventWriter(launch.root / "out" / EVENTS_FILE).write(End(status="ok", stopped="soft_limit"))
        self.stop.ask()
        return Execution(0, None, False, Measured())


def job(cells: list[PlannedCell], stop: Stop) -> StageJob:
    planned = cells[0].stages[0]
    return StageJob(planned, planned.spec.key, demand(planned, CAPACITY), Allocation(stop))


def test_a_stage_on_scratch_leaves_the_same_record_and_resumes_from_the_store(
    cells: list[PlannedCell], tmp_path: Path
) -> None:
    store, disk = Store(tmp_path / "runs"), tmp_path / "disk"
    disk.mkdir()
    options = RunOptions(scratch=disk)
    stop = Stop()
    early = OnScratch(stop)
    with pytest.raises(Cancelled, match="resumes from its last checkpoint"):
        StageRunner(store, early, Silent(), options).run(job(cells, stop))
    key = cells[0].stages[0].spec.key
    attempt = store.last_attempt(key)
    assert attempt is not None and attempt.outcome == "cancelled"
    assert (store.partial(key) / "root/out/progress").read_text() == "7"
    assert (store.partial(key) / "root/in/stage.json").is_file(), "bench status reads it"
    executor = OnScratch()
    report = StageRunner(store, executor, Silent(), options).run(job(cells, Stop()))
    assert executor.found == ["7"] and all(r.is_relative_to(disk) for r in (*early.roots, *executor.roots))
    assert report.record.outcome == "ok" and report.record.attempt == 2
    folder = store.folder("pretrain", key)
    assert hash_artifacts(folder / "artifacts") == report.record.artifacts and (folder / EVENTS_FILE).is_file()
    assert not list(disk.iterdir()) and not store.partial(key).exists()
    plain = StageRunner(Store(tmp_path / "plain"), SleepingInProcess(), Silent(), RunOptions())
    assert plain.run(job(cells, Stop())).record.artifacts == report.record.artifacts


def test_a_stage_that_only_claims_to_have_been_asked_to_stop_is_not_cancelled(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.SIGNALS_SECONDS", 0.01)
    runner = StageRunner(Store(tmp_path), OnScratch(Stop()), Silent(), RunOptions("none"))
    with pytest.raises(EnvironmentCannot, match="or the method reports `stopped` by itself"):
        runner.run(job(cells, Stop()))


def test_copies_are_whole_and_follow_the_source(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "state").mkdir(parents=True)
    for name in ("state/checkpoint", EVENTS_FILE, "gone"):
        (source / name).write_text(name)
    copies = scratch._Copies(source, target)
    copies.copy()
    before = {name: (target / name).stat().st_ino for name in (EVENTS_FILE, "state/checkpoint")}
    (source / EVENTS_FILE).write_text("more")
    (source / "gone").unlink()
    os.mkfifo(source / "pipe")
    copies.copy(and_remove=True)
    after = {name: (target / name).stat().st_ino for name in (EVENTS_FILE, "state/checkpoint")}
    assert after["state/checkpoint"] == before["state/checkpoint"] and after[EVENTS_FILE] != before[EVENTS_FILE]
    assert (target / EVENTS_FILE).read_text() == "more" and sorted(os.listdir(target)) == [EVENTS_FILE, "state"]


def test_scratch_is_what_the_batch_system_names_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert scratch.scratch_for(tmp_path) is None
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert scratch.scratch_for(tmp_path) is None, "the same file system: a copy would gain nothing"
    monkeypatch.setenv("SLURM_TMPDIR", "/dev/shm")
    if os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev:
        assert scratch.scratch_for(tmp_path) == Path("/dev/shm")
