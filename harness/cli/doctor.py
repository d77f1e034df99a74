"""`bench doctor`: check this machine."""

from __future__ import annotations

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Data, Json, Runs


def doctor(data: Data = None, runs: Runs = DEFAULT_RUNS, json: Json = False) -> None:
    """Check torch as a stage finds it, ways to isolate stages, GPU, CPUs, memory, worker processes, the runs folder and the data.

    Ends with 3 if nothing can run.
    """
    from pretrain_bench.api.doctor import raise_if_broken
    from pretrain_bench.harness.cli.console import print_json, table

    rows = pb.doctor(runs, data or ())
    if json:
        print_json([d._asdict() for d in rows])
    else:
        print(table(("what", "state", "detail"), rows))
    raise_if_broken(rows)
