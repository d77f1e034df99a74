"""Container images: build, list and prune them, and lock their bases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretrain_bench.api.display import Display, Progressed, default_display
from pretrain_bench.api.stores import AnyPath
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.executors import image_contents, image_state
from pretrain_bench.harness.executors.choice import ENGINES
from pretrain_bench.harness.executors.engine import connect
from pretrain_bench.harness.executors.image_build import Built, build_all
from pretrain_bench.harness.planning.code_digest import docker_folder


class ImageState(NamedTuple):
    """One image: whether it is built and fits this code, why not, and its size."""

    image: str
    state: str
    """`ok`, `stale` or `missing`."""
    why: str
    bytes: int | None


class Pruned(NamedTuple):
    """Ids of removed images and containers."""

    images: list[str]
    containers: list[str]


class LockedBases(NamedTuple):
    """Base image to the digest that the registry gives for it now, and the file that was written."""

    digests: dict[str, str]
    path: Path


def build_images(
    names: Names = (),
    *,
    base: str | None = None,
    wheels: AnyPath | None = None,
    torch_args: str = "",
    minkowski: bool = False,
    logs: AnyPath = "image-logs",
    engine: str = "docker",
    display: Display | None = None,
) -> list[Built]:
    """Build missing and stale images, of all by default; others are kept.

    Args:
        names: images to build; `list_images` names them.
        base: the base image of all; the public CUDA image by default.
        wheels: a folder with a torch wheel to use.
        torch_args: arguments for pip when it installs torch, such as `--index-url`.
        minkowski: build MinkowskiEngine into the base.
        logs: folder for the build logs.
        engine: docker or podman; each keeps its own images.
        display: shows progress; bars on a terminal, lines elsewhere, by default.

    A failed build is a result, `build_failed`. Raises WrongUse for an unknown image, EnvironmentCannot without an engine.
    """
    _check_engine(engine)
    chosen = as_list(names) or image_contents.image_names()
    for name in chosen:
        image_contents.check_name(name)
    folder = None if wheels is None else Path(wheels)
    if folder is not None and not list(folder.glob("torch-*.whl")):
        raise WrongUse(f"--wheels {folder}: no torch-*.whl in it")
    settings = image_contents.BuildSettings(base or image_contents.PUBLIC_BASE, folder, torch_args, minkowski)
    with _bars(display or default_display()) as show:
        return build_all(chosen, settings, Path(logs), show, engine=engine)


@contextmanager
def _bars(display: Display) -> Iterator[Callable[[str, int, int], None]]:
    """Show each build as a stage; builds run in parallel."""
    shown: dict[str, Callable[[object], None]] = {}

    def show(image: str, step: int, steps: int) -> None:
        if image not in shown:
            shown[image] = display.stage(f"build {image}")
        shown[image](Progressed(step, steps))

    try:
        yield show
    finally:
        for one in shown.values():
            display.stage_ended(one)


def list_images(engine: str = "docker") -> list[ImageState]:
    """Every image of an engine, docker or podman, with its state and size. Raises EnvironmentCannot where it does not answer."""
    _check_engine(engine)
    client = connect(engine)
    states = []
    for name in image_contents.image_names():
        state, why = image_state.state(client, name)
        size = None if state == "missing" else int(client.images.get(image_contents.tag(name)).attrs["Size"])
        states.append(ImageState(name, state, why, size))
    return states


def lock_bases(base: str | None = None) -> LockedBases:
    """Write the digest that the registry gives for a base image now to docker/images.lock; for both public ones by default.

    Raises EnvironmentCannot where no engine or registry answers.
    """
    client = connect()
    names = [base] if base else [image_contents.PUBLIC_BASE, image_contents.PUBLIC_BUILD_BASE]
    digests = {name: image_state.lock_base(client, name) for name in names}
    path = docker_folder() / image_contents.LOCK
    text = path.read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    locked: dict[str, Any] = yaml.safe_load(text) or {}
    path.write_text(head + yaml.safe_dump({**locked, **digests}))
    return LockedBases(digests, path)


def prune_images(engine: str = "docker") -> Pruned:
    """Remove images of this project that a newer build replaced, and containers that a killed run left behind."""
    from pretrain_bench.harness.executors.container_owner import remove_orphans

    _check_engine(engine)
    client = connect(engine)
    containers = remove_orphans(client)
    return Pruned(image_state.prune(client), list(containers))


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise WrongUse(f"--engine {engine!r}: expected one of {', '.join(ENGINES)}")
