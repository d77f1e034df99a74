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

    from pretrain_bench.harness.cli.console import print_json, printable, table
    from pretrain_bench.harness.executors import images

    chosen = names or images.image_names()
    for name in chosen:
        images.check_name(name)
    if wheels is not None and not list(wheels.glob("torch-*.whl")):
        raise images.WrongUse(f"--wheels {wheels}: no torch-*.whl in it")
    settings = images.BuildSettings(base or images.PUBLIC_BASE, wheels, torch_args, minkowski)
    bars: dict[str, tqdm] = {}

    def told(image: str, step: int, steps: int) -> None:
        if image not in bars:
            bars[image] = tqdm(total=steps, desc=f"{image:<14}", ncols=80, unit="step", disable=json)
        bars[image].n = step
        bars[image].refresh()

    built = images.build_all(chosen, settings, logs, told)
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
    from pretrain_bench.harness.executors import images

    client = images.connect()
    rows = []
    for name in images.image_names():
        found, why = images.state(client, name)
        size = "-" if found == "missing" else f"{client.images.get(images.tag(name)).attrs['Size'] / 1e9:.2f} GB"
        rows.append((name, found, size, why))
    if json:
        print_json([dict(zip(("image", "state", "size", "why"), row, strict=True)) for row in rows])
    else:
        print(table(("image", "state", "size", "why"), rows))
    if check and any(found != "ok" for _, found, _, _ in rows):
        raise typer.Exit(1)


def lock(base: Base = None) -> None:
    """Write the digest that the registry gives for the base image now (and for the one that MinkowskiEngine is built on) to
    docker/images.lock."""
    import yaml

    from pretrain_bench.harness.executors import images

    client = images.connect()
    names = [base] if base else [images.PUBLIC_BASE, images.PUBLIC_BUILD_BASE]
    digests = {name: images.lock_base(client, name) for name in names}
    path = images.docker_folder() / images.LOCK
    text = path.read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    path.write_text(head + yaml.safe_dump({**(yaml.safe_load(text) or {}), **digests}))
    print("\n".join(f"{name}@{digest}" for name, digest in digests.items()) + f"\nwritten to {path}")


def prune() -> None:
    """Remove images of this project that a newer build has replaced, and containers that a killed run left behind."""
    from pretrain_bench.harness.executors import images
    from pretrain_bench.harness.executors.docker import remove_orphans

    client = images.connect()
    left = remove_orphans(client)
    gone = images.prune(client)
    print(f"removed {len(gone)} images and {len(left)} containers")
