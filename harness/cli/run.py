"""`bench run`: pre-train, fine-tune, score and record: cells named by options, or those of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrain_bench.harness.cli.options import (
    DEFAULT_RUNS,
    Backend,
    Data,
    Device,
    ExecutorName,
    Filters,
    ImagenetWeights,
    Json,
    Only,
    PretrainData,
    Runs,
    Strict,
    Threads,
)

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.suite import Suite
    from pretrain_bench.harness.cli.console import Console
    from pretrain_bench.harness.executors.base import Executor
    from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite
    from pretrain_bench.harness.planning.stage_specs import PlannedCell
    from pretrain_bench.harness.running.stage_runner import StageReport


def run(
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A pre-training method; may be given several times.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="What to fine-tune and score.")] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Run a whole matrix, by name or YAML file, in place of the above.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Limits, by name or YAML file.  [default: paper]")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Recipe, by name or YAML file.  [default: the one the budget names]")
    ] = None,
    label_ratio: Annotated[
        list[str] | None, typer.Option("--label-ratio", help="Share of the training scenes.  [default: 100%]")
    ] = None,
    pretrain_seed: Annotated[
        list[int] | None, typer.Option("--pretrain-seed", min=0, help="May be given several times.  [default: 0]")
    ] = None,
    finetune_seed: Annotated[
        list[int] | None, typer.Option("--finetune-seed", min=0, help="May be given several times.  [default: 0]")
    ] = None,
    filters: Filters = None,
    only: Only = None,
    data: Data = None,
    pretrain_data: PretrainData = None,
    imagenet_weights: ImagenetWeights = None,
    threads: Threads = None,
    backend: Backend = "torch",
    device: Device = "auto",
    executor: ExecutorName = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Stages side by side.  [default: as many as there is room for]"),
    ] = None,
    retry: Annotated[
        str,
        typer.Option(
            "--retry", help="What runs again: none; infra: what the machine broke off; failed: also what failed."
        ),
    ] = "infra",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build images of methods and tasks that do not fit their code any more.")
    ] = False,
    strict: Strict = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Pre-train, fine-tune and score methods under a budget; what is done already is reused.

    Without --data and --pretrain-data, procedural datasets stand in for S3DIS and ScanNet, and every result says so.
    """
    from pretrain_bench.benchmarks.specs.suite import parse_filters
    from pretrain_bench.benchmarks.support.errors import BenchError, WrongUse
    from pretrain_bench.harness.cli.console import Console
    from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
    from pretrain_bench.harness.store.store import Store

    if retry not in ("none", "infra", "failed"):
        raise WrongUse(f"--retry {retry!r}: expected one of none, infra, failed")
    single = {
        "--method": method, "--task": task, "--budget": budget, "--profile": profile, "--label-ratio": label_ratio,
        "--pretrain-seed": pretrain_seed, "--finetune-seed": finetune_seed,
    }  # fmt: skip
    chosen = _suite(suite, single)
    Store(runs).refuse_bundle()
    console = Console(quiet=json)
    texts = [*(only or []), *(filters or [])]
    if texts and suite is None:
        raise WrongUse(f"{texts[0]!r}: filters pick cells of a --suite")
    choice = RunOverrides(data or [], pretrain_data or [], threads, backend, device, executor, imagenet_weights)
    matrix = resolve_suite(chosen, parse_filters(texts), choice)
    if matrix.machine.device == "cpu" and matrix.budget.pretrain.gpus:
        name = matrix.budget.name
        console.say(f"budget {name} is meant for a GPU; on this CPU it takes weeks (smoke and tiny fit a CPU)")
    if rebuild:
        _rebuild(matrix, console)
    matrix, runner = _with_executor(matrix, executor)
    for line in matrix.said:
        console.say(line)
    if suite is None:
        matrix.check_needs()
    cells = matrix.prepare(strict, console.progress, console.say)
    absent = [c for c in cells if not c.stages]
    # Of a suite, cells that make no sense are left out; what a person asks for by name is refused.
    if absent and (suite is None or len(absent) == len(cells)):
        raise WrongUse(absent[0].reason)
    for cell in absent:
        ratio = cell.cell.label_ratio
        console.say(f"{cell.cell.method} -> {cell.cell.task} at {ratio}: n/a: {cell.reason.removeprefix('n/a: ')}")
    reports = _run_cells(cells, matrix, runs, runner, retry, workers, console)
    _summarise(reports, runs, json)
    failed = [r for r in reports if r.record.outcome != "ok"]
    if failed:
        first = failed[0]
        hint = "; --retry failed runs it again" if first.reused else ""
        more = f"; {len(failed) - 1} more failed" if len(failed) > 1 else ""
        raise BenchError(f"{first.planned.title}: {first.record.outcome.value}: {first.record.message}{hint}{more}")


def _suite(name: str | None, single: dict[str, Any]) -> Suite:
    """The suite that is named, or one of the cells that the options name."""
    from pretrain_bench.benchmarks.specs.loading import parse_spec
    from pretrain_bench.benchmarks.specs.suite import Suite
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.planning.catalog import find

    given = [flag for flag, value in single.items() if value is not None]
    if name is not None:
        if given:
            raise WrongUse(f"--suite and {given[0]}: a suite names its own; pick among its cells with --only")
        return find(Suite, name)
    for flag in ("--method", "--task"):
        if flag not in given:
            raise WrongUse(f"{flag} is missing; name a method and a task, or a --suite")
    fields = {
        "name": "command-line", "version": 1, "budget": single["--budget"] or "paper", "profile": single["--profile"],
        "methods": single["--method"], "tasks": [single["--task"]],
        "label_ratios": single["--label-ratio"] or ["100%"],
        "pretrain_seeds": single["--pretrain-seed"] or [0], "finetune_seeds": single["--finetune-seed"] or [0],
    }  # fmt: skip
    return parse_spec(fields, Suite, "command line")


def _run_cells(
    cells: list[PlannedCell],
    matrix: ResolvedSuite,
    runs: Path,
    executor: Executor,
    retry: Any,
    workers: int | None,
    console: Console,
) -> list[StageReport]:
    from pretrain_bench.harness.running.scheduler import run_cells, whole_machine
    from pretrain_bench.harness.running.stage_runner import RunOptions
    from pretrain_bench.harness.store.store import Store

    store = Store(runs.resolve())
    store.check_writable()
    wishes = RunOptions(retry, matrix.machine.imagenet_weights)
    room = whole_machine(matrix.machine.device)
    return run_cells(cells, store, executor, console, wishes, room, workers)


def _rebuild(matrix: ResolvedSuite, console: Console) -> None:
    """Build the images that the cells need and that do not fit; the base is left to `bench images build`."""
    from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
    from pretrain_bench.harness.executors.images import TASK, BuildSettings, build_all

    if matrix.executor != "docker":
        raise WrongUse("--rebuild: only --executor docker has images")
    wanted = [*(m.name for m in matrix.methods.values() if m.image is None), TASK]
    for built in build_all(wanted, BuildSettings(), Path("image-logs"), lambda *_: None):
        if built.outcome == "build_failed":
            raise EnvironmentCannot(f"image {built.image}: build_failed: {built.message}")
        console.say(f"image {built.image}: {built.outcome}")


def _with_executor(matrix: ResolvedSuite, name: str) -> tuple[ResolvedSuite, Executor]:
    """The matrix, users' own methods with their image as it is now, and what runs its stages."""
    from pretrain_bench.benchmarks.support.errors import WrongUse

    own = [m.name for m in matrix.methods.values() if m.image is not None]
    if name == "docker":
        from pretrain_bench.harness.executors.docker import DockerExecutor

        runner = DockerExecutor()
        matrix = matrix.with_own_images(runner.client)
        runner.own = {m.name: m.image for m in matrix.methods.values() if m.image is not None}
        runner.check_images(matrix.methods.values())
        return matrix, runner
    if own:
        raise WrongUse(f"method {own[0]!r} is a container of your own; run it with --executor docker")
    from pretrain_bench.harness.executors.local import LocalExecutor

    return matrix, LocalExecutor()


def _summarise(reports: list[StageReport], runs: Path, as_json: bool) -> None:
    from pretrain_bench.benchmarks.metrics.names import TITLES
    from pretrain_bench.harness.cli.console import per_cent, print_json, table

    if as_json:
        print_json([{"reused": r.reused, "record": r.record.model_dump(mode="json")} for r in reports])
        return
    rows = []
    for report in reports:
        metrics, metric = report.record.metrics, report.planned.spec.headline_metric
        rows.append(
            (
                report.record.key,
                report.planned.title,
                report.record.outcome.value + (" (reused)" if report.reused else ""),
                per_cent(metrics.get(f"{metric}_selected")),
                per_cent(metrics.get(f"{metric}_final")),
                f"{report.record.ledger.wall_seconds:.0f}",
            )
        )
    print(table(("run", "stage", "outcome", "selected", "final", "seconds"), rows))
    names = sorted({TITLES[r.planned.spec.headline_metric] for r in reports if r.record.kind == "finetune"})
    notes = [f"selected, final: {' or '.join(names)}, in per cent"] if names else []
    if any(r.record.synthetic for r in reports):
        notes.append("SYNTHETIC data: these numbers say nothing about real scenes")
    if reports and all(r.reused for r in reports):
        notes.append("nothing to do: every stage was done before")
    print("\n".join(f"* {note}" for note in notes))
    print(f"next: bench report --runs {runs}")
