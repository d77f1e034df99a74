"""`bench plan`: the stages of a suite with their state, and an estimate for those to run. Nothing runs."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.matrix import Matrix, takes_matrix
from pretrain_bench.harness.cli.options import Register, Sign, display

if TYPE_CHECKING:
    from pretrain_bench.harness.clusters.simulated import Simulation
    from pretrain_bench.harness.planning.plan import StageState

SHOWN = 40
LONG_ON_A_CPU = 24 * 3600.0  # seconds


@takes_matrix
def plan(
    matrix: Matrix,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Estimate for another machine: h100 and cpu (measured), a100 and rtx4090 (derived from data sheets), or a YAML "
            "file of rates. (default: this machine)",
            autocompletion=completion.rates,
        ),
    ] = None,
    simulate: Annotated[
        str | None,
        typer.Option(
            "--simulate",
            metavar="SHAPE",
            help="Replay the scheduler on a cluster, nodes=N,gpus=N[,cpus=N][,memory=GIB][,node=RATES] of each node, with RATES "
            "as for --on: makespan, utilisation, longest chain.",
        ),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help=f"List every stage, not the first {SHOWN}.")] = False,
    register: Register = None,
    sign: Sign = None,
) -> None:
    """List the stages of `bench run` with the same options and their states; then the totals.

    A stage is done, running, stale (and why), failed, n/a, waiting (its data are not prepared) or to do.

    `bench plan SUITE` is short for --suite. Totals are hours with a range, GPU-days and disk, for each method. No data
    are needed: a GPU-sized budget is planned on datasets of their published size, other budgets on generated data.
    Nothing is prepared or run, and only --register writes a file; --workers, --rebuild and --strict have no effect.
    """
    from pretrain_bench.api.planning import ClusterShape, check_signing
    from pretrain_bench.harness.cli.console import print_json

    check_signing(register, sign)
    shown, shape = display(matrix.json), None if simulate is None else ClusterShape.parse(simulate)
    if shape is not None and shape.node is not None:
        if on not in (None, shape.node):
            raise pb.WrongUse(f"--on {on} and --simulate node={shape.node}: both name the machine; give one of them")
        on = shape.node
    if len(matrix.names) == 1 and matrix.suite is None and matrix.method is None and matrix.task is None:
        matrix = matrix._replace(suite=matrix.names[0], words=[w for w in matrix.words or [] if "=" in w])
    suite = matrix.cells("plan", shown.say, on)
    planned = pb.plan(
        suite,
        runs=matrix.runs,
        only=matrix.filters,
        settings=matrix.settings(),
        on=on,
        synthetic=matrix.synthetic,
        retry=matrix.retry,
    )
    for line in planned.notices:
        shown.say(line)
    simulated = None if shape is None else planned.simulate(shape)
    if register is not None:
        shown.say(planned.register(register, sign))
    if matrix.json:
        print_json(_as_json(planned) | {"simulation": simulated._asdict() if simulated else None})
    else:
        _print(planned, show_all)
        if simulated is not None:
            _print_simulation(simulated)
        for line in pb.power_of_plan(planned, matrix.runs):
            print(f"power: {line}")


def _as_json(plan: pb.Plan) -> dict[str, Any]:
    return {
        "suite": plan.suite.name,
        "cells": len(plan.cells) + len(plan.waiting),
        "not_applicable": [
            {"cell": c.cell.model_dump(mode="json"), "reason": c.reason} for c in plan.not_applicable
        ],
        "waiting_for_data": [{"cell": w.cell.model_dump(mode="json"), "datasets": w.datasets} for w in plan.waiting],
        "stages": [
            {
                "key": s.known_key, "title": s.planned.long_title, "kind": s.planned.spec.kind, "seed": s.planned.spec.seed,
                "cell": s.planned.cell.model_dump(mode="json") if s.planned.cell else None,
                "state": s.state.value, "reason": s.reason, "estimate": s.estimate._asdict() if s.estimate else None,
            }
            for s in [*plan.stages, *plan.expected]
        ],
        "notices": plan.notices,
        "needs": plan.needs,
        "cache_bytes": plan.cache_bytes,
        "totals": {name: total._asdict() for name, total in plan.totals().items()},
    }  # fmt: skip


def _print(plan: pb.Plan, show_all: bool) -> None:
    from pretrain_bench.harness.cli.console import table

    suite, absent = plan.suite, plan.not_applicable
    description = suite.description.strip()
    print(f"suite {suite.name} v{suite.version}" + (f": {description}" if description else ""))
    cells, names = len(plan.cells) + len(plan.waiting), f"budget {plan.budget.name}, profile {plan.profile.name}"
    print(
        f"{cells} cells, {len(plan.stages) + len(plan.expected)} stages, {names}"
        + (f", {len(absent)} cells n/a" if absent else "")
    )
    listed = list(_rows(plan) if show_all else itertools.islice(_rows(plan), SHOWN))
    if listed:
        print("\n" + table(("run", "stage", "seeds", "state", "time", "why"), listed))
    if more := len(plan.remaining) + len(plan.expected) + sum(not w.stages for w in plan.waiting) - len(listed):
        print(f"... and {more} more; --all lists them")
    for line in plan.lines_on_not_applicable():
        print(f"* {line}")
    if waiting := len(plan.waiting):
        unsized = sum(not w.stages for w in plan.waiting)
        rest = f"; {unsized} of them are not counted, as the size of their data is not known" if unsized else ""
        print(f"* {waiting} cells wait for data and are estimated from its published size{rest}")
    needs = [(n["what"], n["state"], _size(n["bytes"]), n["detail"]) for n in plan.needs]
    print("\n" + table(("needs", "state", "size", "what to do, terms"), needs))
    counts = Counter(s.state.value for s in [*plan.stages, *plan.expected])
    if counts:
        print("\n" + ", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    _print_totals(plan)


def _rows(plan: pb.Plan) -> Iterator[tuple[str, ...]]:
    """Stages that are not done, then cells that wait for data."""
    from pretrain_bench.api.planning import title_of
    from pretrain_bench.harness.cli.console import seeds

    for stage in plan.remaining:
        spec, cell = stage.planned.spec, stage.planned.cell
        facts = (stage.key[:8], stage.planned.long_title, seeds(cell, spec.seed))
        yield (*facts, stage.state.value, _time(stage), stage.reason or "-")
    for stage in plan.expected:
        seed = seeds(stage.planned.cell, stage.planned.spec.seed)
        yield (
            (stage.known_key or "-")[:8],
            stage.planned.long_title,
            seed,
            stage.state.value,
            _time(stage),
            stage.reason or "-",
        )
    for waiting in plan.waiting:
        if not waiting.stages:
            cell, reason = waiting.cell, f"for data: {', '.join(waiting.datasets)}"
            yield ("-", title_of(cell), seeds(cell, None), "waiting", "-", reason)


def _print_totals(plan: pb.Plan) -> None:
    from pretrain_bench.api.display import duration
    from pretrain_bench.api.planning import ALL_METHODS
    from pretrain_bench.api.sizing import time_range
    from pretrain_bench.harness.cli.console import WIDTH, table

    totals = plan.totals()
    if not totals[ALL_METHODS].stages:
        return
    rows = [
        (
            name, f"{t.stages:,}", duration(t.seconds), time_range(t),
            f"{t.gpu_seconds / 86400:,.1f}" if t.gpu_seconds else "-", _size(t.bytes),
        )
        for name, t in totals.items()
    ]  # fmt: skip
    print("\n" + table(("to run", "stages", "about", "range", "GPU-days", "store"), rows))
    size = f"the cache takes about {_size(plan.cache_bytes)} of prepared data, the store {_size(totals[ALL_METHODS].bytes)}"
    print(f"* disk: {size}")
    stages = [*plan.remaining, *plan.expected]
    sources = Counter(s.estimate.source for s in stages if s.estimate is not None)
    how = ", ".join(f"{number:,} {SOURCES[source]}" for source, number in sources.items())
    print(textwrap.fill(f"* times are of one stage after the other: {how}", WIDTH, subsequent_indent="  "))
    if plan.rates is None and not totals[ALL_METHODS].gpu_seconds and totals[ALL_METHODS].seconds > LONG_ON_A_CPU:
        print("* these are hours of a CPU; --on h100 estimates those of a GPU")
    if plan.rates is not None:
        rates = plan.rates
        print(textwrap.fill(f"* {rates.title}, {rates.basis}: {rates.source}", WIDTH, subsequent_indent="  "))
        if rates.remark:
            print(textwrap.fill(f"* {rates.remark}", WIDTH, subsequent_indent="  "))


def _print_simulation(simulated: Simulation) -> None:
    from pretrain_bench.api.display import duration
    from pretrain_bench.harness.cli.console import WIDTH, per_cent

    print(f"\nsimulated on {simulated.gpus:,} GPUs and {simulated.cpus:,} CPUs: {simulated.stages:,} stages in "
          f"{duration(simulated.makespan_seconds)}")  # fmt: skip
    used, cpus = per_cent(simulated.gpu_utilisation), per_cent(simulated.cpu_utilisation)
    chain = f"{' -> '.join(simulated.longest_chain)} ({duration(simulated.longest_chain_seconds)})"
    lines = [
        f"utilisation: GPUs {used} %, CPUs {cpus} %" if simulated.gpus else f"utilisation: CPUs {cpus} %",
        f"longest chain: {chain}",
        f"packing costs {per_cent(simulated.packing_cost)} %: no schedule takes less than {duration(simulated.least_seconds)}",
    ]
    if simulated.gpus and not simulated.gpu_utilisation:
        lines.append("no stage of this plan uses a GPU; node=h100 (or --on) plans for one")
    if simulated.blocked:
        lines.append(
            f"{simulated.blocked:,} stages build on a failed one and never start; --retry failed runs it again"
        )
    for line in lines:
        print(textwrap.fill(f"* {line}", WIDTH, subsequent_indent="  "))


SOURCES = {
    "earlier runs": "from earlier runs of the same kind here",
    "calibrated": "from a count of the work and the speed of earlier runs here",
    "rough": "from a count of the work (rough)",
}


def _size(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:,.2f} GB"


def _time(state: StageState) -> str:
    from pretrain_bench.api.display import duration

    if state.estimate is None:
        return "-"
    return ("~" if state.estimate.source != "earlier runs" else "") + duration(state.estimate.seconds)
