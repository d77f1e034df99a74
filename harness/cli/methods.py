"""`bench methods`: the methods there are, and weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_bench.harness.cli.options import Json, PretrainData

if TYPE_CHECKING:
    from pretrain_bench.harness.executors.base import Executor

app = typer.Typer(help="Pre-training methods, and weights from elsewhere.", no_args_is_help=True)


def ls(json: Json = False) -> None:
    """List the methods, what they need and how they share a budget."""
    from pretrain_bench.benchmarks.specs.method import Method
    from pretrain_bench.harness.cli.console import print_json, table
    from pretrain_bench.harness.planning.catalog import available, find

    methods = [find(Method, name) for name in available(Method)]
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
    name: Annotated[str, typer.Argument(help="A method's name, or the folder of your own.")],
    pretrain_data: PretrainData = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="A folder for the runs of the checks; without it they are thrown away."),
    ] = None,
    json: Json = False,
) -> None:
    """Run a method in small and see whether it keeps the rules; a verdict for each check, exit code 1 where one fails.

    On the procedural data, or on yours: a few steps of every stage, several times, about a minute.
    """
    import tempfile

    from pretrain_bench.benchmarks.specs.method import Method
    from pretrain_bench.benchmarks.specs.profile import Profile
    from pretrain_bench.benchmarks.specs.task import Task
    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import Console, print_json, table
    from pretrain_bench.harness.executors.local import LocalExecutor
    from pretrain_bench.harness.planning.catalog import find
    from pretrain_bench.harness.planning.prepared_data import DataSources, parse_data_options
    from pretrain_bench.harness.running.conformance import PROFILE, TASK, CheckResult, Conformance, PretrainElsewhere

    method, executor = find(Method, name), LocalExecutor()
    runner: Executor = executor
    if method.image is not None:
        from pretrain_bench.harness.executors.docker import DockerExecutor
        from pretrain_bench.harness.executors.image_state import with_image

        docker = DockerExecutor()
        method = with_image(docker.client, method)
        docker.own[method.name] = str(method.image)
        runner = PretrainElsewhere(docker, executor)
    console = Console(quiet=json)
    profile = find(Profile, PROFILE)
    roots, own = parse_data_options(pretrain_data or [], "--pretrain-data")
    sources = DataSources(roots, own, profile.frame_stride, profile.world)
    names = (sources.resolve(next(iter(roots), "scannet"), console.say), find(Task, TASK).dataset)
    source, target = (
        sources.prepare(sources.resolve(n, console.say), False, console.progress, console.say) for n in names
    )
    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise WrongUse(f"--keep {keep}: not empty; the checks need stores of their own")
    verdicts: list[CheckResult] = []
    with tempfile.TemporaryDirectory(prefix="bench-check-") as scratch:
        folder = keep or Path(scratch)
        for verdict in Conformance(method, source, target, runner, folder.resolve()).run():
            console.say(f"{verdict.verdict:<6} {verdict.check}")
            verdicts.append(verdict)
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
        bool, typer.Option("--partial", help="Take it even where tensors are missing or differ.")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a released PointContrast, CSC or DepthContrast checkpoint to this project's backbone.

    Origins: pointcontrast, csc, csc-votenet, depthcontrast, minkowski-0.5, bench. Kernels from before MinkowskiEngine 0.5
    are put in the right order; nothing is ever unpickled but tensors.
    """
    import subprocess
    import sys
    from json import loads

    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import print_json, table
    from pretrain_bench.harness.planning.code_digest import package_folder

    command = [
        sys.executable,
        "-m",
        "pretrain_bench.methods.import_checkpoint",
        str(file),
        "--origin",
        origin,
        "--out",
        str(out),
    ]
    # A process of its own, as every code of `methods`: the harness does not load torch.
    environment = {"PYTHONPATH": str(package_folder().parent)}
    done = subprocess.run(
        command + ["--partial"] * partial, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise WrongUse(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the conversion failed")
    report = loads(done.stdout)
    if json:
        print_json(report)
        return
    rows = [
        ("transferred", f"{report['transferred']} of {report['expected']} tensors"),
        ("kernels reordered", report["permuted"]),
        ("missing", len(report["missing"])),
        ("of another shape", len(report["reshaped"])),
        ("dropped", ", ".join(report["dropped"][:6]) + (" ..." if len(report["dropped"]) > 6 else "") or "nothing"),
        ("written", out),
    ]
    print(table(("what", "value"), rows))
