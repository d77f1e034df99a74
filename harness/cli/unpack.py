"""`bench unpack`: a bundle becomes a folder of runs again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def unpack(
    bundle: Annotated[Path, typer.Argument(help="A bundle: FILE.tar.zst.")],
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Unpack a bundle into a new folder of runs, so that `bench run` adds to it: it continues a suite that someone else
    began. Bundles hold no weights, so pre-trainings run again if a stage that is not done builds on them."""
    from pretrain_bench.harness.cli.console import print_json

    store = pb.unpack_bundle(bundle, runs)
    number = len(pb.list_runs(store))
    if json:
        print_json({"runs": str(store.root), "number": number})
    else:
        print(f"{runs}: {number} runs of {bundle}")
