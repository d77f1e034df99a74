"""`bench data`: what the datasets are, and getting them ready."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, Strict

app = typer.Typer(help="Datasets: what there is, where it comes from, and preparing it.", no_args_is_help=True)


def ls(json: Json = False) -> None:
    """List the datasets."""
    from benchmarks.specs import Dataset
    from harness.catalog import available, find
    from harness.cli.console import print_json, table

    datasets = [find(Dataset, name) for name in available(Dataset)]
    if json:
        print_json([d.model_dump(mode="json") for d in datasets])
        return
    print(table(("name", "title", "provides"), [(d.name, d.title, ", ".join(d.provides)) for d in datasets]))


def info(name: Annotated[str, typer.Argument(help="A dataset's name.")], json: Json = False) -> None:
    """Say where a dataset comes from and under which terms."""
    from benchmarks.specs import Dataset
    from harness.catalog import find
    from harness.cli.console import print_json

    dataset = find(Dataset, name)
    if json:
        print_json(dataset.model_dump(mode="json"))
        return
    print(f"{dataset.title}\nsource:   {dataset.source}\nlicence:  {dataset.licence}")
    print(f"provides: {', '.join(dataset.provides)}")
    if dataset.classes:
        print(f"classes:  {', '.join(dataset.classes)}")


def prepare(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    root: Annotated[
        Path | None, typer.Option("--root", help="Its folder, in the official layout; procedural ones need none.")
    ] = None,
    frame_stride: Annotated[int, typer.Option("--frame-stride", min=1, help="Every n-th frame of a recording.")] = 50,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Convert a dataset to the prepared form, once; prints where it is. `bench run` does the same by itself."""
    from benchmarks.errors import WrongUse
    from benchmarks.specs import Dataset
    from harness.catalog import find
    from harness.cli.console import Console, print_json
    from harness.data import ready

    dataset = find(Dataset, name)
    if root is None and not dataset.synthetic:
        raise WrongUse(f"{name}: give --root DIR, the folder that holds its official layout ({dataset.source})")
    console = Console(quiet=json)
    prepared = ready(name, {name: root} if root else {}, frame_stride, strict, console.progress, console.say)
    scenes = prepared.manifest.scenes
    if json:
        print_json({"folder": str(prepared.folder), "manifest": prepared.manifest.model_dump(mode="json")})
        return
    points, frames = sum(s.points for s in scenes), sum(s.frames for s in scenes)
    print(
        f"{prepared.folder}\n{len(scenes)} scenes, {points:,} points, {frames:,} frames, "
        f"{len(prepared.manifest.problems)} problems"
    )
