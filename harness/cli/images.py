"""`bench images`: build, list and check container images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import pretrain_bench as pb
from pretrain_bench.harness.cli.options import Json, display

app = typer.Typer(help="Container images: one per method, one for the tasks, on one base.", no_args_is_help=True)
Names = Annotated[list[str] | None, typer.Argument(help="Images. (default: all)", show_default=False)]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Base image of all. (default: the public CUDA image)", show_default=False),
]

Engine = Annotated[
    str, typer.Option("--engine", help="docker or podman; each keeps its own images.", show_default=True)
]


def build(
    names: Names = None,
    base: Base = None,
    wheels: Annotated[Path | None, typer.Option("--wheels", help="A folder with a torch wheel to use.")] = None,
    torch_args: Annotated[
        str, typer.Option("--torch-args", help="Arguments for pip when it installs torch, such as --index-url.")
    ] = "",
    minkowski: Annotated[
        bool, typer.Option("--minkowski", help="Build MinkowskiEngine into the base (10 minutes).")
    ] = False,
    logs: Annotated[Path, typer.Option("--logs", help="Folder for the build logs.")] = Path("image-logs"),
    engine: Engine = "docker",
    json: Json = False,
) -> None:
    """Build missing and stale images; keep the others. Exit code 1 if a build fails."""
    from pretrain_bench.api.display import printable
    from pretrain_bench.harness.cli.console import print_json, table

    built = pb.build_images(
        names or (),
        base=base,
        wheels=wheels,
        torch_args=torch_args,
        minkowski=minkowski,
        logs=logs,
        engine=engine,
        display=display(json),
    )
    failed = [b for b in built if b.outcome == "build_failed"]
    if json:
        print_json([{**b._asdict(), "log": str(b.log) if b.log else None} for b in built])
    else:
        rows = [(b.image, b.outcome, f"{b.seconds:.0f}", b.log or "-") for b in built]
        print(table(("image", "outcome", "seconds", "log"), rows))
        for one in failed:
            print(f"\n{one.image}: the build failed; last lines:\n{printable(one.message)}")
    if failed:
        raise typer.Exit(1)


def ls(engine: Engine = "docker", json: Json = False) -> None:
    """List the images with state (built, stale) and size."""
    _show(pb.list_images(engine), json)


def check(engine: Engine = "docker", json: Json = False) -> None:
    """Report stale images: those older than their code, locks or base. Exit code 1 if there is one."""
    images = pb.list_images(engine)
    _show(images, json)
    if any(image.state != "ok" for image in images):
        raise typer.Exit(1)


def _show(images: list[pb.ImageState], json: bool) -> None:
    from pretrain_bench.harness.cli.console import print_json, table

    headers = ("image", "state", "size", "why")
    rows = [(i.image, i.state, "-" if i.bytes is None else f"{i.bytes / 1e9:.2f} GB", i.why) for i in images]
    if json:
        print_json([dict(zip(headers, row, strict=True)) for row in rows])
    else:
        print(table(headers, rows))


def lock(base: Base = None) -> None:
    """Write the digest that the registry gives for the base image now (and for the one that MinkowskiEngine is built on) to
    docker/images.lock."""
    locked = pb.lock_bases(base)
    print("\n".join(f"{name}@{digest}" for name, digest in locked.digests.items()) + f"\nwritten to {locked.path}")


def prune(engine: Engine = "docker") -> None:
    """Remove images of this project that a newer build has replaced, and containers that a killed run left behind."""
    removed = pb.prune_images(engine)
    print(f"removed {len(removed.images)} images and {len(removed.containers)} containers")
