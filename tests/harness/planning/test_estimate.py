"""Estimates from earlier runs, and without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.estimate import History, rough_flops, rough_points
from pretrain_bench.harness.planning.prepared_data import DataSources
from pretrain_bench.harness.planning.stage_specs import Machine, PlannedStage
from tests.verification.tasks import stages


@pytest.fixture(scope="module")
def plan(cache: Path) -> dict[str, PlannedStage]:
    """A fine-tuning on each device."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    sources = DataSources(world="nano")
    data = sources.prepare("synth-sunrgbd", strict=True, say=print)
    found = {d: stages("sunrgbd-det", data, "smoke", Machine(1, "torch", d))[1] for d in ("cpu", "cuda")}
    monkeypatch.undo()
    return found


def run(
    device: str, task: str = "sunrgbd-det", seconds: float = 100.0, outcome: str = "ok"
) -> tuple[dict[str, Any], Path]:
    """A record as read by a plan: 1 GFLOP (forward) per second of that device."""
    ledger = {"wall_seconds": seconds, "cpu_seconds": seconds, "sparse_flops": seconds * 1e9}
    cell = {"task": task, "budget": "smoke", "profile": "smoke"}
    return {"outcome": outcome, "cell": cell, "ledger": {**ledger, "gpu_seconds": seconds * (device == "cuda")}}, Path()


def test_earlier_runs_of_the_same_work_count_on_the_same_device_only(plan: dict[str, PlannedStage]) -> None:
    history = History(
        [run("cuda", seconds=10.0), run("cuda", seconds=20.0), run("cuda", seconds=99.0, outcome="failed")]
    )
    assert history.estimate(plan["cuda"], 1)[::2] == (15.0, "earlier runs")
    assert history.estimate(plan["cuda"], 1).within == 1.5, "as far as the farther of the two runs"
    assert History([run("cpu", seconds=0.0)]).estimate(plan["cpu"], 1)[::2] == (0.0, "earlier runs")
    assert history.estimate(plan["cpu"], 1).source == "rough", "a GPU's time says nothing about a CPU"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_stages_of_the_plan_calibrate_the_estimate(device: str, plan: dict[str, PlannedStage]) -> None:
    """With the speed of the stage that ran, not with its rate of FLOPs, which depends on the kind of network."""
    planned = plan[device]
    other = planned._replace(spec=planned.spec.model_copy(update={"task": "scannet-det"}))
    history = History([run(device, "scannet-det", seconds=70.0)])
    rough = History([]).estimate(planned, 1)
    assert history.estimate(planned, 1).source == "rough", "not calibrated yet"
    history = History([run(device, "scannet-det", seconds=70.0)])
    history.calibrate([planned, other], 1)
    found = history.estimate(planned, 1)
    assert found.source == "calibrated" and found.seconds == pytest.approx(70.0), "both stages have the same work"
    assert found.seconds != pytest.approx(rough.seconds) and found.bytes == rough.bytes
    assert history.estimate(other, 1).source == "earlier runs"


def test_without_runs_the_estimate_is_rough(plan: dict[str, PlannedStage]) -> None:
    planned = plan["cpu"]
    one, two = (History([]).estimate(plan["cpu"], cpus) for cpus in (1, 2))
    assert one == two, "a stage of one thread"
    recipe: Any = planned.recipe
    rates, voxels = find(Rates, "cpu"), 30 * recipe.batch * recipe.points
    assert one.source == "rough" and one.within == rates.within
    assert one.seconds == pytest.approx(voxels * (rates.seconds_a_voxel + 6.5e6 / 16 / rates.flops_a_second))
    assert rough_flops(planned) == pytest.approx(30 * recipe.batch * recipe.points * 6.5e6 / 16)
    assert rough_points(planned) == 30 * recipe.batch * recipe.points
