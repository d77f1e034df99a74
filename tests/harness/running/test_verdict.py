"""Each way an execution can end has one verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.specs.budget import BudgetHalf
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.harness.contract.events import End, Ledger, Start, Step, Usage
from pretrain_bench.harness.contract.records import Measured
from pretrain_bench.harness.executors.base import Execution
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running import verdict
from pretrain_bench.harness.running.account import StageAccount
from pretrain_bench.harness.running.verdict import Evidence, judge, refusal
from tests.harness.store.test_store import spec


def account_of(*events: object) -> StageAccount:
    account = StageAccount()
    for event in events:
        account.add(event)
    return account


def execution(returncode: int = 0, **more: Any) -> Execution:
    return Execution(returncode, more.get("killed_by"), more.get("soft_limited", False), Measured())


def step(number: int) -> Step:
    return Step(step=number, loss=1, learning_rate=1, gradient_norm=1, seconds=0, data_seconds=0)


def evidence(folder: Path, ended: Execution, *events: object) -> Evidence:
    caps = BudgetHalf(currency="optimizer_steps", optimizer_steps=8, wall_seconds=8, cpus=1)
    caps = caps.model_copy(update={"memory_mib": 8192, "gpu_memory_mib": 2048})
    planned = PlannedStage(spec(), caps, None, None, True, "title", find(Method, "scratch"), None)
    (folder / "log.txt").write_text("one\ntwo\x1b[0m\n")
    return Evidence(planned, ended, account_of(*events), folder / "artifacts", folder / "log.txt", folder)


FAILED, OK = End(status="failed", message="why"), End(status="ok")


@pytest.mark.parametrize(
    ("ended", "events", "outcome", "message"),
    [
        (execution(0, killed_by="cancel"), (OK,), "cancelled", "cancelled by the user"),
        (
            execution(-9, killed_by="memory"),
            (),
            "oom_host",
            "stopped by its memory limit (memory_mib 8,192 of budget 'b') or by the memory of this machine",
        ),
        (execution(-9, killed_by="disk"), (), "over_budget", "stopped by its disk limit"),
        (execution(-9, killed_by="pids"), (), "over_budget", "stopped by its pids limit"),
        (execution(-9, killed_by="wall"), (), "timeout", "stopped by its wall limit (wall_seconds 8.0 of budget 'b')"),
        (
            execution(),
            (Usage(ledger=Ledger(optimizer_steps=8, peak_gpu_memory_bytes=3 << 30)), OK),
            "over_budget",
            "3,072 MiB of GPU memory; budget 'b' allows gpu_memory_mib 2,048",
        ),
        (
            execution(),
            (step(3), Usage(ledger=Ledger(optimizer_steps=2)), OK),
            "invalid_output",
            "its ledger says 2 steps",
        ),
        (execution(), (Usage(ledger=Ledger(optimizer_steps=10**9)), OK), "over_budget", "1,000,000,000 steps, budget"),
        (execution(), (OK,), "invalid_output", "artifacts/ is missing"),
        (execution(1, soft_limited=True), (), "timeout", "the time limit came before"),
        (execution(1, soft_limited=True), (FAILED,), "timeout", "why"),
        (execution(1), (End(status="failed", message="CUDA out of memory. x"),), "oom_gpu", "CUDA"),
        (execution(1), (End(status="failed", message="RuntimeError: CUDA error: out of memory"),), "oom_gpu", "CUDA"),
        (execution(1), (End(status="failed", message="MemoryError: x"),), "oom_host", "MemoryError"),
        (execution(0), (), "invalid_output", "without an end event"),
        (execution(0), (FAILED,), "invalid_output", "exited 0 but its end event says failed: why"),
        (execution(-11), (), "crashed", "ended by signal 11; last lines of its log: one | two[0m"),
        (execution(3), (), "crashed", "exit code 3"),
        (execution(3), (OK,), "crashed", "exit code 3"),
        (execution(3), (FAILED,), "crashed", "why"),
    ],
)
def test_the_verdict_on_each_end(
    ended: Execution, events: tuple[object, ...], outcome: str, message: str, tmp_path: Path
) -> None:
    judged = judge(evidence(tmp_path, ended, *events))
    assert judged.outcome == outcome and message in judged.message and not judged.metrics


def test_a_full_disk_explains_a_failure_but_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "MIN_FREE_BYTES", 1 << 62)
    judged = judge(evidence(tmp_path, execution(1), FAILED))
    assert judged.outcome == "infra_error" and f"{tmp_path}: the disk is full" in judged.message
    assert judge(evidence(tmp_path, execution(-9, killed_by="wall"))).outcome == "timeout"


def test_only_a_stage_that_has_not_started_can_refuse() -> None:
    refused = End(status="refused", message="no images")
    assert refusal(execution(2), account_of(refused)) == "no images"
    assert refusal(execution(2), account_of(Start(total_steps=1), refused)) is None
    resumed = account_of(Start(total_steps=1), refused)
    assert refusal(execution(2), resumed, earlier_starts=1) == "no images", (
        "as when its image is of another version by now"
    )
    assert refusal(execution(2), account_of(Start(total_steps=1), Start(total_steps=1), refused), 1) is None
    assert refusal(execution(1), account_of(refused)) is None
    assert refusal(execution(2, killed_by="wall"), account_of(refused)) is None
    assert refusal(execution(2), account_of(FAILED)) is None and refusal(execution(2), account_of()) is None
