"""`bench methods`: the methods, and weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import Json, PretrainData, TrustCode, display

app = typer.Typer(help="Pre-training methods, and weights from elsewhere.", no_args_is_help=True)


def ls(json: Json = False) -> None:
    """List the methods, what they need and how they share a budget."""
    from pretrain_bench.harness.cli.console import print_json, table

    methods = pb.list_methods()
    if json:
        print_json([m.model_dump(mode="json") for m in methods])
        return
    rows = []
    for method in methods:
        needs = [name for name, value in method.needs if value and name != "data"]
        stages = " + ".join(f"{s.name} {100 * s.share:g}%" for s in method.stages)
        rows.append((method.name, method.title, ", ".join(needs) or "nothing", stages))
    print(table(("name", "title", "needs", "stages"), rows))


def check(
    name: Annotated[
        str, typer.Argument(help="A method's name, or the folder of your own.", autocompletion=completion.methods)
    ],
    pretrain_data: PretrainData = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="A folder for the runs of the checks; without it they are deleted."),
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Run short versions of a method and print a verdict for each conformance check; exit code 1 where one fails.

    On the procedural data, or on yours: a few steps of every stage, several times, about a minute.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    verdicts = pb.check_method(
        name, pretrain_data=pretrain_data or (), keep=keep, trust_code=trust_code, display=display(json)
    )
    if json:
        print_json([v._asdict() for v in verdicts])
    else:
        print(table(("check", "verdict", "seen"), verdicts))
    if any(v.verdict == "failed" for v in verdicts):
        raise typer.Exit(1)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A released checkpoint.")],
    origin: Annotated[str, typer.Option("--origin", help="Where it comes from; decides the order of its kernels.")],
    out: Annotated[Path, typer.Option("--out", help="The backbone to write.")] = Path("backbone.safetensors"),
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept it even where tensors are missing or differ.")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a released PointContrast, CSC or DepthContrast checkpoint to this project's backbone.

    Origins: pointcontrast, csc, csc-votenet, depthcontrast, minkowski-0.5, bench. Kernels from before MinkowskiEngine 0.5
    are put in the right order; nothing is ever unpickled but tensors.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    report = pb.import_checkpoint(file, origin=origin, out=out, partial=partial)
    if json:
        print_json(report.model_dump())
        return
    rows = [
        ("transferred", f"{report.transferred} of {report.expected} tensors"),
        ("kernels reordered", report.permuted),
        ("missing", len(report.missing)),
        ("different shape", len(report.reshaped)),
        ("dropped", ", ".join(report.dropped[:6]) + (" ..." if len(report.dropped) > 6 else "") or "nothing"),
        ("written", out),
    ]
    print(table(("what", "value"), rows))
