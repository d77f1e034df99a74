"""`bench plan`: what a suite comes to, what of it is done, and what the rest will take. Nothing runs."""

from __future__ import annotations

import textwrap
from collections import Counter
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
    Threads,
)

if TYPE_CHECKING:
    from pretrain_bench.harness.planning.plan import StageState
    from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite, WaitingCell
    from pretrain_bench.harness.planning.stage_specs import PlannedCell

SHOWN = 40


def plan(
    suite: Annotated[str, typer.Argument(help="A suite, by name or YAML file; `bench suites` lists them.")],
    filters: Filters = None,
    only: Only = None,
    data: Data = None,
    pretrain_data: PretrainData = None,
    imagenet_weights: ImagenetWeights = None,
    threads: Threads = None,
    backend: Backend = "torch",
    device: Device = "auto",
    executor: ExecutorName = "local",
    show_all: Annotated[bool, typer.Option("--all", help=f"List every stage, not the first {SHOWN}.")] = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """List the stages of a suite: done, stale (and why), failed, n/a or to do, with an estimate of hours and disk.

    Says which data sets and images are missing. Nothing is prepared and nothing runs.
    """
    from pretrain_bench.harness.cli.console import print_json
    from pretrain_bench.harness.planning.plan import states
    from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_named_suite
    from pretrain_bench.harness.store.bundle import open_store

    choice = RunOverrides(data or [], pretrain_data or [], threads, backend, device, executor, imagenet_weights)
    matrix = resolve_named_suite(suite, [*(only or []), *(filters or [])], choice)
    if executor == "docker":
        from pretrain_bench.harness.executors.images import connect

        matrix = matrix.with_own_images(connect())
    cells, waiting = matrix.plan_prepared()
    found = states(cells, open_store(runs), matrix.machine.threads)
    needs = matrix.needs()
    if json:
        print_json(_as_json(matrix, cells, waiting, found, needs))
        return
    _print(matrix, cells, waiting, found, needs, show_all)


def _as_json(
    matrix: ResolvedSuite,
    cells: list[PlannedCell],
    waiting: list[WaitingCell],
    found: list[StageState],
    needs: list[dict[str, str]],
) -> dict[str, Any]:
    return {
        "suite": matrix.suite.name,
        "cells": len(cells) + len(waiting),
        "not_applicable": [
            {"cell": c.cell.model_dump(mode="json"), "reason": c.reason} for c in cells if not c.stages
        ],
        "waiting_for_data": [{"cell": w.cell.model_dump(mode="json"), "datasets": w.datasets} for w in waiting],
        "stages": [
            {
                "key": s.key, "title": s.planned.title, "kind": s.planned.spec.kind, "seed": s.planned.spec.seed,
                "cell": s.planned.cell.model_dump(mode="json") if s.planned.cell else None,
                "state": s.state.value, "reason": s.reason, "estimate": s.estimate._asdict() if s.estimate else None,
            }
            for s in found
        ],
        "needs": needs,
    }  # fmt: skip


def _print(
    matrix: ResolvedSuite,
    cells: list[PlannedCell],
    waiting: list[WaitingCell],
    found: list[StageState],
    needs: list[dict[str, str]],
    show_all: bool,
) -> None:
    from pretrain_bench.harness.cli.console import seeds, table
    from pretrain_bench.harness.planning.stage_specs import finetune_title

    suite = matrix.suite
    print(f"suite {suite.name} v{suite.version}: {suite.description.strip()}")
    absent = [c for c in cells if not c.stages]
    text = f"{len(cells) + len(waiting)} cells, {len(found)} stages, budget {matrix.budget.name}, profile {matrix.profile.name}"
    print(text + (f", {len(absent)} cells n/a" if absent else ""))
    rest = [s for s in found if s.state != "done"]
    rows: list[tuple[str, ...]] = [
        (
            s.key[:8],
            s.planned.title,
            seeds(s.planned.cell, s.planned.spec.seed),
            s.state.value,
            _time(s),
            s.reason or "-",
        )
        for s in rest
    ]
    for cell, datasets in waiting:
        title = finetune_title(cell.method, cell.task, cell.label_ratio)
        rows.append(("-", title, seeds(cell, None), "waiting", "-", f"for data: {', '.join(datasets)}"))
    if rows:
        listed = rows if show_all else rows[:SHOWN]
        print("\n" + table(("run", "stage", "seeds", "state", "time", "why"), listed))
        if len(listed) < len(rows):
            print(f"... and {len(rows) - len(listed)} more; --all lists them")
    for reason, count in Counter(c.reason for c in absent).items():
        print(f"* n/a ({count} cells): {reason.removeprefix('n/a: ')}")
    if waiting:
        print(f"* {len(waiting)} cells wait for data; once these are prepared, the stages and their times are known")
    print("\n" + table(("needs", "state", "what to do, terms"), [tuple(n.values()) for n in needs]))
    counts = Counter(s.state.value for s in found)
    print("\n" + ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) if found else "")
    _print_totals(rest)


def _print_totals(rest: list[StageState]) -> None:
    from pretrain_bench.harness.cli.console import duration

    known = [s.estimate for s in rest if s.estimate is not None]
    if not known:
        return
    time = duration(sum(e.seconds for e in known))
    sources = Counter(e.source for e in known)
    how = ", ".join(
        f"{number} from {source}" if source != "rough" else f"{number} rough" for source, number in sources.items()
    )
    print(f"about {time} one after the other and {sum(e.bytes for e in known) / 1e9:,.2f} GB of artifacts ({how})")


def _time(state: StageState) -> str:
    from pretrain_bench.harness.cli.console import duration

    if state.estimate is None:
        return "-"
    return ("~" if state.estimate.source != "earlier runs" else "") + duration(state.estimate.seconds)


def suites(json: Json = False) -> None:
    """List the suites that ship."""
    from pretrain_bench.benchmarks.specs.suite import Suite
    from pretrain_bench.harness.cli.console import WIDTH, print_json
    from pretrain_bench.harness.planning.catalog import available, find

    found = [find(Suite, name) for name in available(Suite)]
    if json:
        print_json([s.model_dump(mode="json") for s in found])
        return
    for s in found:
        print(f"{s.name}: {sum(1 for _ in s.cells('-', '-'))} cells, budget {s.budget}")
        for text in (s.description.strip(), f"tasks: {', '.join(s.tasks)}"):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
