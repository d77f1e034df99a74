"""Compare a run's own account with independent evidence: events, executor log, artifacts and the clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import ValidationError

from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.recipes import Recipe
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import AuditedRun, Runs
from pretrain_bench.harness.audit.shipped import shipped
from pretrain_bench.harness.contract.events import (
    EVENTS_FILE,
    End,
    Eval,
    Event,
    Start,
    Step,
    Usage,
    broken_line,
    read_events,
)
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.estimate import rough_flops
from pretrain_bench.harness.planning.recipes import recipe_model
from pretrain_bench.harness.running.untrusted_text import clean_metrics

CPU_SHARE, CPU_SECONDS = 0.25, 10.0
"""Tolerated difference between a stage's own CPU seconds and those measured from outside: sampling misses a process's end."""
WALL_SHARE, WALL_SECONDS = 0.75, 120.0
"""The same for wall time; a stage's own account excludes start-up and preparation."""
ESTIMATE_FACTOR = 30.0
"""Tolerated factor between the FLOPs in a ledger and a rough estimate (`planning.estimate`), itself good to about three."""
CLOCK_SKEW = timedelta(minutes=10)
"""Tolerated difference between the clocks of machines that share a store."""
AFTER_END = (Outcome.ok, Outcome.invalid_output, Outcome.over_budget)
"""Outcomes that the harness can assign to a stage that reported success."""
EVENTS, OUTCOME, ARTIFACTS_OF, CLOCK = (
    "each event follows the one before", "outcome agrees with the events", "a run that is ok has its artifacts", "clock",
)  # fmt: skip
LEDGER, OUTSIDE, ESTIMATE = (
    "ledger agrees with the events", "ledger agrees with what was seen from outside", "ledger agrees with the estimate",
)  # fmt: skip
CURVE = "scores follow from the validation curve"
TOLERANCE = 1e-9


def check_account(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    """Run every check of one run's own account."""
    _check_clock(run, runs, tally)
    if run.record.outcome == Outcome.ok:
        _check_artifacts_named(run, tally)
    if run.record.files and EVENTS_FILE not in run.record.files:
        # An image may end before it writes an event. A stage with outcome ok has events, on which its verdict is based.
        tally.expect(OUTCOME, run.record.outcome != Outcome.ok, run.name, "a run that is ok without events")
        return
    events = list(read_events(run.folder / EVENTS_FILE))
    _check_lines(run, events, tally)
    _check_outcome(run, events, tally)
    if run.record.outcome == Outcome.ok:
        _check_ledger(run, events, tally)
        _check_curve(run, events, tally)


def _check_lines(run: AuditedRun, events: list[Event], tally: Tally) -> None:
    if not any(event.before for event in events):
        return  # written before events had hashes, or by a user's image
    try:
        line = broken_line(run.folder / EVENTS_FILE)
    except OSError:
        return  # reported by the check of file hashes
    tally.expect(
        EVENTS, line is None, run.name, f"{EVENTS_FILE} line {line}: an event before it was changed or removed"
    )


def _check_outcome(run: AuditedRun, events: list[Event], tally: Tally) -> None:
    """A stage whose events end with success has no infrastructure error, and a stage with outcome ok has such events."""
    record = run.record
    end = next((e for e in reversed(events) if isinstance(e, End)), None)
    if end is None and not record.files:
        return  # recorded before records listed events
    if record.outcome == Outcome.ok:
        tally.expect(
            OUTCOME, end is not None and end.status == "ok", run.name, "outcome ok, but its events do not end with ok"
        )
        if end is not None:
            text = f"stopped: {record.stopped} in the record, {end.stopped} in the last event"
            tally.expect(OUTCOME, record.stopped == end.stopped, run.name, text)
        if record.stopped is not None and run.spec.limits.currency not in (Currency.flops, Currency.gpu_seconds):
            planned = next((e.total_steps for e in reversed(events) if isinstance(e, Start)), 0)
            # It was asked to stop while it validated or wrote, or this is an invention.
            if 0 < planned <= record.ledger.optimizer_steps:
                text = f"stopped early by its own account, but it took all of its {planned} steps"
                tally.note(OUTCOME, "warning", run.name, text)
        if end is not None and record.files:
            same = clean_metrics(end.metrics) == record.stage_metrics
            tally.expect(OUTCOME, same, run.name, "the metrics of its last event differ from those of the record")
        return
    fine = end is None or end.status != "ok" or record.outcome in AFTER_END
    tally.expect(OUTCOME, fine, run.name, f"the record says {record.outcome.value}, its events end with ok")


def _check_artifacts_named(run: AuditedRun, tally: Tally) -> None:
    """A pre-training lists weights, and a fine-tuning the predictions of every test scene, even if pruned."""
    names, spec = run.record.artifacts, run.spec
    if spec.kind == "features":
        tally.expect(ARTIFACTS_OF, bool(names), run.name, "no features are named")
        return
    if spec.kind == "pretrain":
        tally.expect(ARTIFACTS_OF, any(n.endswith(".safetensors") for n in names), run.name, "no weights are named")
        return
    if spec.split is None:
        return
    missing = [n for c in spec.checkpoints for s in spec.split.test if (n := f"predictions/{c}/{s}.npz") not in names]
    text = f"{missing[0]} and {len(missing) - 1} more are not named" if missing else ""
    tally.expect(ARTIFACTS_OF, not missing, run.name, text)


def _check_clock(run: AuditedRun, runs: Runs, tally: Tally) -> None:
    """A run ends after it starts, not in the future, and starts after its parent runs ended."""
    record = run.record
    try:
        started, ended = time_of(record.started_at), time_of(record.ended_at)
        parents = {key: time_of(runs[key].record.ended_at) for key in run.spec.parents.values() if key in runs}
    except ValueError as error:
        tally.expect(CLOCK, False, run.name, f"not a time: {error}")
        return
    now = datetime.now(UTC)
    tally.expect(CLOCK, started <= ended, run.name, f"ended {record.ended_at}, before it started, {record.started_at}")
    latest = max(started, ended)
    tally.expect(CLOCK, latest <= now + CLOCK_SKEW, run.name, f"{latest.isoformat()} is in the future")
    late = [key for key, when in parents.items() if when > started + CLOCK_SKEW]
    text = f"started {record.started_at}, before its parent {late[0] if late else ''} had ended"
    tally.expect(CLOCK, not late, run.name, text)
    took, seen = (ended - started).total_seconds(), record.measured.wall_seconds
    tally.expect(
        CLOCK, seen <= took + CLOCK_SKEW.total_seconds(), run.name, f"{seen:.0f} s measured within {took:.0f} s"
    )


def time_of(text: str) -> datetime:
    """Parse a time as records write it; without a zone it is UTC. Raises ValueError."""
    when = datetime.fromisoformat(text)
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _check_ledger(run: AuditedRun, events: list[Event], tally: Tally) -> None:
    """Compare the stage's own ledger with its events, with usage measured from outside, and with a rough estimate."""
    record, ledger = run.record, run.record.ledger
    last_step = max((e.step for e in events if isinstance(e, Step)), default=0)
    tally.expect(
        LEDGER, last_step == ledger.optimizer_steps, run.name,
        f"{ledger.optimizer_steps} steps in the ledger, {last_step} in the events",
    )  # fmt: skip
    last = next((e.ledger for e in reversed(events) if isinstance(e, Usage)), None)
    if record.files and last is not None:
        differing = [n for n, value in last.model_dump().items() if value != getattr(ledger, n)]
        name = differing[0] if differing else "steps"
        text = (
            f"{name} {getattr(ledger, name, 0):,.10g} in the record, {getattr(last, name, 0):,.10g} in the last event"
        )
        tally.expect(LEDGER, not differing, run.name, text)
    in_steps = sum(e.seconds for e in events if isinstance(e, Step))
    long_enough = in_steps <= (1 + WALL_SHARE) * ledger.wall_seconds + WALL_SECONDS
    text = f"its steps took {in_steps:,.0f} s, but its ledger has only {ledger.wall_seconds:,.0f} s for the whole stage"
    tally.expect(LEDGER, long_enough, run.name, text)
    _check_estimate(run, tally)
    if record.attempt > 1 or (run.spec.kind == "pretrain" and run.spec.data is None):
        return  # the ledger covers all attempts, outside usage only the last; a stage without data does not count time
    for own, seen, share, seconds, what in (
        (ledger.cpu_seconds, record.measured.cpu_seconds, CPU_SHARE, CPU_SECONDS, "CPU"),
        (ledger.wall_seconds, record.measured.wall_seconds, WALL_SHARE, WALL_SECONDS, "wall"),
    ):
        close = abs(own - seen) <= share * max(own, seen) + seconds
        text = f"{own:.0f} {what} seconds by its own account, {seen:.0f} measured from outside"
        tally.expect(OUTSIDE, close, run.name, text)


class _Work(NamedTuple):
    """The inputs of an estimate."""

    spec: StageSpec
    recipe: Recipe | None


def _check_estimate(run: AuditedRun, tally: Tally) -> None:
    """The FLOPs in a ledger match those of the recipe's steps. Stages that count no FLOPs cannot be checked."""
    spec, ledger = run.spec, run.record.ledger
    if not (ledger.flops and ledger.optimizer_steps):
        return
    recipe = _recipe(spec)
    if recipe is None:
        return
    work = recipe.work_per_step()
    if work.points and not work.voxels:
        return  # FLOPs of point networks are not estimated
    limits = spec.limits.model_copy(update={"currency": "optimizer_steps", "amount": float(ledger.optimizer_steps)})
    expected = rough_flops(_Work(spec.model_copy(update={"limits": limits}), recipe))
    if not expected:
        return
    close = expected / ESTIMATE_FACTOR <= ledger.flops <= expected * ESTIMATE_FACTOR
    if close:
        tally.expect(ESTIMATE, True, run.name, "")
    else:
        tally.note(
            ESTIMATE, "warning", run.name, f"{ledger.flops:.2g} FLOPs in the ledger, about {expected:.2g} expected"
        )


def _recipe(spec: StageSpec) -> Recipe | None:
    """A stage's recipe as its model; None without a recipe, or if its method does not ship."""
    if spec.kind == "finetune":
        return spec.task_recipe
    method = shipped(Method, spec.code_of)
    stage = next((s for s in method.stages if s.name == spec.stage), None) if method else None
    if method is None or stage is None or stage.recipe is None or stage.recipe.startswith("tasks."):
        return None
    try:
        return recipe_model(method, stage).model_validate(spec.recipe)
    except (BenchError, ValidationError):
        return None


# ------------------------------------------------------------------------------------------------------------ the curve


def selected_steps(run: AuditedRun, events: Sequence[Event]) -> dict[str, Eval]:
    """Map each checkpoint to its validation on the test split: `final` to the last one, `best` to the first with the highest
    score there, `selected` to the first with the highest score on held-out scenes. Empty without validations."""
    metric = run.spec.headline_metric
    tested = {e.step: e for e in events if isinstance(e, Eval) and e.split == "test"}
    if not tested:
        return {}
    steps = {"final": max(tested), "best": max(sorted(tested), key=lambda step: _score(tested[step], metric))}
    held_out = {e.step: e for e in events if isinstance(e, Eval) and e.split == "selection"}
    if held_out:
        steps["selected"] = max(sorted(held_out), key=lambda step: _score(held_out[step], metric))
    return {checkpoint: tested[step] for checkpoint, step in steps.items() if step in tested}


def _score(event: Eval, metric: str) -> float:
    value = event.metrics.get(metric)
    return 0.0 if value is None else value


def _check_curve(run: AuditedRun, events: list[Event], tally: Tally) -> None:
    """Each checkpoint has the scores of the validation that its selection rule gives."""
    if run.spec.kind != "finetune" or run.spec.split is None or run.spec.takes_no_step:
        return  # a probe without optimiser steps has no curve
    chosen = selected_steps(run, events)
    if not chosen:
        tally.note(CURVE, "not checked", run.name, "its events contain no validation")
        return
    for checkpoint, event in chosen.items():
        problem = next(_other_scores(run, checkpoint, event), None)
        tally.expect(CURVE, problem is None, run.name, problem or "")


def _other_scores(run: AuditedRun, checkpoint: str, event: Eval) -> Iterator[str]:
    for name, value in event.metrics.items():
        recorded = run.record.metrics.get(f"{name}_{checkpoint}")
        same = recorded is value if recorded is None or value is None else abs(recorded - value) < TOLERANCE
        if not same:
            yield f"{name}_{checkpoint} is {recorded}, but its validation, after step {event.step}, gave {value}"
