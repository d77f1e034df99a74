"""The verdict on a finished execution: its outcome, message, metrics and confusion matrices."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.run_length import amount_used, budget_problem
from pretrain_bench.harness.executors.base import Execution
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.account import StageAccount
from pretrain_bench.harness.running.checks import InvalidOutput, check_features, check_plain, check_pretrain
from pretrain_bench.harness.running.scoring import Confusion, Metrics, disagreement, score_finetune
from pretrain_bench.harness.running.untrusted_text import log_tail

MIN_FREE_BYTES = 16 << 20
REFUSED = 2
KILLED = {
    "cancel": Outcome.cancelled,
    "memory": Outcome.oom_host,
    "disk": Outcome.over_budget,
    "pids": Outcome.over_budget,
    "wall": Outcome.timeout,
    "stall": Outcome.timeout,
}
STALLED = "no sign of life for longer than the stall_seconds of its budget; the end of log.txt shows where it hung"
GPU_IS_FULL = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Signs of too little GPU memory in errors of torch's allocator, of CUDA and of its libraries."""


class Evidence(NamedTuple):
    """Everything that a verdict is based on. `runs` is the folder of the store, whose disk may be full."""

    planned: PlannedStage
    execution: Execution
    account: StageAccount
    artifacts: Path
    log: Path
    runs: Path


class Verdict(NamedTuple):
    """The outcome of an execution. Only a fine-tuning that is ok has metrics."""

    outcome: Outcome
    message: str
    metrics: Metrics = {}
    confusion: Confusion = {}


def refusal(execution: Execution, account: StageAccount, earlier_starts: int = 0) -> str | None:
    """The message of a stage that refused its input before this attempt started; None for any other execution. `earlier_starts`
    counts the attempts before it that had started."""
    if execution.killed_by is not None or execution.returncode != REFUSED or account.starts > earlier_starts:
        return None
    return account.end.message if account.end is not None and account.end.status == "refused" else None


def ended_early_unasked(execution: Execution, account: StageAccount) -> bool:
    """Whether a stage says that it was asked to end early, though this harness did not ask it."""
    was_asked = execution.killed_by is not None or execution.soft_limited
    return not was_asked and account.end is not None and account.end.stopped == "soft_limit"


def judge(evidence: Evidence) -> Verdict:
    """The verdict on an execution that was not refused. Limits that the executor enforced come first, then the artifacts of a
    stage that reports success, then the causes of failure."""
    execution, end = evidence.execution, evidence.account.end
    if execution.killed_by is not None:
        return Verdict(KILLED[execution.killed_by], _why_killed(evidence))
    if execution.returncode == 0 and end is not None and end.status == "ok":
        wrong_amount = _check_budget(evidence)
        return wrong_amount or _judge_artifacts(evidence)
    return _judge_failure(evidence)


def _why_killed(evidence: Evidence) -> str:
    """Why the harness killed a stage, with the field of the budget that limits it."""
    why = evidence.execution.killed_by or ""
    if why == "cancel":
        return "cancelled by the user"
    if why == "stall":
        return STALLED
    field = {"memory": "memory_mib", "disk": "disk_mib", "wall": "wall_seconds"}.get(why)
    value = getattr(evidence.planned.caps, field) if field else None
    of_budget = "" if value is None else f" ({field} {value:,} of budget {evidence.planned.spec.limits.budget!r})"
    machine = " or by the memory of this machine" if why == "memory" else ""
    return f"stopped by its {why} limit{of_budget}{machine}"


def _check_budget(evidence: Evidence) -> Verdict | None:
    """A verdict on a stage whose events go beyond its ledger, or that used more or less than its budget says; else None."""
    spec, account = evidence.planned.spec, evidence.account
    steps, limits = account.ledger.optimizer_steps, spec.limits
    if account.last_step > steps:
        message = f"its ledger says {steps} steps, its events go to step {account.last_step}"
        return Verdict(Outcome.invalid_output, message)
    gpu_mib, peak_mib = evidence.planned.caps.gpu_memory_mib, account.ledger.peak_gpu_memory_bytes / 2**20
    if gpu_mib is not None and peak_mib > gpu_mib:
        message = f"{peak_mib:,.0f} MiB of GPU memory; budget {limits.budget!r} allows gpu_memory_mib {gpu_mib:,}"
        return Verdict(Outcome.over_budget, message)
    trains_nothing = spec.data is None
    problem = budget_problem(limits, account.ledger, trains_nothing or evidence.execution.soft_limited)
    if problem is None:
        return None
    over = amount_used(account.ledger, limits.currency) > limits.amount
    return Verdict(Outcome.over_budget if over else Outcome.invalid_output, problem)


def _judge_artifacts(evidence: Evidence) -> Verdict:
    """The verdict on a stage that reports success: its artifacts are checked and its predictions scored."""
    planned, end = evidence.planned, evidence.account.end
    assert end is not None
    try:
        check_plain(evidence.artifacts)
        if planned.spec.kind == "pretrain":
            check_pretrain(planned.spec, evidence.artifacts, planned.leaves_backbone)
            return Verdict(Outcome.ok, end.message)
        if planned.spec.kind == "features":
            check_features(evidence.artifacts)
            return Verdict(Outcome.ok, end.message)
        assert planned.data is not None
        scores = score_finetune(planned.spec, evidence.artifacts, planned.data.folder)
    except InvalidOutput as error:
        return Verdict(Outcome.invalid_output, str(error))
    if difference := disagreement(scores.metrics, end.metrics):
        return Verdict(Outcome.invalid_output, difference, {}, scores.confusion)
    return Verdict(Outcome.ok, end.message, scores.metrics, scores.confusion)


def _judge_failure(evidence: Evidence) -> Verdict:
    """The verdict on a stage that ended by itself without reporting success."""
    execution, end = evidence.execution, evidence.account.end
    message = end.message if end is not None else ""
    if shutil.disk_usage(evidence.runs).free < MIN_FREE_BYTES:
        advice = "the disk is full; free some space and run the command again"
        return Verdict(Outcome.infra_error, f"{evidence.runs}: {advice}")
    if execution.soft_limited:
        return Verdict(Outcome.timeout, message or "the time limit came before the stage could save anything")
    if any(sign in message for sign in GPU_IS_FULL):
        return Verdict(Outcome.oom_gpu, message)
    if "MemoryError" in message or "can't allocate memory" in message:
        return Verdict(Outcome.oom_host, message)
    if execution.returncode == 0:
        why = f"but its end event says {end.status}: {message}" if end is not None else "without an end event"
        return Verdict(Outcome.invalid_output, f"the stage exited 0 {why}")
    if not message:
        code = execution.returncode
        ending = f"signal {-code}" if code < 0 else f"exit code {code}"
        message = f"the stage ended by {ending}; last lines of its log: {log_tail(evidence.log)}"
    return Verdict(Outcome.crashed, message)
