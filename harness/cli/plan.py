"""`bench plan`: the stages of a suite, which are done, and an estimate for the rest. Nothing runs."""

from __future__ import annotations

import textwrap
from collections import Counter
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
    Threads,
    TrustCode,
    Up,
)

if TYPE_CHECKING:
    from pretrain_bench.harness.planning.plan import StageState

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
    executor: ExecutorName = "auto",
    show_all: Annotated[bool, typer.Option("--all", help=f"List every stage, not the first {SHOWN}.")] = False,
    trust_code: TrustCode = False,
    up: Up = "auto",
    label_split: LabelSplits = None,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """List the stages of a suite: done, stale (and why), failed, n/a or to do, with an estimate of hours and disk.

    Names the datasets and images that are missing. Nothing is prepared and nothing runs.
    """
    from pretrain_bench.harness.cli.console import print_json

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
    planned = pb.plan(suite, runs=runs, only=[*(only or []), *(filters or [])], settings=settings)
    if json:
        print_json(_as_json(planned))
    else:
        _print(planned, show_all)
        for line in pb.power_of_plan(planned, runs):
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
                "key": s.key, "title": s.planned.long_title, "kind": s.planned.spec.kind, "seed": s.planned.spec.seed,
                "cell": s.planned.cell.model_dump(mode="json") if s.planned.cell else None,
                "state": s.state.value, "reason": s.reason, "estimate": s.estimate._asdict() if s.estimate else None,
            }
            for s in plan.stages
        ],
        "needs": plan.needs,
    }  # fmt: skip


def _print(plan: pb.Plan, show_all: bool) -> None:
    from pretrain_bench.harness.cli.console import table

    suite, absent = plan.suite, plan.not_applicable
    print(f"suite {suite.name} v{suite.version}: {suite.description.strip()}")
    cells, names = len(plan.cells) + len(plan.waiting), f"budget {plan.budget.name}, profile {plan.profile.name}"
    print(f"{cells} cells, {len(plan.stages)} stages, {names}" + (f", {len(absent)} cells n/a" if absent else ""))
    if rows := _rows(plan):
        listed = rows if show_all else rows[:SHOWN]
        print("\n" + table(("run", "stage", "seeds", "state", "time", "why"), listed))
        if len(listed) < len(rows):
            print(f"... and {len(rows) - len(listed)} more; --all lists them")
    for reason, count in Counter(c.reason for c in absent).items():
        print(f"* n/a ({count} cells): {reason.removeprefix('n/a: ')}")
    if waiting := len(plan.waiting):
        print(f"* {waiting} cells wait for data; once these are prepared, the stages and their times are known")
    print("\n" + table(("needs", "state", "what to do, terms"), [tuple(n.values()) for n in plan.needs]))
    counts = Counter(s.state.value for s in plan.stages)
    print("\n" + ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) if counts else "")
    _print_totals(plan)


def _rows(plan: pb.Plan) -> list[tuple[str, ...]]:
    """Stages that are not done, then cells that wait for data."""
    from pretrain_bench.api.planning import title_of
    from pretrain_bench.harness.cli.console import seeds

    rows: list[tuple[str, ...]] = []
    for stage in plan.remaining:
        spec, cell = stage.planned.spec, stage.planned.cell
        facts = (stage.key[:8], stage.planned.long_title, seeds(cell, spec.seed))
        rows.append((*facts, stage.state.value, _time(stage), stage.reason or "-"))
    for cell, datasets in plan.waiting:
        rows.append(("-", title_of(cell), seeds(cell, None), "waiting", "-", f"for data: {', '.join(datasets)}"))
    return rows


def _print_totals(plan: pb.Plan) -> None:
    from pretrain_bench.api.display import duration

    known = [s.estimate for s in plan.remaining if s.estimate is not None]
    if not known:
        return
    time = duration(sum(e.seconds for e in known))
    sources = Counter(e.source for e in known)
    how = ", ".join(
        f"{number} from {source}" if source != "rough" else f"{number} rough" for source, number in sources.items()
    )
    print(f"about {time} one after the other and {sum(e.bytes for e in known) / 1e9:,.2f} GB of artifacts ({how})")


def _time(state: StageState) -> str:
    from pretrain_bench.api.display import duration

    if state.estimate is None:
        return "-"
    return ("~" if state.estimate.source != "earlier runs" else "") + duration(state.estimate.seconds)


def suites(json: Json = False) -> None:
    """List the suites that ship."""
    from pretrain_bench.harness.cli.console import WIDTH, print_json

    listed = pb.list_suites()
    if json:
        print_json([s.model_dump(mode="json") for s in listed])
        return
    for s in listed:
        print(f"{s.name}: {sum(1 for _ in s.cells('-', '-'))} cells, budget {s.budget}")
        for text in (s.description.strip(), f"tasks: {', '.join(s.tasks)}"):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
