"""Many stages on one machine: each runs once, within the machine's capacity, and stops and resumes without loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.harness.clusters.base import Ended
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.executors.base import Execution, StageLaunch
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity, FreeCapacity, demand
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells, run_in
from pretrain_bench.harness.running.stage_runner import Cancelled, RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.suite import SLEEPER
from tests.harness.running.sleeping import CAPACITY, Watched, run


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
def test_capacity_is_never_exceeded(cells: list[PlannedCell], tmp_path: Path, capacity: Capacity, most: int) -> None:
    executor = Watched()
    run(cells[:4], tmp_path, executor, capacity)
    assert len(executor.started) > 2 and executor.most <= most, f"each stage has a thread and 8,192 MiB; {capacity}"


def test_gpus_are_shared_out(cells: list[PlannedCell], tmp_path: Path) -> None:
    on_gpu = [
        c._replace(stages=tuple(s._replace(spec=s.spec.model_copy(update={"device": "cuda"})) for s in c.stages))
        for c in cells
    ]
    # A changed device changes the keys of parents, so only first stages can be used here.
    first = [c._replace(stages=c.stages[:1]) for c in on_gpu]
    executor = Watched()
    run(first, tmp_path, executor, Capacity(8, 1 << 20, ("0", "1")))
    assert {g for g in executor.gpus} <= {("0",), ("1",)}


def test_stages_that_need_a_share_of_a_gpu_share_one(cells: list[PlannedCell]) -> None:
    first, machine = cells[0].stages[0], Capacity(9, 1 << 20, ("0", "1"))
    spec = first.spec.model_copy(update={"device": "cuda"})
    need = demand(first._replace(spec=spec, caps=first.caps.model_copy(update={"gpus": 0.25})), machine)
    assert need.gpus == 0.25 and need.memory_mib == first.caps.memory_mib
    free, given = FreeCapacity(machine), []
    for number in range(8):
        given.append(gpus := free.gpus_for(need))
        assert gpus is not None
        free.take(need, gpus)
        whole = free.gpus_for(need._replace(gpus=1))
        assert whole == (("1",) if number < 4 else None), "the first is filled before the second is begun"
    assert given == [("0",)] * 4 + [("1",)] * 4 and free.gpus_for(need) is None
    free.give_back(need, ("0",))
    assert free.gpus_for(need) == ("0",) and free.gpus_for(need._replace(gpus=0.5)) is None


@pytest.mark.parametrize(("gpus", "accepted"), [(0, True), (2, True), (0.25, True), (1.5, False), (-1, False)])
def test_a_budget_takes_whole_gpus_or_a_share_of_one(gpus: float, accepted: bool) -> None:
    half = {"currency": "optimizer_steps", "optimizer_steps": 1, "gpus": gpus}
    if accepted:
        assert BudgetHalf.model_validate(half).gpus == gpus
    else:
        with pytest.raises(ValueError, match="gpus"):
            BudgetHalf.model_validate(half)


def test_a_failure_cancels_only_dependent_stages(cells: list[PlannedCell], tmp_path: Path) -> None:
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
    executor = Watched(executor=LocalExecutor(SLEEPER))  # separate processes, since these can be stopped

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


def test_ctrl_c_between_two_ends_loses_neither(cells: list[PlannedCell], tmp_path: Path) -> None:
    """Both stages end in one round, and Ctrl-C comes while the first is reported."""
    stages = [c.stages[0] for c in cells[:1]] + [c.stages[0] for c in cells[-1:]]
    assert len({s.spec.key for s in stages}) == 2
    runner = StageRunner(Store(tmp_path), Watched(), Silent(), RunOptions())
    place = LocalMachine(runner, CAPACITY)
    ended, reported = place.ended, list[str]()

    def both_at_once(seconds: float) -> list[Ended]:
        ends = ended(seconds)
        while len(place._running):
            ends += ended(seconds)
        return ends

    def report(one: StageReport) -> None:
        reported.append(one.planned.spec.key)
        if len(reported) == 1:
            raise KeyboardInterrupt

    place.ended = both_at_once  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        run_in(place, stages, runner, report)
    assert sorted(reported) == sorted(s.spec.key for s in stages)


def test_ctrl_c_while_an_end_is_handed_over_does_not_wait_for_it_for_ever(
    cells: list[PlannedCell], tmp_path: Path
) -> None:
    stage = cells[0].stages[0]
    runner = StageRunner(Store(tmp_path), Watched(), Silent(), RunOptions())
    place = LocalMachine(runner, CAPACITY)
    ended = place.ended

    def lost(seconds: float) -> list[Ended]:
        if ended(seconds):
            raise KeyboardInterrupt
        return []

    place.ended = lost  # type: ignore[method-assign]
    with pytest.raises(Cancelled, match="rerun the same command to resume"):
        run_in(place, [stage], runner)
    assert runner.store.record(stage.spec.kind, stage.spec.key) is not None
