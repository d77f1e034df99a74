"""`bench power`: the number of seeds that a difference needs, computed from existing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs, on_command_line

NOTES = (
    "seeds: pre-training seeds that the method and scratch each need to detect a true difference of {effect:g} at 80 % power "
    "(Welch, two-sided 5 %); hours: CPU- or GPU-hours of that many seeds of both, pre-training included",
    "n: seeds run, of method or scratch, whichever has fewer; shows: the difference that n detect at that power",
    "sd: of one pre-training with its fine-tunings; parts: over pre-training seeds, fine-tuning seeds (-: in the rest), rest",
    "fine-tuning seeds that all pre-trainings share cancel in the difference; own: the seeds needed if each has its own",
    "stopping at the first p below 5 % of many looks inflates errors: bench run --stop-when-decided",
)


def power(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="RUNS", help="The same as --runs.")] = None,
    runs: Runs = DEFAULT_RUNS,
    effect: Annotated[float, typer.Option("--effect", help="Difference to find, in points of the metric.")] = 1.0,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Only these tasks; may be given several times.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the number of seeds that would find a difference, for each protocol, and their cost."""
    from pretrain_bench.harness.cli.console import print_json, table

    if folder is not None and runs != folder and on_command_line(context, "runs"):
        raise pb.WrongUse(f"{folder} and --runs {runs}: name one of them")
    runs = folder or runs
    answer = pb.power(runs, effect, task or ())
    if json:
        print_json([{k: None if v != v else v for k, v in row.items()} for row in answer.seeds.to_dict("records")])
        return
    if not len(answer.table):
        print(
            f"{runs}: no method has runs beside scratch's of the same task, ratio and budget; --runs names another folder"
        )
        return
    print(table(tuple(answer.table.columns), list(answer.table.itertuples(index=False, name=None))))
    print("\n".join(f"* {note.format(effect=effect)}" for note in NOTES))
