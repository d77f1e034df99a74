"""`bench methods`: list and check methods, import and export weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, ExecutorName, Json, PretrainData, Runs, TrustCode, display

app = typer.Typer(help="List and check pre-training methods; import and export weights.", no_args_is_help=True)


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
        str,
        typer.Argument(help="A method's name, or the folder of your own method.", autocompletion=completion.methods),
    ],
    pretrain_data: PretrainData = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Keep the runs of the checks in this folder. (default: delete them)"),
    ] = None,
    trust_code: TrustCode = False,
    executor: ExecutorName = "auto",
    json: Json = False,
) -> None:
    """Run short versions of a method and print a verdict for each conformance check; exit code 1 where one fails.

    On the procedural data, or on yours: a few steps of every stage, several times, about a minute. A container of your own runs
    in Docker unless --executor names podman.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    verdicts = pb.check_method(
        name,
        pretrain_data=pretrain_data or (),
        keep=keep,
        trust_code=trust_code,
        executor=executor,
        display=display(json),
    )
    if json:
        print_json([v._asdict() for v in verdicts])
    else:
        print(table(("check", "verdict", "seen"), verdicts))
    if any(v.verdict == "failed" for v in verdicts):
        raise typer.Exit(1)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint: safetensors, or a PyTorch file of tensors.")],
    origin: Annotated[
        str | None,
        typer.Option(
            "--origin",
            help="Origin of the file and so the order of its kernels; only if the file does not show it.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The backbone file to write.")] = Path("backbone.safetensors"),
    partial: Annotated[bool, typer.Option("--partial", help="Accept missing and different tensors.")] = False,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix", help="Prefix of the network, if the file contains several, such as state_dict.module."
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Profile whose network the checkpoint has to fit.")
    ] = "headline",
    json: Json = False,
) -> None:
    """Convert a checkpoint to this project's backbone; `bench run --method NAME=BACKBONE` runs it.

    Origins: pointcontrast, csc, csc-votenet, depthcontrast, minkowski-0.4, minkowski-0.5, spconv, spconv-zyx, bench. The network
    is found in the file by the names and shapes of its tensors; only tensors and plain settings are unpickled.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    report = pb.import_checkpoint(file, origin=origin, out=out, partial=partial, prefix=prefix, profile=profile)
    if json:
        print_json(report.model_dump())
        return
    rows = [
        ("network at", report.place or "the top"),
        ("transferred", f"{report.transferred} of {report.expected} tensors"),
        ("kernels", f"in the order of {report.kernel_order}, {report.permuted} reordered"),
        ("missing", len(report.missing)),
        ("different shape", len(report.reshaped)),
        ("dropped", ", ".join(report.dropped[:6]) + (" ..." if len(report.dropped) > 6 else "") or "nothing"),
        ("written", out),
    ]
    print(table(("what", "value"), rows))


def export(
    run: Annotated[str, typer.Argument(help="The first characters of a pre-training run's key.")],
    format: Annotated[str, typer.Option("--format", help="minkowski-0.5, minkowski-0.4, spconv or pointcept.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="The file to write: NAME.safetensors, or a PyTorch file with the key state_dict."),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="With pointcept: leave out tensors that its network lacks.")
    ] = False,
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Write the backbone of a run in the layout of another project: names, shapes and the order of its kernels.

    Pointcept's SpUNet differs from this backbone in some layers; without --partial they are refused by name.
    """
    from pretrain_bench.harness.cli.console import print_json, table

    report = pb.export_checkpoint(run, format=format, out=out, runs=runs, partial=partial)
    if json:
        print_json(report.model_dump())
        return
    print(table(("what", "value"), [("tensors", report.written), ("left out", len(report.left_out)), ("written", out)]))
    for line in report.left_out:
        print(f"* left out: {line}")
