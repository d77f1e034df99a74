"""The simulation of a cluster uses the scheduler's own policy, with estimated times."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.clusters.simulated import ClusterShape, simulate
from pretrain_bench.harness.planning.estimate import Estimate
from pretrain_bench.harness.planning.plan import StageState, State
from pretrain_bench.harness.planning.stage_specs import PlannedCell
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_in, stages_of
from pretrain_bench.harness.running.stage_runner import RunOptions, StageJob, StageReport, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.faults.in_process import SleepingInProcess
from tests.faults.suite import planned
from tests.harness.running.sleeping import Watched, run

PRETRAIN_SECONDS, FINETUNE_SECONDS = 60.0, 10.0


def to_do(cells: list[PlannedCell], device: str = "cpu") -> list[StageState]:
    """The ten stages, with times that are easy to add."""
    states: dict[str, StageState] = {}
    for stage in stages_of(cells):
        seconds = PRETRAIN_SECONDS if stage.spec.kind == "pretrain" else FINETUNE_SECONDS
        parents = {name: states[key].key for name, key in stage.spec.parents.items()}
        spec = stage.spec.model_copy(update={"device": device, "parents": parents})
        state = StageState(stage._replace(spec=spec), spec.key, State.to_do, "", Estimate(seconds, 0, "rough"))
        states.setdefault(stage.spec.key, state)
    return list(states.values())


def test_makespan_utilisation_chain_and_packing(cells: list[PlannedCell]) -> None:
    narrow = simulate(to_do(cells), ClusterShape(nodes=2, cpus=1))
    assert (narrow.stages, narrow.makespan_seconds, narrow.longest_chain_seconds) == (10, 60 + 40, 70)
    assert (narrow.cpu_utilisation, narrow.least_seconds, narrow.packing_cost) == (1.0, 100, 0.0)
    assert [title.split()[0] for title in narrow.longest_chain] == ["scratch/init", "scratch"]
    wide = simulate(to_do(cells), ClusterShape(nodes=4, cpus=1))
    assert (wide.makespan_seconds, wide.least_seconds) == (60 + 20, 70)
    assert wide.packing_cost == pytest.approx(80 / 70 - 1) and wide.cpu_utilisation == 200 / (4 * 80)


def test_gpus_are_shared_out_and_missing_ones_refused(cells: list[PlannedCell]) -> None:
    one = simulate(to_do(cells, "cuda"), ClusterShape(nodes=1, gpus=1))
    assert (one.makespan_seconds, one.gpu_utilisation, one.gpus, one.cpus) == (200, 1.0, 1, 16)
    assert simulate(to_do(cells, "cuda"), ClusterShape(nodes=2, gpus=4)).makespan_seconds == 70
    with pytest.raises(WrongUse, match="need GPUs, but the nodes have none"):
        simulate(to_do(cells, "cuda"), ClusterShape(nodes=2, cpus=8))


def test_done_stages_take_no_time_and_failed_ones_block(cells: list[PlannedCell]) -> None:
    states = to_do(cells)
    first = states[0]
    assert first.planned.spec.kind == "pretrain"
    done = simulate([first._replace(state=State.done, estimate=None), *states[1:]], ClusterShape(nodes=1, cpus=1))
    assert (done.stages, done.blocked, done.makespan_seconds) == (9, 0, 140)
    failed = [first._replace(state=State.failed), *states[1:]]
    blocked = simulate(failed, ClusterShape(nodes=1, cpus=1))
    assert (blocked.stages, blocked.blocked, blocked.makespan_seconds) == (5, 4, 100)
    assert simulate(failed, ClusterShape(nodes=1, cpus=1), retry_failed=True).makespan_seconds == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("16", "nodes: "), ("nodes=0,gpus=8", "nodes: "), ("nodes=2", "need cpus"), ("nodes=2,gpus=8,racks=3", "racks: "),
        ("nodes=x,gpus=1", "nodes: "),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_refused(text: str, problem: str) -> None:
    with pytest.raises(WrongUse, match=f"{problem}.*expected nodes=N"):
        ClusterShape.parse(text)
    shape = ClusterShape.parse("nodes=16,gpus=8,memory=512,node=h100")
    assert shape.capacity() == Capacity(128, 512 << 10, tuple("01234567")) and shape.node == "h100"


class SleepingRunner(StageRunner):
    """Each stage sleeps, and copies the record of another of its kind: layout and publishing cost CPU time, of which a test
    machine has too little for eight stages at once."""

    def __init__(self, store: Store, seconds: dict[str, float], template: StageReport) -> None:
        super().__init__(store, Watched(), Silent(), RunOptions())
        self.seconds, self.template = seconds, template

    def run(self, job: StageJob) -> StageReport:
        time.sleep(self.seconds[job.key])
        return self.template._replace(planned=job.planned)


@pytest.mark.slow
def test_200_sleeping_stages_take_as_long_as_simulated(
    cells: list[PlannedCell], s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_SLEEP", "0")
    template = run([cells[0]._replace(stages=cells[0].stages[:1])], tmp_path / "one", SleepingInProcess())[0]
    many = planned(str(s3dis_root), seeds=20)
    states = to_do(many)
    assert len(states) == 200
    seconds = {s.key: 0.1 + 0.9 * (int(s.key[:8], 16) % 1000) / 1000 for s in states}
    states = [s._replace(estimate=Estimate(seconds[s.key], 0, "rough")) for s in states]
    predicted = simulate(states, ClusterShape(nodes=1, cpus=8, memory=1 << 10))
    began = time.monotonic()
    runner = SleepingRunner(Store(tmp_path), seconds, template)
    reports = run_in(LocalMachine(runner, Capacity(8, 1 << 20)), [s.planned for s in states], runner, seconds=seconds)
    took = time.monotonic() - began
    assert len(reports) == 200 and predicted.makespan_seconds > 1.2 * predicted.longest_chain_seconds
    print(f"simulated {predicted.makespan_seconds:.2f} s, took {took:.2f} s")
    assert took == pytest.approx(predicted.makespan_seconds, rel=0.1)
