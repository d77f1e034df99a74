"""`bench show`: the runs of a store, or one run in full."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.choices import Checkpoint
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.harness.contract.events import Ledger
    from pretrain_bench.harness.contract.records import Measured, Record
    from pretrain_bench.harness.contract.stage import StageSpec


def show(
    run: Annotated[
        str | None,
        typer.Argument(
            help="The first characters of a run's key; none lists all runs.", autocompletion=completion.keys
        ),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    scene: Annotated[
        str | None,
        typer.Option(
            "--scene",
            help="Draw the run's prediction for this test scene, and write it as a coloured PLY; 'list' names all.",
        ),
    ] = None,
    checkpoint: Annotated[Checkpoint, typer.Option("--checkpoint", help="Which predictions --scene draws.")] = "final",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the picture. (default: pictures/ in the run's folder, or here for a bundle)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the runs, or show one: outcome, scores per class, resources, provenance; or its prediction for one scene."""
    from pretrain_bench.harness.cli.console import print_json

    for flag, given in (("--out", out is not None), ("--checkpoint", checkpoint != "final")):
        if given and scene is None:
            raise pb.WrongUse(
                f"{flag} is for the picture of a scene: give --scene as well; --scene list names the scenes"
            )
    if run is None:
        if scene is not None:
            raise pb.WrongUse("--scene needs a run; `bench show` lists the runs")
        _list(runs, json)
        return
    run_folder = pb.find_run(run, runs)
    if scene is not None:
        _show_scene(run_folder, scene, checkpoint, out, json)
    elif json:
        print_json(_one_as_json(run_folder))
    else:
        _show_one(run_folder)


def _list(runs: Path, json: bool) -> None:
    from pretrain_bench.harness.cli.console import per_cent, print_json, seeds, table, warn_unreadable

    store = pb.open_runs(runs)
    if json:
        print_json([_as_json(one) for one in pb.list_runs(store)])
        return
    rows, part, final = [], False, False
    for one in pb.iterate_runs(store):
        record = one.record
        seed = seeds(record.cell, "?" if one.seed is None else one.seed)
        result = record.outcome.value if one.metric is None else f"{per_cent(one.score)} {one.metric}"
        if one.checkpoint == "final":
            result, final = f"{result} *", True
        if record.coverage is not None and record.coverage.mark:
            result += f", {record.coverage.counts}"
            part = True
        row = (record.key, one.title, seed, one.budget or "?", record.dataset or "-", result)
        rows.append((record.started_at, row))
    rows.sort(key=lambda started_and_row: started_and_row[0])
    headers = ("run", "stage", "seeds", "budget", "dataset", "selected, per cent")
    nothing = f"no runs in {runs}; start some with `bench run`, or name another folder with --runs"
    print(table(headers, [row for _, row in rows]) if rows else nothing)
    if final:
        print("* after the last step: no training scene was held out to select a checkpoint")
    if part:
        print("* n/m: n of the m scenes of the test split were scored; `bench show RUN` names the missing")
    warn_unreadable(pb.unreadable_runs(store))


def _as_json(one: pb.ListedRun) -> dict[str, Any]:
    """The record, and what a list says of it."""
    record, *facts = one
    return {**record.model_dump(mode="json"), **dict(zip(one._fields[1:], facts, strict=True))}


def _one_as_json(run: pb.Run) -> dict[str, Any]:
    """The same, and the classes that numbers in the names of metrics stand for; null where the spec is damaged."""
    from pretrain_bench.api.runs import listed

    try:
        classes = run.spec.data.classes if run.record.cell and run.spec.data else ()
    except pb.WrongUse:
        classes = None
    return {**_as_json(listed(run)), "classes": classes}


def _show_scene(run: pb.Run, scene: str, checkpoint: str, out: Path | None, json: bool) -> None:
    from pretrain_bench.harness.cli.console import print_json

    if scene == "list":
        lines = list(pb.tested_scenes(run))
    else:
        lines = [str(f) for f in pb.draw_scene(run, scene, checkpoint=checkpoint, out=out)]
    print_json(lines) if json else print("\n".join(lines))


def _show_one(run: pb.Run) -> None:
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import WIDTH, table

    spec, record = run.spec, run.record
    mark = "  SYNTHETIC DATA" if record.synthetic else ""
    print(f"{record.method}/{record.stage}  {record.key}  {record.outcome.value}, attempt {record.attempt}{mark}")
    if record.message:
        print(printable(record.message))
    print(table(("what", "value"), _facts(run, spec)))
    if record.metrics and spec.data:
        print("\n" + table(("per cent", "final", "selected", "best (selected on the test split)"), _scores(run, spec)))
    print("\n" + table(("used (reported by the stage)", "amount"), _amounts(record.ledger)))
    print("\n" + table(("used (measured from outside)", "amount"), _amounts(record.measured)))
    for warning in record.warnings:
        print(textwrap.fill(f"warning: {printable(warning)}", WIDTH, subsequent_indent="  "))


def _facts(run: pb.Run, spec: StageSpec) -> list[tuple[str, object]]:
    from pretrain_bench.harness.cli.console import seeds

    record, limits = run.record, spec.limits
    return [
        *([("task", f"{record.cell.task} at {record.cell.label_ratio.words}")] if record.cell else []),
        *([("protocol", spec.probe.title)] if spec.probe else []),
        ("dataset", record.dataset or "none"),
        *([("test scenes", spec.coverage.text)] if spec.coverage else []),
        *([("split", spec.split.text)] if spec.split else []),
        *([("contamination", record.contamination.text)] if record.contamination else []),
        ("budget", f"{limits.budget} v{limits.budget_version}, {limits.amount:g} {limits.currency.value}"),
        ("profile", f"{spec.profile} v{spec.profile_version}, network width {spec.network.width:g}"),
        ("seed", seeds(record.cell, spec.seed)),
        (
            "machine",
            f"{spec.device}, {spec.threads} threads, backend {spec.sparse_backend}, executor {record.executor}",
        ),
        ("labels", f"isolation: {record.label_isolation}"),
        *([("stopped", record.stopped or "at its last step")] if record.outcome == "ok" else []),
        ("started", record.started_at),
        ("folder", run.folder),
        *([("log", run.log)] if run.log.is_file() else []),
        *((f"parent {stage}", key) for stage, key in record.parents.items()),
        *(record.imported.facts.items() if record.imported else ()),
        *record.notes.items(),
    ]


def _scores(run: pb.Run, spec: StageSpec) -> list[tuple[str, ...]]:
    """Metrics over all classes, then those of each class."""
    from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS, SHOWN

    record = run.record
    assert spec.data is not None
    rows = [
        (title, *(_metric(record, f"{name}_{c}") for c in CHECKPOINTS)) for name, title in SHOWN[spec.task_kind].items()
    ]
    for number, name in enumerate(spec.data.classes):
        metric = f"{spec.class_metric}/{number}"
        if f"{metric}_final" in record.metrics:
            rows.append((name, *(_metric(record, f"{metric}_{c}") for c in CHECKPOINTS)))
    return rows


def _metric(record: Record, name: str) -> str:
    from pretrain_bench.harness.cli.console import per_cent

    return per_cent(record.metrics.get(name))


def _amounts(used: Ledger | Measured) -> list[tuple[str, str]]:
    """The measured resources as text."""
    amounts = [(name, value) for name, value in used if value is not None]
    return [(name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}") for name, value in amounts]
