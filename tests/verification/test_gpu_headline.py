"""`make verify-gpu-headline` reads a stage correctly, and its verdict can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.harness.contract.events import EVENTS_FILE, EventWriter, Ledger, Step, Usage
from pretrain_bench.harness.planning.stage_specs import Machine, PlannedStage
from tests.verification.gpu_headline import measured, misses
from tests.verification.report import FOLDER, ROOT
from tests.verification.tasks import data_of, stages

GOOD: dict[str, Any] = {"exit_code": 0, "steps": 8, "finite": True, "step_seconds": 2.0, "plan_step_seconds": 1.0}


@pytest.fixture(scope="module")
def planned(cache: Path) -> PlannedStage:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    stage = stages("s3dis-sem", data_of("s3dis-sem", "smoke"), "smoke", Machine(1, "torch", "cuda"))[1]
    monkeypatch.undo()
    return stage


@pytest.mark.slow
def test_steps_and_memory_are_read_from_the_events(tmp_path: Path, planned: PlannedStage) -> None:
    (tmp_path / "out").mkdir()
    events = EventWriter(tmp_path / "out" / EVENTS_FILE)
    for number, seconds in enumerate((9.0, 5.0, 1.0, 2.0), 1):
        step = {"step": number, "loss": 1.0, "learning_rate": 0.1, "gradient_norm": 1.0, "data_seconds": seconds / 2}
        events.write(Step.model_validate({**step, "seconds": seconds}))
    events.write(Usage(ledger=Ledger(samples=8, peak_gpu_memory_bytes=3 << 20, sparse_flops=4 * 10**9)))
    row = measured(tmp_path, planned, planned)
    assert (row["step_seconds"], row["of_it_waiting_for_data"]) == (1.5, 0.75), "the first two are not counted"
    assert (row["gpu_mib"], row["samples_a_step"], row["sparse_gflop_a_step"]) == (3.0, 2.0, 1.0)
    assert row["paper_steps"] == 30 and row["paper_hours"] == pytest.approx(30 * 1.5 / 3600)
    # 2 scenes of at most 2,500 voxels, quarter width, at 3 TFLOP per second.
    assert row["plan_step_seconds"] == pytest.approx(2 * 2500 * 6.5e6 / 16 / 3e12)


def test_the_verdict_names_missed_bounds() -> None:
    assert misses({"csc/pairs": GOOD}) == []
    assert misses({"csc/pairs": {**GOOD, "exit_code": 1}}) == ["csc/pairs: exit code 1"]
    assert misses({"csc/pairs": {"exit_code": None, "steps": 0}}) == ["csc/pairs: exit code None", "csc/pairs: no step"]
    assert misses({"csc/pairs": {**GOOD, "finite": False}}) == ["csc/pairs: a loss or gradient is not finite"]
    assert misses({"csc/pairs": {**GOOD, "plan_step_seconds": 6.1}}), "more than three times too long"
    assert misses({"csc/pairs": {**GOOD, "plan_step_seconds": 0.6}}), "less than a third"


def test_the_docs_print_what_was_measured() -> None:
    rows = json.loads((FOLDER / "gpu-headline.json").read_text())["stages"]
    printed = (ROOT / "docs/methods.md").read_text()
    for name, row in rows.items():
        cells = (
            name.removesuffix(" at 100%"), f"{row['samples_a_step']:.0f}", f"{row['step_seconds']:.2f}", f"{row['gpu_mib'] / 1024:.0f}",
            f"{row['paper_steps']:,}", f"{row['paper_hours']:.1f}",
        )  # fmt: skip
        assert f"| {' | '.join(cells)} |" in printed
    pretraining = sum(r["paper_hours"] for n, r in rows.items() if "->" not in n)
    tasks = {n.split()[2]: r["paper_hours"] for n, r in rows.items() if "->" in n}
    elsewhere = sum(hours for task, hours in tasks.items() if not task.startswith("scannet"))
    total = 3 * (pretraining + 5 * sum(tasks.values()) + elsewhere)
    assert round(total, -2) == 2900 and round(1 - 3 * pretraining / total, 1) == 0.9
    ratios = [r["plan_step_seconds"] / r["step_seconds"] for r in rows.values()]
    assert max(max(r, 1 / r) for r in ratios) < 2.3 + 0.05
