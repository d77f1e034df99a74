"""Rerun a run and compare: bit by bit on equal numerics, otherwise within the spread of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.prepared import find_data
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.contract.events import EVENTS_FILE, Step, read_events
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.executors.base import Executor
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.code_digest import code_sha256
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.capacity import whole_machine
from pretrain_bench.harness.running.display import Display
from pretrain_bench.harness.running.scheduler import run_stages
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store

CHECK = "run again"
SPREAD_FROM = 3
SPREADS = 3.0
"""Tolerated difference of the headline metric, in standard deviations over seeds, where numerics differ."""


class RerunFailed(BenchError):
    """A rerun ended without a result; `record` is that of its last stage."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"the rerun ended as {record.outcome.value}: {record.message}")
        self.record = record


class Repeated(NamedTuple):
    """A rerun: both records and folders of each stage, in order."""

    pairs: list[tuple[AuditedRun, Record, Path]]


def chain_of(run: AuditedRun, runs: dict[str, AuditedRun]) -> list[AuditedRun]:
    """A run preceded by everything it builds on, in execution order. Raises WrongUse if a stage is missing."""
    ordered: list[AuditedRun] = []

    def add(one: AuditedRun) -> None:
        for key in one.spec.parents.values():
            if key not in runs:
                raise WrongUse(f"{one.name}: builds on {key}, which is missing here")
            add(runs[key])
        if one not in ordered:
            ordered.append(one)

    add(run)
    return ordered


def planned_again(chain: list[AuditedRun], say: Callable[[str], None]) -> list[PlannedStage]:
    """Plan the stages of a chain exactly as they were. Raises WrongUse if this version or machine cannot run them."""
    stages = []
    for number, run in enumerate(chain):
        spec = run.spec
        if spec.checkpoint is not None:
            raise WrongUse(
                f"{run.name}: imports the user's file of sha256 {spec.checkpoint.sha256[:12]}, which a store does not keep; "
                f"run the command again with --method {spec.method}=FILE in another store"
            )
        if spec.method not in available(Method):
            raise WrongUse(f"{run.name}: {spec.method!r} is not a shipped method; its code is needed to rerun it")
        if spec.code_sha256 != code_sha256(spec.kind, spec.code_of, spec.part):
            raise WrongUse(f"{run.name}: was run with different code; check out its commit")
        if spec.device == "cuda" or spec.imagenet_weights_sha256 is not None:
            raise WrongUse(f"{run.name}: needs {'a GPU' if spec.device == 'cuda' else 'its ImageNet weights'}")
        if spec.label_ratio is not None and spec.label_ratio.official and not spec.label_ratio.is_of_scenes:
            raise WrongUse(f"{run.name}: needs the file of {spec.label_ratio}, which stores do not contain")
        if spec.limits.budget not in available(Budget):
            raise WrongUse(f"{run.name}: budget {spec.limits.budget!r} does not ship, so its caps are unknown")
        budget = find(Budget, spec.limits.budget)
        data: PreparedDataset | None = None
        if spec.data is not None:
            source = find_data(spec.data, say)
            if isinstance(source, str):
                raise WrongUse(f"{run.name}: {source}")
            # Raises for a user's dataset, whose file is not part of the record.
            data = PreparedDataset(find(Dataset, spec.data.dataset), source, read_manifest(source))
        last = spec.kind == "pretrain" and (number + 1 == len(chain) or chain[number + 1].spec.kind != "pretrain")
        half = budget.pretrain if spec.kind == "pretrain" else budget.finetune
        title, method = f"{spec.method}/{spec.stage} again", find(Method, spec.method)
        stages.append(PlannedStage(spec, half, data, run.record.cell, run.record.synthetic, title, method, None, last))
    return stages


def repeat(
    run: AuditedRun, runs: dict[str, AuditedRun], folder: Path, executor: Executor, display: Display
) -> Repeated:
    """Rerun a run and its chain in a separate store below `folder`. Raises WrongUse if it cannot be rerun here, RerunFailed."""
    chain = chain_of(run, runs)
    store = Store(folder)
    runner = StageRunner(store, executor, display, RunOptions())
    reports = run_stages(planned_again(chain, display.say), runner, whole_machine("cpu"))
    last = reports[-1].record
    if last.outcome != Outcome.ok:
        raise RerunFailed(last)
    pairs = [
        (was, report.record, store.folder(report.record.kind, report.record.key))
        for was, report in zip(chain, reports, strict=True)
    ]
    return Repeated(pairs)


def judge_failure(run: AuditedRun, runs: dict[str, AuditedRun], error: RerunFailed, tally: Tally) -> None:
    """A rerun that ends like the recorded stage repeats it. One that crashes, or writes something invalid, on equal numerics
    contradicts the record; other ends may be the machine's."""
    was = runs[error.record.key].record
    if was.outcome == error.record.outcome:
        tally.expect(CHECK, True, run.name, "")
        return
    same = was.provenance.numerics == error.record.provenance.numerics
    contradicts = same and error.record.outcome in (Outcome.crashed, Outcome.invalid_output)
    tally.note(CHECK, "failed" if contradicts else "not checked", run.name, str(error))


def compare(repeated: Repeated, runs: dict[str, AuditedRun], tally: Tally) -> None:
    """Judge a rerun, stage by stage: bit-identical results if the numerics fingerprints match."""
    for was, record, folder in repeated.pairs:
        same_numerics = was.record.provenance.numerics == record.provenance.numerics and was.record.stopped is None
        differ = [n for n, entry in was.record.artifacts.items() if record.artifacts.get(n) != entry]
        if not differ:
            tally.expect(CHECK, True, was.name, "")
            continue
        step = first_difference(was.folder, folder)
        where = f"the losses differ from step {step} on" if step else "all losses are equal"
        if same_numerics:
            tally.expect(CHECK, False, was.name, f"{differ[0]} differs although numerics are equal; {where}")
            continue
        _compare_metrics(was, record, runs, tally, where)


def _compare_metrics(was: AuditedRun, record: Record, runs: dict[str, AuditedRun], tally: Tally, where: str) -> None:
    if was.spec.kind != "finetune":
        tally.note(CHECK, "not checked", was.name, f"different numerics (CPU, torch or threads); {where}")
        return
    gap, name = largest_difference(was, record)
    spread = seed_spread(was, runs, name)
    if spread is None:
        text = f"different numerics, and fewer than {SPREAD_FROM} seeds for comparison; {name} differs by {gap:.4f}; {where}"
        tally.note(CHECK, "not checked", was.name, text)
        return
    text = (
        f"{name} differs by {gap:.4f}; allowed: {SPREADS:g} x the standard deviation {spread:.4f} over seeds; {where}"
    )
    tally.expect(CHECK, gap <= SPREADS * spread, was.name, text)


def largest_difference(was: AuditedRun, again: Record) -> tuple[float, str]:
    """The headline metric, named with its checkpoint, that differs most, and by how much."""
    names = [f"{was.spec.headline_metric}_{checkpoint}" for checkpoint in was.spec.checkpoints]
    gaps = []
    for name in (n for n in names if n in was.record.metrics):
        a, b = was.record.metrics[name], again.metrics.get(name)
        gaps.append((0.0 if a == b else math.inf if a is None or b is None else abs(a - b), name))
    return max(gaps, default=(0.0, "-"))


def seed_spread(run: AuditedRun, runs: dict[str, AuditedRun], metric: str) -> float | None:
    """Standard deviation of a metric over runs that differ from this one only in seeds; None for fewer than SPREAD_FROM."""
    cell = run.record.cell
    if cell is None:
        return None
    without_seeds = cell.model_copy(update={"pretrain_seed": 0, "finetune_seed": 0})
    values = []
    for other in runs.values():
        if other.record.cell is None or other.record.outcome != Outcome.ok:
            continue
        same = other.record.cell.model_copy(update={"pretrain_seed": 0, "finetune_seed": 0}) == without_seeds
        value = other.record.metrics.get(metric)
        if same and value is not None:
            values.append(value)
    return statistics.stdev(values) if len(values) >= SPREAD_FROM else None


def first_difference(one: Path, two: Path) -> int | None:
    """The first step at which two runs report different losses; None if all steps reported by both are equal."""
    for a, b in zip(_losses(one), _losses(two), strict=False):
        if a != b:
            return a[0]
    return None


def _losses(folder: Path) -> Iterable[tuple[int, float]]:
    return ((e.step, e.loss) for e in read_events(folder / EVENTS_FILE) if isinstance(e, Step))
