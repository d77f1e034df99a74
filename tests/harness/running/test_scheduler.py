"""Many stages on one machine: each once, never more than there is room for, stopped and continued without loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.executors.base import Execution, StageLaunch
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import Cancelled, RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.suite import SLEEPER, planned

CAPACITY = Capacity(4, 1 << 20)


@pytest.fixture(scope="module")
def cells(s3dis_root: Path, cache: Path) -> list[PlannedCell]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    cells = planned(str(s3dis_root), seeds=1)
    monkeypatch.undo()
    return cells


class Watched(LocalExecutor):
    """Sleeping stages; notes how many run at once, and with which GPUs; may fail where it is told to."""

    def __init__(self, fail: Callable[[StageSpec], bool] = lambda _: False) -> None:
        super().__init__(SLEEPER)
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.gpus: list[tuple[str, ...]] = []
        self.held: set[str] = set()
        self.started: list[str] = []
        self.fail = fail

    def run(self, launch: StageLaunch) -> Execution:
        spec, allocation = launch.spec, launch.allocation
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            assert not self.held & set(allocation.gpus), "a GPU is given to one stage at a time"
            self.held |= set(allocation.gpus)
            self.gpus.append(allocation.gpus)
            self.started.append(spec.key)
        try:
            if self.fail(spec):
                raise EnvironmentCannot("the engine is gone")
            return super().run(launch)
        finally:
            with self.lock:
                self.now -= 1
                self.held -= set(allocation.gpus)


def run(
    cells: list[PlannedCell], runs: Path, executor: LocalExecutor, capacity: Capacity = CAPACITY
) -> list[StageReport]:
    return run_cells(cells, StageRunner(Store(runs), executor, Silent(), RunOptions("infra")), capacity)


def test_each_stage_runs_once_and_is_reused(cells: list[PlannedCell], tmp_path: Path) -> None:
    executor = Watched()
    reports = run(cells, tmp_path, executor)
    stages = {s.spec.key for c in cells for s in c.stages}
    assert len(stages) == 2 + 8 and sorted(executor.started) == sorted(stages)
    assert [r.record.outcome for r in reports] == ["ok"] * len(stages) and 1 < executor.most <= 4
    again = Watched()
    assert all(r.reused for r in run(cells, tmp_path, again)) and not again.started
    assert not list((tmp_path / ".partial").glob("[!.]*"))


@pytest.mark.parametrize(
    ("capacity", "most"),
    [(Capacity(1, 1 << 20), 1), (Capacity(2, 1 << 20), 2), (Capacity(8, 2 * 8192), 2), (Capacity(8, 100), 1)],
)
def test_no_more_than_there_is_room_for(
    cells: list[PlannedCell], tmp_path: Path, capacity: Capacity, most: int
) -> None:
    executor = Watched()
    run(cells, tmp_path, executor, capacity)
    assert executor.most <= most, f"each stage has a thread and 8,192 MiB; {capacity}"


def test_gpus_are_shared_out(cells: list[PlannedCell], tmp_path: Path) -> None:
    on_gpu = [
        c._replace(stages=tuple(s._replace(spec=s.spec.model_copy(update={"device": "cuda"})) for s in c.stages))
        for c in cells
    ]
    # A changed device changes the keys of parents, so only first stages are of use here.
    first = [c._replace(stages=c.stages[:1]) for c in on_gpu]
    executor = Watched()
    run(first, tmp_path, executor, Capacity(8, 1 << 20, ("0", "1")))
    assert {g for g in executor.gpus} <= {("0",), ("1",)}
    stage = first[0].stages[0]
    assert demand(stage, Capacity(8, 1 << 20, ("0", "1"))).gpus == 1
    uncapped = stage._replace(caps=stage.caps.model_copy(update={"memory_mib": None}))
    assert demand(uncapped, Capacity(8, 1 << 20, ("0", "1"))).memory_mib == 1 << 19, "its GPU's share"
    assert demand(uncapped._replace(spec=cells[0].stages[0].spec), Capacity(8, 1 << 20)).memory_mib == 1 << 20


def test_what_the_machine_breaks_off_is_tried_again_once_and_recorded(
    cells: list[PlannedCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain_bench.harness.running.stage_runner.PAUSE_SECONDS", 0.0)
    failures = [0]

    def once(spec: StageSpec) -> bool:
        failures[0] += 1
        return failures[0] == 1

    executor = Watched(once)
    reports = run(cells[:1], tmp_path, executor)
    first = reports[0].record
    assert first.outcome == "ok" and first.attempt == 2
    attempts = sorted((tmp_path / "pretrain" / first.key / "attempts").glob("*/record.json"))
    assert ["infra_error" in p.read_text() for p in attempts] == [True, False], "both attempts are kept"
    always = Watched(lambda _: True)
    with pytest.raises(EnvironmentCannot, match="the engine is gone"):
        run(cells[-1:], tmp_path / "other", always)
    assert len(always.started) == 2
    store, stage = Store(tmp_path / "other"), cells[-1].stages[0]
    last = store.last_attempt(stage.spec.key)
    assert last is not None and last.outcome == "infra_error"
    left_alone = run_cells(cells[-1:], StageRunner(store, always, Silent(), RunOptions("none")), CAPACITY)
    assert [r.record.outcome for r in left_alone] == ["infra_error"] and len(always.started) == 2


def test_what_fails_takes_only_what_builds_on_it_along(cells: list[PlannedCell], tmp_path: Path) -> None:
    victim = cells[0].stages[0].spec.key

    class Crashing(Watched):
        def run(self, launch: StageLaunch) -> Execution:
            if launch.spec.key == victim:
                (launch.root / "in/stage.json").write_text("not json")
            return super().run(launch)

    reports = {r.record.key: r.record.outcome for r in run(cells, tmp_path, Crashing())}
    built_on = {s.spec.key for c in cells for s in c.stages if victim in s.spec.parents.values()}
    assert reports[victim] == "crashed" and built_on and not built_on & set(reports)
    others = {s.spec.key for c in cells for s in c.stages} - built_on - {victim}
    assert all(reports[key] == "ok" for key in others)


def test_stopped_and_continued(cells: list[PlannedCell], tmp_path: Path) -> None:
    class Counting(Silent):
        ended = 0

        def stage_ended(self, on_event: Callable[[object], None]) -> None:
            self.ended += 1

    display = Counting()
    executor = Watched()

    def interrupt() -> None:
        import _thread

        while display.ended < 2:
            time.sleep(0.05)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Cancelled):
        run_cells(cells, StageRunner(Store(tmp_path), executor, display, RunOptions()), CAPACITY)
    assert executor.now == 0, "nothing runs on"
    complete = len(list(tmp_path.glob("*/*/record.json")))
    assert 2 <= complete < 10
    rest = Watched()
    reports = run(cells, tmp_path, rest)
    assert len(reports) == 10 and len(rest.started) == 10 - complete
    assert all(r.record.outcome == "ok" for r in reports)
