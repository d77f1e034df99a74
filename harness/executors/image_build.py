"""Build images: with `docker buildx bake` if the engine has BuildKit, otherwise with the engine's classic builder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pretrain_bench.harness.executors.engine import connect, is_podman
from pretrain_bench.harness.executors.image_bake import bake, can_bake
from pretrain_bench.harness.executors.image_classic import build_classic
from pretrain_bench.harness.executors.image_contents import (
    BASE,
    CODE_LABEL,
    INPUTS_LABEL,
    NAME_LABEL,
    PARENT_LABEL,
    BuildSettings,
    code_sha256_of,
    context,
    inputs_sha256,
    tag,
)
from pretrain_bench.harness.executors.image_source import BuildFailed, ImageSource
from pretrain_bench.harness.executors.image_state import image_id, image_labels
from pretrain_bench.harness.planning.code_digest import package_folder
from pretrain_bench.harness.store.machine import project_version
from pretrain_bench.harness.store.provenance import git_state

if TYPE_CHECKING:
    from docker import DockerClient

LOG_TAIL = 12
BUILD_SECONDS = 3600.0
OnStep = Callable[[str, int, int], None]
"""Called with an image, the number of the build step that has started, and the number of its steps."""


class Built(NamedTuple):
    """The result of one build. `unchanged` means that an image with equal inputs existed; the message of `build_failed` has
    the last lines of the log."""

    image: str
    outcome: Literal["ok", "unchanged", "build_failed"]
    seconds: float
    message: str
    log: Path | None


def build_all(
    images: Iterable[str],
    settings: BuildSettings,
    logs: Path,
    on_step: OnStep,
    workers: int = 2,
    engine: str = "docker",
) -> list[Built]:
    """Build the base first if it is among the images, then the others in parallel; a failure does not stop the others.

    Each build writes its log to `logs`. Raises EnvironmentCannot if no engine answers.
    """
    client = connect(engine)
    images = list(dict.fromkeys(images))
    results = [build(client, BASE, settings, logs, on_step)] if BASE in images else []
    others = [image for image in images if image != BASE]
    if results and results[0].outcome == "build_failed":
        return results + [Built(i, "build_failed", 0.0, "its base could not be built", None) for i in others]
    with ThreadPoolExecutor(workers) as pool:
        return results + list(pool.map(lambda image: build(client, image, settings, logs, on_step), others))


def build(client: DockerClient, image: str, settings: BuildSettings, logs: Path, on_step: OnStep) -> Built:
    """Build one image, unless one with equal inputs exists."""
    parent = "" if image == BASE else image_id(client, BASE)
    if image != BASE and not parent:
        return Built(image, "build_failed", 0.0, "the base image is missing; run: bench images build base", None)
    files = context(image, settings)
    arguments = settings.arguments() if image == BASE else {"BASE": tag(BASE)}
    inputs = inputs_sha256(files, arguments, parent)
    if (image_labels(client, image) or {}).get(INPUTS_LABEL) == inputs:
        return Built(image, "unchanged", 0.0, "", None)
    source = ImageSource(tag(image), files, arguments, _labels_of(image, inputs, parent))
    logs.mkdir(parents=True, exist_ok=True)
    log, began = logs / f"{image}.log", time.monotonic()
    message = _run_builder(client, source, log, partial(on_step, image))
    return Built(image, "build_failed" if message else "ok", time.monotonic() - began, message, log)


def _run_builder(client: DockerClient, source: ImageSource, log: Path, on_step: Callable[[int, int], None]) -> str:
    """Build an image and write the log; returns the last lines of the log if the build fails, else an empty string."""
    lines: list[str] = []
    builder = bake if not is_podman(client) and can_bake() else build_classic
    try:
        with log.open("w", encoding="utf-8") as file:
            for text in builder(client, source, BUILD_SECONDS, on_step):
                file.write(text)
                lines = [*lines, *(line for line in text.splitlines() if line.strip())][-LOG_TAIL:]
    except BuildFailed as error:
        return hint("\n".join([*lines, str(error)]))
    return ""


def _labels_of(image: str, inputs: str, parent: str) -> dict[str, str]:
    """The labels of an image: the hash of its build inputs, the id of its parent image, and its origin."""
    return {
        INPUTS_LABEL: inputs,
        NAME_LABEL: image,
        CODE_LABEL: code_sha256_of(image),
        PARENT_LABEL: parent,
        "org.opencontainers.image.source": "pretrain-bench",
        "org.opencontainers.image.version": project_version(),
        "org.opencontainers.image.revision": _revision(),
        "org.opencontainers.image.created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _revision() -> str:
    """The commit that is built, marked if the working tree differs from it; empty outside a checkout."""
    commit, dirty = git_state(package_folder().parent)
    return f"{commit}-dirty" if commit and dirty else commit or ""


def hint(message: str) -> str:
    """Append advice for frequent causes to the message of a failed build."""
    known = {
        "pull access denied": "the base image exists neither here nor in a registry; name another with --base",
        "No matching distribution": "pip finds no such package; give torch wheels with --wheels DIR, or use --torch-args",
        "no space left": "the engine's disk is full; remove unused images with `bench images prune`",
        "toomanyrequests": "the registry's rate limit is reached; try later or log in",
        "Temporary failure in name resolution": "the build has no network",
    }
    return message + "".join(f"\nhint: {advice}" for sign, advice in known.items() if sign.lower() in message.lower())
