"""`bench doctor`: check this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import (
    DEFAULT_RUNS,
    Address,
    Data,
    ExecutorName,
    Json,
    Runs,
    SlurmOption,
    data_roots,
    on_command_line,
)


def doctor(
    context: typer.Context,
    data: Data = None,
    executor: ExecutorName = "auto",
    runs: Runs = DEFAULT_RUNS,
    on: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option("--on", help="Also check a node of a Slurm cluster, by a job, or each node of a Ray cluster."),
    ] = "local",
    slurm: SlurmOption = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Check torch in a stage's environment, executors, GPU, CPUs, memory, worker processes, the runs folder and the
    data.

    With --on slurm, a job also checks versions, code, runs folder and data on its node; with --on ray, a task does so on each
    node. Also lists each setting with its origin: an option, an environment variable, bench.yaml, or the default.
    The exit code is 3 if stages cannot run.
    """
    from pretrain_bench.api.configuration import settings_in_force
    from pretrain_bench.api.doctor import raise_if_broken
    from pretrain_bench.harness.cli.console import print_json, table

    where = pb.Where(on, tuple(slurm or ()), address=address)
    where.check()
    given = {n: str(v) for n, v in (("runs", runs), ("executor", executor)) if on_command_line(context, n)}
    settings, rows = settings_in_force(given), pb.doctor(runs, data_roots(data))
    if on != "local":
        rows += pb.doctor_of_worker(where, runs, data_roots(data), executor)
    if json:
        print_json({"checks": [d._asdict() for d in rows], "settings": [s._asdict() for s in settings]})
    else:
        print(table(("setting", "value", "set by"), settings) + "\n")
        print(table(("what", "state", "detail"), rows))
    raise_if_broken(rows)
