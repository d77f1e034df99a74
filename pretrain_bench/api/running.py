"""Runs: pre-train, fine-tune, score and record the cells of a suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from pretrain_bench.api.checkpoints import check_checkpoints
from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.places import Where, place_for
from pretrain_bench.api.planning import check_signing, register_cells
from pretrain_bench.api.settings import Settings, resolve
from pretrain_bench.api.sizing import check_fit, estimate_line, line_on_workers
from pretrain_bench.api.stores import AnyPath, Runs, working_store
from pretrain_bench.api.suites import Names
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.benchmarks.support.files import notice_of_missing_links
from pretrain_bench.harness.clusters.base import Place
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.executors.base import Executor
from pretrain_bench.harness.executors.choice import ENGINES, engine_executor, notice_without_isolation, process_executor
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.plan import StageState, states, to_run
from pretrain_bench.harness.planning.renamed_budget import known_budget
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite, check_executor
from pretrain_bench.harness.planning.stage_specs import PlannedCell, lines_on_absent
from pretrain_bench.harness.running.progress_note import NotedStage, noted
from pretrain_bench.harness.running.scheduler import OnReport, run_in, stages_of
from pretrain_bench.harness.running.stage_runner import Retry, RunOptions, StageReport, StageRunner
from pretrain_bench.harness.store.store import LOG, Store

if TYPE_CHECKING:
    import pandas as pd

IMAGE_LOGS = Path("image-logs")
HERE = Where()


class StageRow(NamedTuple):
    """One stage of a run in short."""

    key: str
    title: str
    outcome: str
    reused: bool
    """Whether it was done before."""
    metric: str | None
    """The metric its task is judged by; None for a pre-training."""
    selected: float | None
    """That metric, from 0 to 1, of the checkpoint that was best on held-out training scenes."""
    final: float | None
    """That metric after the last step."""
    seconds: float
    """Wall time, over all attempts."""


class RunResult(NamedTuple):
    """The stages of a run, reused ones included, and the cells that did not apply."""

    stages: list[StageReport]
    not_applicable: list[PlannedCell]

    @property
    def failed(self) -> list[StageReport]:
        """Stages whose outcome is not `ok`. A stage that builds on a failed one has no report."""
        return [stage for stage in self.stages if stage.record.outcome != "ok"]

    def raise_if_failed(self) -> None:
        """Raises BenchError that names the first failed stage."""
        if not self.failed:
            return
        first, *others = self.failed
        hint = "; --retry failed runs it again" if first.reused else ""
        more = f"; {len(others)} more failed" if others else ""
        record = first.record
        where = (
            ""
            if record.outcome == "infra_error"
            else f"; its log: {record.kind}/{record.key}/{LOG} in the folder of runs"
        )
        raise BenchError(f"{first.planned.title}: {record.outcome.value}: {record.message}{where}{hint}{more}")

    def probes_without_baseline(self) -> list[Cell]:
        """A cell of each task and probing protocol without a probe of `scratch`: a probe has a meaning only next to
        that of a frozen random backbone."""
        from pretrain_bench.reports.analysis.method_cards import BASELINE

        cells = [stage.record.cell for stage in self.stages if stage.record.cell is not None]
        probed = {(c.task, c.protocol): c for c in cells if c.protocol != FINETUNE}
        beside = {(c.task, c.protocol) for c in cells if c.method == BASELINE}
        return [cell for which, cell in probed.items() if which not in beside]

    def rows(self) -> list[StageRow]:
        """The stages in short."""
        return [_row(stage) for stage in self.stages]

    def to_frame(self) -> pd.DataFrame:
        """One row for each stage, with the fields of `StageRow` as columns."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=list(StageRow._fields))


def _row(stage: StageReport) -> StageRow:
    record = stage.record
    metric = stage.planned.spec.headline_metric if record.kind == "finetune" else None
    selected, final = (record.metrics.get(f"{metric}_{checkpoint}") for checkpoint in ("selected", "final"))
    seconds = record.ledger.wall_seconds
    return StageRow(
        record.key, stage.planned.title, record.outcome.value, stage.reused, metric, selected, final, seconds
    )


def run(
    cells: Suite | AnyPath,
    *,
    runs: Runs = "runs",
    only: Names = (),
    settings: Settings | None = None,
    retry: Retry = "infra",
    workers: int | None = None,
    rebuild: bool = False,
    strict: bool = False,
    skip_not_applicable: bool = True,
    synthetic: bool = False,
    on_cpu: bool = False,
    register: AnyPath | None = None,
    sign: AnyPath | None = None,
    where: Where = HERE,
    display: Display | None = None,
) -> RunResult:
    """Run every stage that the cells need and that is not done, and record each; a failed stage is a result, not an error.

    Args:
        cells: a suite, its name or its file; see `cells` for one in code.
        runs: the folder of runs; created if missing.
        only: filters such as `method=ours,csc`.
        settings: data roots, threads, device and executor.
        retry: which runs to retry: `none`, `infra` (interrupted by the machine) or `failed` (infra and failed).
        workers: the number of stages in parallel; as many as fit the machine by default.
        rebuild: rebuild stale images first (executor docker).
        strict: bad lines and frames in the data are errors, not warnings.
        skip_not_applicable: leave out cells that do not apply, unless that leaves none; False refuses them.
        synthetic: allow a GPU-sized budget on generated data, and pre-training on generated data before a task on real data.
        on_cpu: allow a GPU-sized budget on a CPU; device `cpu` in the settings allows it too.
        register: write the cells to this file before the first stage starts; `audit(registered=...)` names those that are
            absent later.
        sign: an SSH key to sign that file with.
        where: this machine, Slurm with its options, or a Ray cluster.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    Raises:
        WrongUse: an unknown name, unusable data, only cells that do not apply, or a budget that does not fit the machine or data.
        EnvironmentCannot: the machine lacks a device, disk space or an engine.
        BenchError: interrupted; run again to resume.
    """
    _check_options(retry, register, sign)
    where.check(workers)
    (store, publish), display, settings = working_store(runs), display or default_display(), settings or Settings()
    resolved = _within_budget(
        resolve(cells, only, where.settings(settings)), store, synthetic, on_cpu or settings.device == "cpu"
    )
    if rebuild:
        _rebuild(resolved, display)
    resolved, executor = _with_executor(resolved, here=where.on == "local")
    planned = _plan(resolved, display, strict, skip_not_applicable)
    store.check_writable()
    if register is not None:
        display.say(register_cells(resolved.suite, planned, register, sign))
    runner = StageRunner(store, executor, display, RunOptions(retry, resolved.machine.imagenet_weights))
    place = place_for(where, resolved, runner, workers)

    def publish_new(report: StageReport) -> None:
        if not report.reused:
            publish(report.record)

    stages = _run_stages(planned, runner, place, workers, resolved.machine.threads, publish_new)
    return RunResult(stages, [c for c in planned if not c.stages])


def _check_options(retry: str, register: AnyPath | None, sign: AnyPath | None) -> None:
    check_signing(register, sign)
    if retry not in get_args(Retry):
        raise WrongUse(f"--retry {retry!r}: expected one of {', '.join(get_args(Retry))}")


def _within_budget(resolved: ResolvedSuite, store: Store, synthetic: bool, on_cpu: bool) -> ResolvedSuite:
    """The suite with its budget under the name that the store knows it by, once checkpoints, machine and data fit it."""
    check_checkpoints(resolved)
    budget, renamed = known_budget(resolved.budget, resolved.methods.values(), store)
    resolved = resolved._replace(budget=budget)
    check_fit(resolved, synthetic, on_cpu)
    resolved.notices.extend([renamed] if renamed else [])
    return resolved


def _plan(resolved: ResolvedSuite, display: Display, strict: bool, skip_not_applicable: bool) -> list[PlannedCell]:
    """Every cell with its stages, and all that a reader should know before they start."""
    for line in resolved.notices:
        display.say(line)
    if not skip_not_applicable:
        resolved.check_needs()
    planned = resolved.prepare(strict, display.progress, display.say)
    absent = [c for c in planned if not c.stages]
    if absent and (not skip_not_applicable or len(absent) == len(planned)):
        raise WrongUse(absent[0].reason)
    for line in (*lines_on_absent(absent), *_part_of_test_splits(planned), *_contaminated(planned)):
        display.say(line)
    return planned


def _run_stages(
    planned: list[PlannedCell],
    runner: StageRunner,
    place: Place,
    workers: int | None,
    threads: int,
    on_report: OnReport,
) -> list[StageReport]:
    """Run what is left, after its estimate, which a note in the store keeps for `status`."""
    store, display = runner.store, runner.display
    if notice := notice_of_missing_links(store.root, "symbolic", "hard"):
        display.say(notice)
    retry_failed = runner.options.retry == "failed"
    left = to_run(states(planned, store, threads, retry_failed=retry_failed), retry_failed)
    if left:
        display.say(estimate_line(left))
        if workers and isinstance(place, LocalMachine) and (line := line_on_workers(left, place.capacity, workers)):
            display.say(line)
    seconds = {s.key: _seconds(s) for s in left}
    with noted(store, {s.key: NotedStage(kind=s.planned.spec.kind, seconds=seconds[s.key]) for s in left}):
        return run_in(place, stages_of(planned), runner, on_report, seconds)


def _seconds(stage: StageState) -> float:
    return 0.0 if stage.estimate is None else stage.estimate.seconds


def _part_of_test_splits(planned: Iterable[PlannedCell]) -> list[str]:
    """A warning for each task whose test split will be scored only in part."""
    specs = [cell.stages[-1].spec for cell in planned if cell.stages]
    return list(
        dict.fromkeys(
            f"warning: {spec.task} on {spec.data.dataset}: {spec.coverage.text}; the record and every table say so"
            for spec in specs
            if spec.data is not None and spec.coverage is not None and not spec.coverage.whole
        )
    )


def _contaminated(planned: Iterable[PlannedCell]) -> list[str]:
    """A warning for each method and task whose pre-training saw, or may have seen, test scenes."""
    cells = [(c.cell, c.stages[-1].contamination) for c in planned if c.stages]
    return list(
        dict.fromkeys(
            f"warning: {cell.method} -> {cell.task}: {seen.mark}; the record and every table say so"
            for cell, seen in cells
            if seen is not None and seen.mark
        )
    )


def _rebuild(resolved: ResolvedSuite, display: Display) -> None:
    """Rebuild the stale images that the cells need; the base is left to `bench images build`."""
    from pretrain_bench.harness.executors.image_build import build_all
    from pretrain_bench.harness.executors.image_contents import TASK, BuildSettings

    if resolved.executor not in ENGINES:
        raise WrongUse(f"--rebuild: only --executor {' and '.join(ENGINES)} has images")
    wanted = [*dict.fromkeys(m.code_of for m in resolved.methods.values() if m.image is None), TASK]
    for built in build_all(wanted, BuildSettings(), IMAGE_LOGS, lambda *_: None, engine=resolved.executor):
        if built.outcome == "build_failed":
            raise EnvironmentCannot(f"image {built.image}: build_failed: {built.message}")
        display.say(f"image {built.image}: {built.outcome}")


def _with_executor(resolved: ResolvedSuite, here: bool) -> tuple[ResolvedSuite, Executor]:
    """The executor, and the suite with the present image ids of users' own methods. A process executor that is used elsewhere
    need not work `here`."""
    if resolved.executor in ENGINES:
        executor = engine_executor(resolved.executor)
        resolved = resolved.with_own_images(executor.client)
        executor.own = {m.name: m.image for m in resolved.methods.values() if m.image is not None}
        executor.check_images(resolved.methods.values())
        return resolved, executor
    for method in resolved.methods.values():
        check_executor(method, resolved.executor)
    if not here:
        return resolved, LocalExecutor()
    device, roots = resolved.machine.device, resolved.sources.roots.values()
    if notice := notice_without_isolation(resolved.executor, device):
        resolved.notices.append(notice)
    return resolved, process_executor(resolved.executor, device, roots)
