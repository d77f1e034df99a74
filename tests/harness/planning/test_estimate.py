"""Estimates from earlier runs, and without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.estimate import History, rough_flops, rough_points
from pretrain_bench.harness.planning.prepared_data import DataSources
from pretrain_bench.harness.planning.stage_specs import Machine, PlannedStage
from pretrain_bench.harness.store.store import SPEC
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


class Past:
    """Writes runs of the plan's stages, with changes to their specs and records, for a `History`."""

    def __init__(self, plan: dict[str, PlannedStage], folder: Path) -> None:
        self.plan, self.folder, self.number = plan, folder, 0

    def run(
        self, device: str, seconds: float = 100.0, changes: dict[str, Any] | None = None, **record: Any
    ) -> tuple[dict[str, Any], Path]:
        """A record as read by a plan: 1 GFLOP (forward) per second of that device; `changes` are fields of its spec."""
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        spec = self.plan[device].spec.model_dump(mode="json") | (changes or {})
        (folder / SPEC).write_text(json.dumps(spec))
        ledger = {"wall_seconds": seconds, "cpu_seconds": seconds, "sparse_flops": seconds * 1e9}
        ledger["gpu_seconds"] = seconds * (device == "cuda")
        cell = {"task": spec["task"], "budget": "smoke", "profile": "smoke"}
        return {"outcome": "ok", "cell": cell, "ledger": ledger, **record}, folder


@pytest.fixture
def past(plan: dict[str, PlannedStage], tmp_path: Path) -> Past:
    return Past(plan, tmp_path)


def test_earlier_runs_of_the_same_work_count_on_the_same_device_only(plan: dict[str, PlannedStage], past: Past) -> None:
    history = History([past.run("cuda", 10.0), past.run("cuda", 20.0), past.run("cuda", 99.0, outcome="failed")])
    assert history.estimate(plan["cuda"], 1)[::2] == (15.0, "earlier runs")
    assert history.estimate(plan["cuda"], 1).within == 1.5, "as far as the farther of the two runs"
    assert History([past.run("cpu", 0.0)]).estimate(plan["cpu"], 1)[::2] == (0.0, "earlier runs")
    assert history.estimate(plan["cpu"], 1).source == "rough", "a GPU's time says nothing about a CPU"


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"dataset": "sunrgbd"}},
        {"threads": 8},
        {"sparse_backend": "minkowski"},
        {"profile": "tiny"},
        {"data": 1},
    ],
    ids=["dataset", "threads", "backend", "profile", "damaged"],
)
def test_runs_on_other_data_or_with_other_settings_do_not_count(
    changes: dict[str, Any], plan: dict[str, PlannedStage], past: Past
) -> None:
    """A smoke run on generated rooms says nothing about real data."""
    assert History([past.run("cpu", 7.0, changes)]).estimate(plan["cpu"], 1).source == "rough"
    both = History([past.run("cpu", 7.0, changes), past.run("cpu", 20.0)])
    assert both.estimate(plan["cpu"], 1).seconds == 20.0


def test_a_run_that_its_limit_stopped_early_does_not_count(plan: dict[str, PlannedStage], past: Past) -> None:
    stopped = past.run("cpu", 5.0, stopped="soft_limit")
    assert History([stopped]).estimate(plan["cpu"], 1).source == "rough"
    assert History([stopped, past.run("cpu", 20.0, stopped=None)]).estimate(plan["cpu"], 1).seconds == 20.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_stages_of_the_plan_calibrate_the_estimate(
    device: str, plan: dict[str, PlannedStage], past: Past
) -> None:
    """With the speed of the stage that ran, not with its rate of FLOPs, which depends on the kind of network."""
    planned = plan[device]
    other = planned._replace(spec=planned.spec.model_copy(update={"task": "scannet-det"}))
    history = History([past.run(device, 70.0, {"task": "scannet-det"})])
    rough = History([]).estimate(planned, 1)
    assert history.estimate(planned, 1).source == "rough", "not calibrated yet"
    history = History([past.run(device, 70.0, {"task": "scannet-det"})])
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
