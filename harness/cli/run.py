"""`bench run`: pre-train, fine-tune, score and record: cells named by options, or those of a suite."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.matrix import Matrix, takes_matrix
from pretrain_bench.harness.cli.options import Address, OnPlace, Register, Sign, SlurmOption, display

if TYPE_CHECKING:
    from pretrain_bench.harness.running.stage_runner import StageReport


@takes_matrix
def run(
    matrix: Matrix,
    stop_when_decided: Annotated[
        Literal["pocock", "obrien-fleming"] | None,
        typer.Option(
            "--stop-when-decided",
            help="Run two pre-training seeds of the suite at a time; stop once all methods differ from scratch.",
        ),
    ] = None,
    register: Register = None,
    sign: Sign = None,
    on: OnPlace = "local",
    slurm: SlurmOption = None,
    max_pending: Annotated[
        int | None,
        typer.Option(
            "--max-pending",
            min=1,
            help="Maximum number of stages submitted to the cluster at a time. (default: 200; on Ray 1,000)",
        ),
    ] = None,
    address: Address = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --on slurm: submit this command as a small job, and return.")
    ] = False,
) -> None:
    """Pre-train, fine-tune and score methods under a budget; finished stages are reused.

    Without --data and --pretrain-data, generated datasets replace S3DIS and ScanNet, every result says so, and the budget is
    smoke, which takes minutes. `bench plan` with the same options estimates the time.
    """
    from pretrain_bench.api.planning import check_signing

    shown, where = display(matrix.json), pb.Where(on, tuple(slurm or ()), max_pending, address)
    where.check(matrix.workers)
    check_signing(register, sign)
    suite = matrix.cells("run", shown.say, settings=where.settings(matrix.settings()))
    if stop_when_decided is not None and matrix.suite is None:
        raise pb.WrongUse("--stop-when-decided: it takes the seeds of a --suite, two at a time")
    if stop_when_decided is not None and register is not None:
        raise pb.WrongUse("--register and --stop-when-decided: the cells that will run are not known beforehand")
    if detach:
        submitted = pb.detach([a for a in sys.argv[1:] if a != "--detach"], where, matrix.runs)
        print(f"job {submitted.job} runs this command; its log is in {submitted.log}")
        print(f"next: bench status --runs {matrix.runs}")
        return
    options: dict[str, Any] = dict(
        runs=matrix.runs,
        only=matrix.filters,
        settings=matrix.settings(),
        retry=matrix.retry,
        workers=matrix.workers,
        rebuild=matrix.rebuild,
        strict=matrix.strict,
        # A suite leaves out cells that make no sense; the same cell named by options is refused.
        skip_not_applicable=matrix.suite is not None,
        synthetic=matrix.synthetic,
        on_cpu=matrix.budget is not None,
        register=register,
        sign=sign,
        where=where,
        display=shown,
    )
    if stop_when_decided is None:
        result = pb.run(suite, **options)
    else:
        result, _ = pb.run_until_decided(suite, stop_when_decided, **options)
    _print(result, matrix)
    result.raise_if_failed()


def _as_json(stage: pb.StageReport) -> dict[str, Any]:
    planned, record = stage.planned, stage.record
    seed = None if record.cell else planned.spec.seed
    facts = {"reused": stage.reused, "title": planned.title, "seed": seed, "budget": planned.spec.limits.budget}
    return {**facts, "record": record.model_dump(mode="json")}


def _print(result: pb.RunResult, matrix: Matrix) -> None:
    from pretrain_bench.harness.cli.console import per_cent, print_json, table

    if matrix.json:
        print_json([_as_json(stage) for stage in result.stages])
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
    if probed := {cell.protocol for cell in result.probes_without_baseline()}:
        add = (
            "add --method scratch to the same command" if matrix.suite is None else "add scratch to the suite's methods"
        )
        print(f"next: {add}: {' and '.join(sorted(probed))} probes are compared with a frozen random backbone")
    for step in pb.next_steps(result.stages):
        print(f"next: {step}")
    print(f"next: bench report --runs {matrix.runs}")


def _warnings(stages: Iterable[StageReport]) -> list[str]:
    """The warnings of stages; those of one method that differ only in numbers (other seeds and ratios) are one line."""
    from pretrain_bench.api.display import printable

    alike: dict[tuple[str, str], list[str]] = {}
    for stage in stages:
        for text in stage.record.warnings:
            kind = (stage.record.method, re.sub(r"[0-9.]+", "", text))
            alike.setdefault(kind, []).append(f"warning: {stage.planned.title}: {printable(text)}")
    return [
        first + (f" (also in {len(more)} similar stage{'s' * (len(more) > 1)})" if more else "")
        for first, *more in alike.values()
    ]


def _notes(result: pb.RunResult) -> list[str]:
    from pretrain_bench.benchmarks.metrics.names import TITLES

    names = sorted({TITLES[row.metric] for row in result.rows() if row.metric})
    notes = [f"selected, final: {' or '.join(names)}, in per cent"] if names else []
    if any(s.record.synthetic for s in result.stages):
        notes.append("SYNTHETIC data: these numbers say nothing about real scenes")
    notes += _warnings(result.stages)
    if result.stages and all(s.reused for s in result.stages):
        notes.append("nothing to do: every stage was done before")
    return list(dict.fromkeys(notes))
