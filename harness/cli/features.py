"""`bench features`: draw the features of frames as colours, before and after pre-training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli import completion
from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs


def features(
    run: Annotated[
        str, typer.Argument(help="The first characters of a pre-training run's key.", autocompletion=completion.keys)
    ],
    scene: Annotated[str | None, typer.Option("--scene", help="Scene of the dataset. (default: the last)")] = None,
    frame: Annotated[
        list[int] | None, typer.Option("--frame", min=0, help="A frame of the scene; repeatable. (default: 0)")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("features"),
    runs: Runs = DEFAULT_RUNS,
    json: Json = False,
) -> None:
    """Draw pixel and point features of frames before and after pre-training, and write coloured clouds.

    Colours are a one-dimensional t-SNE of all features together, after the paper's Figure 2: equal colours, similar features.
    """
    from pretrain_bench.harness.cli.console import print_json

    files = [str(p) for p in pb.draw_features(run, scene=scene, frame=frame or 0, out=out, runs=runs)]
    print_json(files) if json else print("\n".join(files))
