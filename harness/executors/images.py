"""Container images: what goes into each, building them, and whether they still fit the code (design section 6).

One `base` (Python, torch, locked dependencies), one thin image per method with the code its stages can reach, and one `task`.
Every image carries a label with the hash of its build inputs, so that nothing is built twice and a stale one is recognised.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import yaml

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.recipes import RECIPES
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.code_digest import (
    base_inputs,
    docker_folder,
    entry_module,
    file_of,
    package_folder,
    reachable_modules,
)
from pretrain_bench.harness.store.machine import project_version
from pretrain_bench.harness.store.provenance import git_state

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "pretrain-bench"
BASE, TASK = "base", "task"
INPUTS_LABEL = "io.pretrain-bench.inputs"
NAME_LABEL = "io.pretrain-bench.image"
CODE_LABEL = "io.pretrain-bench.code"
PARENT_LABEL = "io.pretrain-bench.parent"
LOCK = "images.lock"
PUBLIC_BASE = "docker.io/nvidia/cuda:13.0.1-runtime-ubuntu24.04"
PUBLIC_BUILD_BASE = "docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04"
"""Has the compiler that MinkowskiEngine for CUDA needs; the final stage does without."""
LOG_TAIL = 12
BUILD_SECONDS = 3600.0
Files = dict[str, bytes]
State = Literal["ok", "stale", "missing"]


class BuildSettings(NamedTuple):
    """What a person may choose about images: the base, torch wheels at hand, extra arguments of pip, MinkowskiEngine."""

    base: str = PUBLIC_BASE
    wheels: Path | None = None
    torch_args: str = ""
    minkowski: bool = False

    def arguments(self) -> dict[str, str]:
        """Build arguments of the base image."""
        return {
            "BASE": pinned(self.base),
            "BUILD_BASE": pinned(PUBLIC_BUILD_BASE if self.minkowski and self.base == PUBLIC_BASE else self.base),
            "TORCH_ARGS": self.torch_args,
            "MINKOWSKI": "1" if self.minkowski else "0",
            "VARIANT": "cuda" if self.base == PUBLIC_BASE else "cpu",
        }


class Built(NamedTuple):
    """How one build ended: `ok`, `unchanged` (nothing was to be done) or `build_failed` with the log's last lines."""

    image: str
    outcome: Literal["ok", "unchanged", "build_failed"]
    seconds: float
    message: str
    log: Path | None


class StaleImage(BenchError):
    """An image that does not fit the code any more, or is not there."""

    exit_code = EnvironmentCannot.exit_code


def image_names() -> list[str]:
    """The base, every method that ships, and the task."""
    return [BASE, *available(Method), TASK]


def tag(image: str) -> str:
    """The local name of an image."""
    return f"{REPOSITORY}/{image}:latest"


def pinned(image: str) -> str:
    """The image with its digest, where images.lock has one."""
    locked = yaml.safe_load((docker_folder() / LOCK).read_text()) or {}
    return (
        f"{image.rpartition(':')[0] if ':' in image.rpartition('/')[2] else image}@{locked[image]}"
        if image in locked
        else image
    )


def dockerfile(image: str) -> bytes:
    """The content of the image's Dockerfile."""
    name = image if image in (BASE, TASK) else "method"
    return (docker_folder() / f"{name}.Dockerfile").read_bytes()


def context(image: str, settings: BuildSettings) -> Files:
    """Everything that a build can see, by path."""
    files = {"Dockerfile": dockerfile(image)}
    if image == BASE:
        files |= {name: path.read_bytes() for name, path in base_inputs().items()}
        files["wheels/README"] = b"torch wheels that were at hand\n"
        for wheel in sorted(settings.wheels.glob("torch-*.whl")) if settings.wheels else ():
            files[f"wheels/{wheel.name}"] = wheel.read_bytes()
        return files
    for module in sorted(reachable_modules(entries(image))):
        path = file_of(module)
        assert path is not None
        files[f"code/{path.relative_to(package_folder().parent).as_posix()}"] = path.read_bytes()
    return files


def entries(image: str) -> list[str]:
    """The modules that an image must be able to run."""
    if image == TASK:
        return ["pretrain_bench.methods.stage", *(entry_module("finetune", "", kind) for kind in RECIPES)]
    return [
        "pretrain_bench.methods.stage",
        *(entry_module("pretrain", image, s.name) for s in find(Method, image).stages),
    ]


def inputs_sha256(files: Files, arguments: dict[str, str], parent: str) -> str:
    """Hash of all that decides what an image holds: its context, its arguments, and the id of the image below it."""
    digest = hashlib.sha256(f"{parent} {sorted(arguments.items())}\n".encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def connect(timeout: float = 60) -> DockerClient:
    """The engine that DOCKER_HOST names, or the local one. Raises EnvironmentCannot where none answers."""
    import docker

    try:
        client = docker.from_env(timeout=timeout)
        client.ping()
        return client
    except Exception as error:  # the SDK raises many kinds when there is no engine
        raise EnvironmentCannot(
            f"no container engine answers ({first_line(error)}); start Docker or set DOCKER_HOST, or use --executor local"
        ) from None


def first_line(error: Exception) -> str:
    """What an error of the engine says, without its pages."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def state(client: DockerClient, image: str) -> tuple[State, str]:
    """Whether an image is there and fits this code, locks and base; and why not, with what to do."""
    labels = _labels(client, image)
    if labels is None:
        return "missing", f"{tag(image)} is not built; run: bench images build {image}"
    advice = f"run: bench images build {image}"
    if labels.get(CODE_LABEL) != code_sha256_of(image):
        what = "locks or Dockerfile" if image == BASE else "code or Dockerfile"
        return "stale", f"{tag(image)}: its {what} changed after it was built; {advice}"
    if image != BASE:
        if labels.get(PARENT_LABEL) != _id(client, BASE):
            return "stale", f"{tag(image)}: its base was built again after it; {advice}"
        base, why = state(client, BASE)
        if base == "stale":
            return "stale", f"{tag(image)}: {why}"
    return "ok", ""


def _labels(client: DockerClient, image: str) -> dict[str, str] | None:
    from docker.errors import ImageNotFound

    try:
        return dict(client.images.get(tag(image)).labels)
    except ImageNotFound:
        return None


def _id(client: DockerClient, image: str) -> str:
    """The id of an image, empty where it is not there."""
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(tag(image)).id)
    except ImageNotFound:
        return ""


def code_sha256_of(image: str) -> str:
    """Hash of what this project itself puts into an image, whatever base and wheels it is built with."""
    return inputs_sha256(context(image, BuildSettings()), {}, "")


def build_all(
    images: Iterable[str], settings: BuildSettings, logs: Path, told: Callable[[str, int, int], None], workers: int = 2
) -> list[Built]:
    """Build the base first where it is asked for, then the others side by side. One failure does not stop the others.

    `told(image, step, steps)` is called as a build goes on.
    """
    client = connect()
    images = list(dict.fromkeys(images))
    done = [build(client, BASE, settings, logs, told)] if BASE in images else []
    if done and done[0].outcome == "build_failed":
        return done + [Built(i, "build_failed", 0.0, "its base could not be built", None) for i in images if i != BASE]
    with ThreadPoolExecutor(workers) as pool:
        return done + list(pool.map(lambda i: build(client, i, settings, logs, told), [i for i in images if i != BASE]))


def build(
    client: DockerClient, image: str, settings: BuildSettings, logs: Path, told: Callable[[str, int, int], None]
) -> Built:
    """Build one image, unless one of equal inputs is there."""
    from docker.errors import APIError

    files, parent = context(image, settings), "" if image == BASE else _id(client, BASE)
    if image != BASE and not parent:
        return Built(image, "build_failed", 0.0, "there is no base to build on; run: bench images build base", None)
    arguments = settings.arguments() if image == BASE else {"BASE": tag(BASE)}
    inputs = inputs_sha256(files, arguments, parent)
    if (_labels(client, image) or {}).get(INPUTS_LABEL) == inputs:
        return Built(image, "unchanged", 0.0, "", None)
    logs.mkdir(parents=True, exist_ok=True)
    log, began = logs / f"{image}.log", time.monotonic()
    lines: list[str] = []
    labels = {
        INPUTS_LABEL: inputs,
        NAME_LABEL: image,
        CODE_LABEL: code_sha256_of(image),
        PARENT_LABEL: parent,
        "org.opencontainers.image.source": "pretrain-bench",
        "org.opencontainers.image.version": project_version(),
        "org.opencontainers.image.revision": _revision(),
        "org.opencontainers.image.created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    message = ""
    try:
        stream = client.api.build(
            fileobj=build_context(files), custom_context=True, encoding=None, tag=tag(image), buildargs=arguments,
            labels=labels, decode=True, rm=True, forcerm=True, pull=False, timeout=int(BUILD_SECONDS),
        )  # fmt: skip
        with log.open("w") as file:
            for part in stream:
                text = part.get("stream") or part.get("error") or ""
                file.write(text)
                lines = [*lines, *(line for line in text.splitlines() if line.strip())][-LOG_TAIL:]
                if text.startswith("Step "):
                    step, _, steps = text.split()[1].partition("/")
                    told(image, int(step), int(steps))
                if "error" in part:
                    message = part["error"]
                if time.monotonic() - began > BUILD_SECONDS:
                    message = f"the build took longer than {BUILD_SECONDS:g} s"
                    break
    except (APIError, OSError) as error:
        message = first_line(error)
    seconds = time.monotonic() - began
    if message:
        return Built(image, "build_failed", seconds, "\n".join([*lines, hint(message)]), log)
    return Built(image, "ok", seconds, "", log)


def _revision() -> str:
    """The commit that is built, marked where files differ from it; empty outside a checkout."""
    commit, dirty = git_state(package_folder().parent)
    return f"{commit}-dirty" if commit and dirty else commit or ""


def hint(message: str) -> str:
    """What to try, for failures that are often seen."""
    known = {
        "pull access denied": "the base image is not there and no registry has it; name another with --base",
        "No matching distribution": "pip finds no such package: give torch wheels with --wheels DIR, or --torch-args",
        "no space left": "the engine's disk is full; `bench images prune` removes images that nothing uses",
        "toomanyrequests": "the registry refuses more downloads for now; try later or log in",
        "Temporary failure in name resolution": "the build has no network",
    }
    return message + "".join(f"\nhint: {advice}" for sign, advice in known.items() if sign.lower() in message.lower())


def prune(client: DockerClient) -> list[str]:
    """Remove images of ours that have lost their name to a newer build; their ids."""
    gone = []
    named = {image.id for name in image_names() for image in client.images.list(tag(name))}
    for image in client.images.list(filters={"label": NAME_LABEL}, all=False):
        if image.id not in named and not image.tags:
            client.images.remove(image.id, force=True)
            gone.append(image.id)
    return gone


def lock_base(client: DockerClient, base: str) -> str:
    """The digest that the registry gives for a base now. Raises EnvironmentCannot where no registry answers."""
    try:
        return str(client.images.get_registry_data(base).id)
    except Exception as error:
        raise EnvironmentCannot(f"{base}: its digest cannot be had: {first_line(error)}") from None


def require(client: DockerClient, image: str) -> str:
    """The id of an image that fits this code. Raises StaleImage with the reason where it does not."""
    found, why = state(client, image)
    if found != "ok":
        raise StaleImage(why)
    return _id(client, image)


def with_image(client: DockerClient, method: Method) -> Method:
    """A user's own method whose code is its folder and its image as it is now. Raises WrongUse where the image is not there."""
    from docker.errors import ImageNotFound

    assert method.image is not None
    try:
        found = client.images.get(method.image)
    except ImageNotFound:
        raise WrongUse(
            f"method {method.name!r}: there is no image {method.image}; build it first, such as: docker build -t "
            f"{method.image.partition(':')[0]} FOLDER"
        ) from None
    if found.attrs["Config"].get("Volumes"):
        raise WrongUse(
            f"method {method.name!r}: its image has a VOLUME, which is disk outside of every limit; take it out"
        )
    code = hashlib.sha256(f"{method.code_sha256} {found.id}".encode()).hexdigest()
    return method.model_copy(update={"code_sha256": code, "image": found.id})


def check_name(image: str) -> None:
    """Raises WrongUse for an image that does not exist."""
    if image not in image_names():
        raise WrongUse(f"unknown image {image!r}. There are: {', '.join(image_names())}")


def build_context(files: Files) -> io.BytesIO:
    """A build context; equal files give equal bytes, so that the engine's cache is used."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer
