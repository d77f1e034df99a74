"""`bench run`: pre-train, fine-tune, score and record: cells named by options, or those of a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import (
    DEFAULT_RUNS,
    Backend,
    Data,
    Device,
    ExecutorName,
    Filters,
    ImagenetWeights,
    Json,
    LabelSplits,
    Only,
    PretrainData,
    Runs,
    Strict,
    Threads,
    TrustCode,
    Up,
    display,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pretrain_bench.api.display import Display
    from pretrain_bench.benchmarks.specs.suite import Suite


def run(
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="A pre-training method, or the folder of your own; may be given several times."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="What to fine-tune and score, by name or YAML file; may be given several times."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Run a whole matrix, by name or YAML file, in place of the above.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Limits, by name or YAML file. (default: uniform with a GPU and data for the task, else smoke)",
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Recipe, by name or YAML file. (default: the one the budget names)")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            help="finetune, linear (frozen backbone, linear head) or decoder (frozen encoder). (default: finetune)",
        ),
    ] = None,
    label_ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--label-ratio",
            help="Share of the training scenes such as 5%, 20points or 2boxes of each, or an official list such as "
            "scannet-lr20 or la20. (default: 100%)",
        ),
    ] = None,
    pretrain_seed: Annotated[
        list[int] | None, typer.Option("--pretrain-seed", min=0, help="May be given several times. (default: 0)")
    ] = None,
    finetune_seed: Annotated[
        list[int] | None, typer.Option("--finetune-seed", min=0, help="May be given several times. (default: 0)")
    ] = None,
    filters: Filters = None,
    only: Only = None,
    data: Data = None,
    pretrain_data: PretrainData = None,
    imagenet_weights: ImagenetWeights = None,
    threads: Threads = None,
    backend: Backend = "torch",
    device: Device = "auto",
    executor: ExecutorName = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Stages side by side. (default: as many as fit the machine)"),
    ] = None,
    retry: Annotated[
        str,
        typer.Option(
            "--retry", help="Which runs to retry: none, infra (interrupted by the machine), failed (infra + failed)."
        ),
    ] = "infra",
    stop_when_decided: Annotated[
        str | None,
        typer.Option(
            "--stop-when-decided",
            metavar="RULE",
            help="Two pre-training seeds of a suite at a time, until all methods differ from scratch: pocock or obrien-fleming.",
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild stale images.")] = False,
    strict: Strict = False,
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic", help="Allow a GPU-sized budget, or pre-training before a real task, on generated data."
        ),
    ] = False,
    trust_code: TrustCode = False,
    up: Up = "auto",
    label_split: LabelSplits = None,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Pre-train, fine-tune and score methods under a budget; what is done already is reused.

    Without --data and --pretrain-data, generated datasets stand in for S3DIS and ScanNet, every result says so, and the budget is
    smoke, which takes minutes.
    """
    single = {
        "--method": method, "--task": task, "--budget": budget, "--profile": profile, "--protocol": protocol,
        "--label-ratio": label_ratio,
        "--pretrain-seed": pretrain_seed, "--finetune-seed": finetune_seed,
    }  # fmt: skip
    picks = [*(only or []), *(filters or [])]
    if picks and suite is None:
        raise pb.WrongUse(f"{picks[0]!r}: filters pick cells of a --suite")
    settings = pb.Settings(
        data or (),
        pretrain_data or (),
        imagenet_weights,
        threads,
        backend,
        device,
        executor,
        trust_code,
        up,
        label_splits=label_split or (),
    )
    shown = display(json)
    cells = _cells(suite, single, settings, shown)
    if stop_when_decided is not None and suite is None:
        raise pb.WrongUse("--stop-when-decided: it takes the seeds of a --suite, two at a time")
    options: dict[str, Any] = dict(
        runs=runs,
        only=picks,
        settings=settings,
        retry=retry,
        workers=workers,
        rebuild=rebuild,
        strict=strict,
        # Of a suite, cells that make no sense are left out; what is asked for by name is refused.
        skip_not_applicable=suite is not None,
        synthetic=synthetic,
        on_cpu=budget is not None,
        display=shown,
    )
    if stop_when_decided is None:
        result = pb.run(cells, **options)
    else:
        result, _ = pb.run_until_decided(cells, stop_when_decided, **options)  # type: ignore[arg-type]
    _print(result, runs, json)
    result.raise_if_failed()


def _cells(suite: str | None, single: dict[str, Any], settings: pb.Settings, shown: Display) -> Suite:
    """The suite that is named, or one of the cells that the options name, with a budget that fits where none is named."""
    given = [flag for flag, value in single.items() if value is not None]
    if suite is not None:
        if given:
            raise pb.WrongUse(f"--suite and {given[0]}: a suite names its own; pick among its cells with --only")
        return pb.suite(suite)
    for flag in ("--method", "--task"):
        if flag not in given:
            raise pb.WrongUse(f"{flag} is missing; name a method and a task, or a --suite")
    budget = single["--budget"]
    if budget is None:
        budget, reasons = pb.fitting_budget(single["--method"], single["--task"], settings)
        for reason in reasons:
            shown.say(reason)
    return pb.cells(
        single["--method"],
        single["--task"],
        budget=budget,
        profile=single["--profile"],
        protocols=single["--protocol"] or ["finetune"],
        label_ratios=single["--label-ratio"] or ["100%"],
        pretrain_seeds=single["--pretrain-seed"] or [0],
        finetune_seeds=single["--finetune-seed"] or [0],
    )


def _print(result: pb.RunResult, runs: Path, as_json: bool) -> None:
    from pretrain_bench.harness.cli.console import per_cent, print_json, table

    if as_json:
        print_json([{"reused": s.reused, "record": s.record.model_dump(mode="json")} for s in result.stages])
        return
    rows = [
        (
            row.key,
            row.title,
            row.outcome + (" (reused)" if row.reused else ""),
            per_cent(row.selected),
            per_cent(row.final),
            f"{row.seconds:.0f}",
        )
        for row in result.rows()
    ]
    print(table(("run", "stage", "outcome", "selected", "final", "seconds"), rows))
    print("\n".join(f"* {note}" for note in _notes(result)))
    for cell in result.probes_without_baseline():
        options = (
            f"--task {cell.task} --protocol {cell.protocol} --label-ratio {cell.label_ratio} --budget {cell.budget}"
        )
        why = "the frozen random backbone, which a probe is compared with"
        print(f"next: bench run --method scratch {options} --runs {runs} ({why})")
    print(f"next: bench report --runs {runs}")


def _notes(result: pb.RunResult) -> list[str]:
    from pretrain_bench.benchmarks.metrics.names import TITLES

    names = sorted({TITLES[row.metric] for row in result.rows() if row.metric})
    notes = [f"selected, final: {' or '.join(names)}, in per cent"] if names else []
    if any(s.record.synthetic for s in result.stages):
        notes.append("SYNTHETIC data: these numbers say nothing about real scenes")
    if result.stages and all(s.reused for s in result.stages):
        notes.append("nothing to do: every stage was done before")
    return notes
