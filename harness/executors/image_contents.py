"""Names of container images, and the files, arguments and hashes that each is built from.

There is one `base` (Python, torch, locked dependencies), one thin image per method with the code that its stages can import,
and one `task`. Every image is labelled with the hash of its build inputs, so that nothing is built twice and stale images are
recognised.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import yaml

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.recipes import RECIPES
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import LINEAR_PROBE_PARTS
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.code_digest import (
    base_inputs,
    docker_folder,
    entry_module,
    file_of,
    package_folder,
    reachable_modules,
)

REPOSITORY = "pretrain-bench"
BASE, TASK = "base", "task"
INPUTS_LABEL = "io.pretrain-bench.inputs"
NAME_LABEL = "io.pretrain-bench.image"
CODE_LABEL = "io.pretrain-bench.code"
PARENT_LABEL = "io.pretrain-bench.parent"
LOCK = "images.lock"
PUBLIC_BASE = "docker.io/nvidia/cuda:13.0.1-runtime-ubuntu24.04"
PUBLIC_BUILD_BASE = "docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04"
"""Image with the compiler that MinkowskiEngine for CUDA needs; the final build stage does not use it."""
Files = dict[str, bytes]


class BuildSettings(NamedTuple):
    """A user's choices for the base image: parent image, folder of torch wheels, extra pip arguments, MinkowskiEngine."""

    base: str = PUBLIC_BASE
    wheels: Path | None = None
    torch_args: str = ""
    minkowski: bool = False

    def arguments(self) -> dict[str, str]:
        """The build arguments of the base image."""
        return {
            "BASE": pinned(self.base),
            "BUILD_BASE": pinned(PUBLIC_BUILD_BASE if self.minkowski and self.base == PUBLIC_BASE else self.base),
            "TORCH_ARGS": self.torch_args,
            "MINKOWSKI": "1" if self.minkowski else "0",
            "VARIANT": "cuda" if self.base == PUBLIC_BASE else "cpu",
        }


def image_names() -> list[str]:
    """The names of all images: the base, every built-in method, and the task."""
    return [BASE, *available(Method), TASK]


def tag(image: str) -> str:
    """The local name of an image."""
    return f"{REPOSITORY}/{image}:latest"


def pinned(image: str) -> str:
    """The image with its digest, if images.lock has one."""
    locked = yaml.safe_load((docker_folder() / LOCK).read_text()) or {}
    return (
        f"{image.rpartition(':')[0] if ':' in image.rpartition('/')[2] else image}@{locked[image]}"
        if image in locked
        else image
    )


def dockerfile(image: str) -> bytes:
    """The content of an image's Dockerfile."""
    name = image if image in (BASE, TASK) else "method"
    return (docker_folder() / f"{name}.Dockerfile").read_bytes()


def context(image: str, settings: BuildSettings) -> Files:
    """The build context: path to content of every file that the build can see."""
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
        return [
            "pretrain_bench.methods.stage",
            *(entry_module("finetune", "", part) for part in (*RECIPES, *LINEAR_PROBE_PARTS)),
        ]
    return [
        "pretrain_bench.methods.stage",
        *(entry_module("pretrain", image, s.name) for s in find(Method, image).stages),
    ]


def inputs_sha256(files: Files, arguments: dict[str, str], parent: str) -> str:
    """sha256 of everything that determines an image: its context, its arguments, and the id of its parent image."""
    digest = hashlib.sha256(f"{parent} {sorted(arguments.items())}\n".encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def code_sha256_of(image: str) -> str:
    """sha256 of the project files in an image, independent of the base and the wheels."""
    return inputs_sha256(context(image, BuildSettings()), {}, "")


def check_name(image: str) -> None:
    """Raises WrongUse for a name that is not an image."""
    if image not in image_names():
        raise WrongUse(f"unknown image {image!r}; expected one of {', '.join(image_names())}")
