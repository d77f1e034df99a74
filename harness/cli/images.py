"""`bench images`: the container images, their state, building them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_bench.harness.cli.options import Json

app = typer.Typer(help="Container images: one per method, one for the tasks, on one base.", no_args_is_help=True)
Names = Annotated[list[str] | None, typer.Argument(help="Images.  [default: all]", show_default=False)]
Base = Annotated[
    str | None,
    typer.Option("--base", help="The image below all.  [default: the public CUDA image]", show_default=False),
]


def build(
    names: Names = None,
    base: Base = None,
    wheels: Annotated[Path | None, typer.Option("--wheels", help="A folder with a torch wheel to use.")] = None,
    torch_args: Annotated[
        str, typer.Option("--torch-args", help="Arguments of pip for torch, such as --index-url.")
    ] = "",
    minkowski: Annotated[
        bool, typer.Option("--minkowski", help="Build MinkowskiEngine into the base (10 minutes).")
    ] = False,
    logs: Annotated[Path, typer.Option("--logs", help="Where the build logs are kept.")] = Path("image-logs"),
    json: Json = False,
) -> None:
    """Build what is missing or does not fit any more; what has not changed is left alone. Exit code 1 where one fails."""
    from tqdm import tqdm

    from pretrain_bench.benchmarks.support.errors import WrongUse
    from pretrain_bench.harness.cli.console import print_json, printable, table
    from pretrain_bench.harness.executors import image_contents as images
    from pretrain_bench.harness.executors.image_build import build_all

    chosen = names or images.image_names()
    for name in chosen:
        images.check_name(name)
    if wheels is not None and not list(wheels.glob("torch-*.whl")):
        raise WrongUse(f"--wheels {wheels}: no torch-*.whl in it")
    settings = images.BuildSettings(base or images.PUBLIC_BASE, wheels, torch_args, minkowski)
    bars: dict[str, tqdm] = {}

    def on_step(image: str, step: int, steps: int) -> None:
        if image not in bars:
            bars[image] = tqdm(total=steps, desc=f"{image:<14}", ncols=80, unit="step", disable=json)
        bars[image].n = step
        bars[image].refresh()

    built = build_all(chosen, settings, logs, on_step)
    for bar in bars.values():
        bar.close()
    if json:
        print_json([{**b._asdict(), "log": str(b.log) if b.log else None} for b in built])
    else:
        print(
            table(
                ("image", "outcome", "seconds", "log"),
                [(b.image, b.outcome, f"{b.seconds:.0f}", b.log or "-") for b in built],
            )
        )
        for failed in (b for b in built if b.outcome == "build_failed"):
            print(f"\n{failed.image}: the build failed; last lines:\n{printable(failed.message)}")
    if any(b.outcome == "build_failed" for b in built):
        raise typer.Exit(1)


def ls(json: Json = False) -> None:
    """List the images: whether they are built, fit this code, and how large they are."""
    _show(json, check=False)


def check(json: Json = False) -> None:
    """Report drift: images older than their code, locks or base. Exit code 1 where there is any."""
    _show(json, check=True)


def _show(json: bool, check: bool) -> None:
    from pretrain_bench.harness.cli.console import print_json, table
    from pretrain_bench.harness.executors.engine import connect
    from pretrain_bench.harness.executors.image_contents import image_names, tag
    from pretrain_bench.harness.executors.image_state import state

    client = connect()
    rows = []
    for name in image_names():
        status, why = state(client, name)
        size = "-" if status == "missing" else f"{client.images.get(tag(name)).attrs['Size'] / 1e9:.2f} GB"
        rows.append((name, status, size, why))
    if json:
        print_json([dict(zip(("image", "state", "size", "why"), row, strict=True)) for row in rows])
    else:
        print(table(("image", "state", "size", "why"), rows))
    if check and any(status != "ok" for _, status, _, _ in rows):
        raise typer.Exit(1)


def lock(base: Base = None) -> None:
    """Write the digest that the registry gives for the base image now (and for the one that MinkowskiEngine is built on) to
    docker/images.lock."""
    import yaml

    from pretrain_bench.harness.executors.engine import connect
    from pretrain_bench.harness.executors.image_contents import LOCK, PUBLIC_BASE, PUBLIC_BUILD_BASE
    from pretrain_bench.harness.executors.image_state import lock_base
    from pretrain_bench.harness.planning.code_digest import docker_folder

    client = connect()
    names = [base] if base else [PUBLIC_BASE, PUBLIC_BUILD_BASE]
    digests = {name: lock_base(client, name) for name in names}
    path = docker_folder() / LOCK
    text = path.read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    path.write_text(head + yaml.safe_dump({**(yaml.safe_load(text) or {}), **digests}))
    print("\n".join(f"{name}@{digest}" for name, digest in digests.items()) + f"\nwritten to {path}")


def prune() -> None:
    """Remove images of this project that a newer build has replaced, and containers that a killed run left behind."""
    from pretrain_bench.harness.executors.container_owner import remove_orphans
    from pretrain_bench.harness.executors.engine import connect
    from pretrain_bench.harness.executors.image_state import prune as prune_images

    client = connect()
    containers = remove_orphans(client)
    images = prune_images(client)
    print(f"removed {len(images)} images and {len(containers)} containers")
