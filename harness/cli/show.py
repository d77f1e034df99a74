"""`bench show`: the runs of a store, or one run in full."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

if TYPE_CHECKING:
    from pretrain_bench.harness.contract.events import Ledger
    from pretrain_bench.harness.contract.records import Measured, Record
    from pretrain_bench.harness.store.store import Store


def show(
    run: Annotated[str | None, typer.Argument(help="The first characters of a run's key; none lists all runs.")] = None,
    runs: Runs = DEFAULT_RUNS,
    scene: Annotated[
        str | None,
        typer.Option(
            "--scene",
            help="Draw what the run said about this test scene, and write it as a coloured PLY; 'list' names all.",
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="final, selected or best.")] = "final",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to.  [default: pictures/ in the run's folder]")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs, or show one: outcome, scores per class, what it used, where it comes from; or its words on one scene."""
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import print_json, say_unrecorded, seeds, table
    from pretrain_bench.harness.store.store import RECORD, Store, read_record

    store = Store(runs)
    if run is not None:
        folder = store.find(run)
        record = read_record(folder / RECORD)
        if scene is not None:
            _show_scene(record, folder, scene, checkpoint, out, json)
        elif json:
            print_json(record.model_dump(mode="json"))
        else:
            _show_one(record, folder)
        return
    if scene is not None:
        raise WrongUse("--scene needs a run; `bench show` lists the runs")
    records = sorted(store.records(), key=lambda r: r.started_at)
    if json:
        print_json([r.model_dump(mode="json") for r in records])
        return
    rows = [
        (
            r.key,
            _title(r),
            seeds(r.cell, None if r.cell else _own_seed(r, store)),
            r.dataset or "-",
            _scores(r) if r.metrics else r.outcome.value,
        )
        for r in records
    ]
    print(table(("run", "stage", "seeds", "dataset", "result, per cent"), rows) if rows else f"no runs in {runs}")
    say_unrecorded(store)


def _title(record: Record) -> str:
    """What a run did, as a plan names it."""
    from pretrain_bench.harness.planning.stage_specs import finetune_title

    cell = record.cell
    if cell is None:
        return f"{record.method}/{record.stage}"
    return finetune_title(cell.method, cell.task, cell.label_ratio)


def _own_seed(record: Record, store: Store) -> object:
    """The seed in a run's spec. A damaged spec hides no run; showing that run says what is wrong."""
    from pretrain_bench.benchmarks.support.errors import WrongUse

    try:
        return store.spec(record.kind, record.key).seed
    except WrongUse:
        return "?"


def _show_scene(record: Record, folder: Path, scene: str, checkpoint: str, out: Path | None, as_json: bool) -> None:
    """Write `<scene>-<checkpoint>.png` and `.ply`, and say where."""
    from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
    from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
    from pretrain_bench.harness.audit.rescore import find_data
    from pretrain_bench.harness.cli.console import print_json, writing
    from pretrain_bench.harness.store.retention import pruned
    from pretrain_bench.harness.store.store import ARTIFACTS, read_spec
    from pretrain_bench.reports.figures.scene import check_tested, show_scene
    from pretrain_bench.reports.figures.scene_files import draw_scene, write_scene_ply

    spec = read_spec(folder)
    if spec.kind != "finetune" or spec.data is None or spec.split is None or not record.metrics:
        raise WrongUse(
            f"run {record.key} ({record.method}/{record.stage}, {record.outcome.value}) has no predictions to show"
        )
    if checkpoint not in CHECKPOINTS:
        raise WrongUse(f"--checkpoint {checkpoint!r}: expected one of {', '.join(CHECKPOINTS)}")
    if scene == "list":
        print_json(list(spec.split.test)) if as_json else print("\n".join(spec.split.test))
        return
    check_tested(spec, scene)  # before the data are looked for, which may mean to generate them
    for name, command in pruned(folder).items():
        if name.startswith(f"predictions/{checkpoint}/") and not (folder / ARTIFACTS / name).is_file():
            raise WrongUse(
                f"run {record.key}: its predictions of the {checkpoint} checkpoint were pruned ({command}); run it again to see "
                "them"
            )
    source = find_data(spec.data, lambda text: print(text, file=sys.stderr))
    if isinstance(source, str):
        raise DataError(f"run {record.key} cannot be drawn: {source}")
    shown = show_scene(spec, source.folder, scene, folder / ARTIFACTS / "predictions" / checkpoint)
    target = out or folder / "pictures"
    mark = "  SYNTHETIC DATA" if record.synthetic else ""
    title = f"{record.method} -> {spec.task}, {scene}, {checkpoint} checkpoint, run {record.key}{mark}"
    files = [target / f"{scene}-{checkpoint}.{kind}" for kind in ("png", "ply")]
    drawn = draw_scene(shown, title)
    with writing(target, "pictures (--out names another folder)"):
        target.mkdir(parents=True, exist_ok=True)
        drawn.save(files[0])
        write_scene_ply(shown, files[1])
    print_json([str(f) for f in files]) if as_json else print("\n".join(map(str, files)))


def _show_one(record: Record, folder: Path) -> None:
    from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS, SHOWN
    from pretrain_bench.harness.cli.console import WIDTH, printable, seeds, table
    from pretrain_bench.harness.store.store import read_spec

    spec = read_spec(folder)
    mark = "  SYNTHETIC DATA" if record.synthetic else ""
    print(f"{record.method}/{record.stage}  {record.key}  {record.outcome.value}, attempt {record.attempt}{mark}")
    if record.message:
        print(printable(record.message))
    facts = {
        **({"task": f"{record.cell.task} at {record.cell.label_ratio} of the labels"} if record.cell else {}),
        "dataset": record.dataset or "none",
        "budget": f"{spec.limits.budget} v{spec.limits.budget_version}, {spec.limits.amount:g} {spec.limits.currency.value}",
        "profile": f"{spec.profile} v{spec.profile_version}, network width {spec.network.width:g}",
        "seed": seeds(record.cell, spec.seed),
        "machine": f"{spec.device}, {spec.threads} threads, backend {spec.sparse_backend}, executor {record.executor}",
        "labels": f"isolation: {record.label_isolation}",
        "stopped": record.stopped or "at its last step",
        "started": record.started_at,
        "folder": folder,
        **{f"parent {stage}": key for stage, key in record.parents.items()},
        **record.notes,
    }
    print(table(("what", "value"), facts.items()))
    if record.metrics and spec.data:
        names = SHOWN[spec.task_kind].items()
        rows = [(text, *(_metric(record, name, c) for c in CHECKPOINTS)) for name, text in names]
        rows += [
            (name, *(_metric(record, f"{spec.class_metric}/{i}", c) for c in CHECKPOINTS))
            for i, name in enumerate(spec.data.classes)
            if f"{spec.class_metric}/{i}_final" in record.metrics
        ]
        print("\n" + table(("per cent", "final", "selected", "best (selected on the test split)"), rows))
    print("\n" + table(("used (told by the stage)", "amount"), _amounts(record.ledger)))
    print("\n" + table(("used (seen from outside)", "amount"), _amounts(record.measured)))
    for warning in record.warnings:
        print(textwrap.fill(f"warning: {printable(warning)}", WIDTH, subsequent_indent="  "))


def _amounts(used: Ledger | Measured) -> list[tuple[str, str]]:
    """What there is a number of."""
    amounts = [(name, value) for name, value in used if value is not None]
    return [(name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}") for name, value in amounts]


def _scores(record: Record) -> str:
    """The final value of what the run's task is judged by."""
    from pretrain_bench.benchmarks.metrics.names import TITLES
    from pretrain_bench.benchmarks.specs.task import Task
    from pretrain_bench.benchmarks.support.errors import BenchError
    from pretrain_bench.harness.cli.console import per_cent
    from pretrain_bench.harness.planning.catalog import find

    if record.cell is None or not record.metrics:
        return "-"
    try:
        name: str = find(Task, record.cell.task).headline_metric
    except BenchError:  # a task of somebody's own, whose file is not here
        name = next((n for n in TITLES if f"{n}_final" in record.metrics), "miou_voxel")
    return f"{per_cent(record.metrics.get(f'{name}_final'))} {name}"


def _metric(record: Record, name: str, checkpoint: str) -> str:
    from pretrain_bench.harness.cli.console import per_cent

    return per_cent(record.metrics.get(f"{name}_{checkpoint}"))
