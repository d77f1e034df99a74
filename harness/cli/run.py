"""`bench run`: pre-train, fine-tune, score and record."""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import DEFAULT_RUNS, Data, Json, PretrainData, Runs, Strict

if TYPE_CHECKING:
    from benchmarks.specs import Budget, Cell, Method, Profile, Task
    from harness.cli.console import Console
    from harness.data import PreparedDataset
    from harness.executors.base import Executor
    from harness.graph import CellSpecs, Machine, PlannedStage
    from harness.scheduler import StageReport

MAX_DEFAULT_THREADS = 8


def run(
    method: Annotated[list[str], typer.Option("--method", help="A pre-training method; may be given several times.")],
    task: Annotated[str, typer.Option("--task", help="What to fine-tune and score.")],
    budget: Annotated[str, typer.Option("--budget", help="Limits, by name or YAML file.")] = "paper",
    profile: Annotated[
        str | None, typer.Option("--profile", help="Recipe, by name or YAML file.  [default: the one the budget names]")
    ] = None,
    label_ratio: Annotated[list[str], typer.Option("--label-ratio", help="Share of the training scenes.")] = ["100%"],  # noqa: B006
    pretrain_seed: Annotated[list[int], typer.Option("--pretrain-seed", min=0)] = [0],  # noqa: B006
    finetune_seed: Annotated[list[int], typer.Option("--finetune-seed", min=0)] = [0],  # noqa: B006
    data: Data = None,
    pretrain_data: PretrainData = None,
    imagenet_weights: Annotated[
        Path | None,
        typer.Option("--imagenet-weights", help="ResNet weights (torchvision's names) for the 2D encoder of ours."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of a stage.  [default: all, at most 8]")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", envvar="BENCH_SPARSE_BACKEND", help="torch or minkowski.")
    ] = "torch",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: the GPU where there is one.")] = "auto",
    executor: Annotated[
        str, typer.Option("--executor", envvar="BENCH_EXECUTOR", help="local: subprocesses; docker: containers.")
    ] = "local",
    retry: Annotated[
        str, typer.Option("--retry", help="none, or failed: run stages again whose last run failed.")
    ] = "none",
    strict: Strict = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Pre-train, fine-tune and score a method under a budget; what is done already is reused.

    Without --data and --pretrain-data, procedural datasets stand in for S3DIS and ScanNet, and every result says so.
    """
    from benchmarks.errors import BenchError, WrongUse
    from benchmarks.specs import Budget, Method, Profile, Task
    from harness.catalog import find
    from harness.cli.console import Console
    from harness.graph import Machine

    for flag, value, allowed in (
        ("--backend", backend, ("torch", "minkowski")),
        ("--device", device, ("auto", "cpu", "cuda")),
        ("--retry", retry, ("none", "failed")),
        ("--executor", executor, ("local", "docker")),
    ):
        if value not in allowed:
            raise WrongUse(f"{flag} {value!r}: expected one of {', '.join(allowed)}")
    device = _usable_device(backend, device)
    console = Console(quiet=json)
    limits = find(Budget, budget)
    recipe = find(Profile, profile or limits.default_profile or "headline")
    if device == "cpu" and limits.pretrain.gpus:
        console.say(f"budget {limits.name} is meant for a GPU; on this CPU it takes weeks (smoke and tiny fit a CPU)")
    chosen, runner = _with_executor([find(Method, name) for name in method], executor)
    target = find(Task, task)
    machine = Machine(threads or min(os.cpu_count() or 1, MAX_DEFAULT_THREADS), backend, device, imagenet_weights)
    prepared, source = _prepare_data(chosen, target, recipe, data or [], pretrain_data or [], strict, console)
    cells = _cells(chosen, target, limits, recipe, source, label_ratio, pretrain_seed, finetune_seed)
    reports = _run_cells(cells, prepared, machine, runs, runner, retry == "failed", console)
    _summarise(reports, runs, json)
    if any(r.record.outcome != "ok" for r in reports):
        failed = next(r for r in reports if r.record.outcome != "ok")
        hint = "; --retry failed runs it again" if failed.reused else ""
        raise BenchError(f"{failed.planned.title}: {failed.record.outcome.value}: {failed.record.message}{hint}")


def _usable_device(backend: str, device: str) -> str:
    """The device to run on. Raises EnvironmentCannot for a backend or device that this machine lacks."""
    from benchmarks.errors import EnvironmentCannot

    if backend == "minkowski" and importlib.util.find_spec("MinkowskiEngine") is None:
        raise EnvironmentCannot("--backend minkowski: MinkowskiEngine is not installed; use --backend torch")
    # torch takes seconds to load, so it is asked only where a driver has left a device file.
    driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if device == "cpu" or (device == "auto" and not driver):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise EnvironmentCannot("--device cuda: torch finds no CUDA device; use --device cpu, or see `bench doctor`")


def _prepare_data(
    methods: list[Method],
    task: Task,
    profile: Profile,
    data: list[str],
    pretrain_data: list[str],
    strict: bool,
    console: Console,
) -> tuple[dict[str, PreparedDataset], str]:
    """Every dataset that the cells need, ready, by the name it is asked for; and the pre-training dataset's name."""
    from benchmarks.errors import WrongUse
    from benchmarks.specs import Dataset
    from harness.catalog import find
    from harness.data import parse_roots, ready, resolve
    from harness.graph import check_needs

    pretrain_roots = parse_roots(pretrain_data, "--pretrain-data")
    if len(pretrain_roots) > 1:
        raise WrongUse(f"--pretrain-data: one pre-training dataset at a time, not {', '.join(pretrain_roots)}")
    roots = {**parse_roots(data, "--data"), **pretrain_roots}
    prepared: dict[str, PreparedDataset] = {}
    source = resolve(
        next(iter(pretrain_roots), "scannet"), roots, console.say if _any_needs_data(methods) else lambda _: None
    )
    wanted = [(task.dataset, resolve(task.dataset, roots, console.say))]
    if _any_needs_data(methods):
        for method in methods:
            if method.needs.data:
                check_needs(method, find(Dataset, source))
        wanted.append((source, source))
    for asked, name in wanted:
        prepared[asked] = ready(name, roots, profile.frame_stride, strict, console.progress, console.say, profile.world)
    return prepared, source


def _any_needs_data(methods: list[Method]) -> bool:
    return any(m.needs.data for m in methods)


def _cells(
    methods: list[Method],
    task: Task,
    budget: Budget,
    profile: Profile,
    source: str,
    ratios: list[str],
    pretrain_seeds: list[int],
    finetune_seeds: list[int],
) -> list[tuple[Cell, CellSpecs]]:
    from benchmarks.specs import Cell, LabelRatio
    from harness.graph import NO_DATASET, CellSpecs

    cells = []
    for method, ratio, one, two in itertools.product(methods, ratios, pretrain_seeds, finetune_seeds):
        cell = Cell(
            method=method.name,
            pretrain_dataset=source if method.needs.data else NO_DATASET,
            task=task.name,
            label_ratio=LabelRatio.parse(ratio),
            pretrain_seed=one,
            finetune_seed=two,
            budget=budget.name,
            profile=profile.name,
        )
        cells.append((cell, CellSpecs(method, task, budget, profile)))
    return cells


def _run_cells(
    planned: list[tuple[Cell, CellSpecs]],
    prepared: dict[str, PreparedDataset],
    machine: Machine,
    runs: Path,
    executor: Executor,
    retry_failed: bool,
    console: Console,
) -> list[StageReport]:
    from harness.graph import stages_of
    from harness.scheduler import run_chain
    from harness.store import Store

    # All cells are planned before the first one starts, so that what cannot be is refused at once.
    chains: list[list[PlannedStage]] = [stages_of(cell, specs, prepared, machine) for cell, specs in planned]
    store = Store(runs.resolve())
    store.check_writable()
    reports: list[StageReport] = []
    for chain in chains:
        reports += run_chain(
            chain, store, executor, console, retry_failed=retry_failed, imagenet_weights=machine.imagenet_weights
        )
    return reports


def _with_executor(methods: list[Method], name: str) -> tuple[list[Method], Executor]:
    """The methods, users' own with their image as it is now, and what runs them."""
    from benchmarks.errors import WrongUse

    names = [m.name for m in methods]
    if len(set(names)) < len(names):
        raise WrongUse(f"two methods of one name: {', '.join(names)}")
    own = {m.name: m.image for m in methods if m.image is not None}
    if name == "docker":
        from harness.executors.docker import DockerExecutor
        from harness.images import with_image

        runner = DockerExecutor()
        methods = [with_image(runner.client, m) if m.image else m for m in methods]
        runner.own = {m.name: m.image for m in methods if m.image is not None}
        runner.check_images(methods)
        return methods, runner
    if own:
        raise WrongUse(f"method {next(iter(own))!r} is a container of your own; run it with --executor docker")
    from harness.executors.local import LocalExecutor

    return methods, LocalExecutor()


def _summarise(reports: list[StageReport], runs: Path, as_json: bool) -> None:
    from harness.cli.console import per_cent, print_json, table

    if as_json:
        print_json([{"reused": r.reused, "record": r.record.model_dump(mode="json")} for r in reports])
        return
    rows = []
    for report in reports:
        metrics = report.record.metrics
        rows.append(
            (
                report.record.key,
                report.planned.title,
                report.record.outcome.value + (" (reused)" if report.reused else ""),
                per_cent(metrics.get("miou_voxel_selected")),
                per_cent(metrics.get("miou_voxel_final")),
                f"{report.record.ledger.wall_seconds:.0f}",
            )
        )
    print(table(("run", "stage", "outcome", "selected", "final", "seconds"), rows))
    notes = ["selected, final: mIoU on voxels in per cent"]
    if any(r.record.synthetic for r in reports):
        notes.append("SYNTHETIC data: these numbers say nothing about real scenes")
    if reports and all(r.reused for r in reports):
        notes.append("nothing to do: every stage was done before")
    print("\n".join(f"* {note}" for note in notes))
    print(f"next: bench report --runs {runs}")
