"""Settings that planning and running share: data roots, device, threads, executor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.api.stores import AnyPath
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.api.suites import suite as suite_named
from pretrain_bench.benchmarks.specs.suite import Suite, parse_filters
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite, RunOverrides, resolve_suite

Roots = Mapping[str, AnyPath] | Iterable[str]
"""Dataset to the folder of its official layout: `{"s3dis": "/data/s3dis"}`, or texts such as `s3dis=/data/s3dis`."""


class Settings(NamedTuple):
    """Choices beside the suite. Use the same object to plan and to run: most of them are part of every stage's key."""

    data: Roots = ()
    """Roots of datasets; datasets without a root are replaced by procedural ones."""
    pretrain_data: Roots = ()
    """The dataset to pre-train on instead of ScanNet, with its root."""
    imagenet_weights: AnyPath | None = None
    """ResNet weights (torchvision's names) for the 2D encoder of `ours`."""
    threads: int | None = None
    """CPU threads per stage; by default all that this process may use, at most 8."""
    backend: str = "torch"
    """Sparse backend: torch, triton (torch with fused convolutions on a GPU) or minkowski."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU if the machine has one."""
    executor: str = "auto"
    """bubblewrap: processes in namespaces; local: plain processes; docker, podman: containers; auto: bubblewrap if it works."""
    trust_code: bool = False
    """Allow Python code from your own method folders; planning runs it as your user, without isolation."""
    up: str = "auto"
    """Up axis of recordings in `rgbd-folder`: +x, -x, +y, -y, +z, -z, or auto: estimated from cameras and floor."""
    pretrained_on: Names = ()
    """Scenes that imported checkpoints were pre-trained on, as you state them: `NAME=FILE` or `FILE`, one scene a line."""

    label_splits: Roots = ()
    """Files of official label lists that do not ship: `{"la20": "/data/points20"}`, or texts such as `la20=/data/points20`."""

    elsewhere: bool = False
    """Stages run on other machines: `device` is theirs, and auto stands for cpu."""


def resolve(cells: Suite | AnyPath, only: Names, settings: Settings, stand_ins: bool = True) -> ResolvedSuite:
    """A suite, by itself or by name or file, with everything it names loaded. Without `stand_ins`, datasets without data keep
    their own name where their published size is known. Raises WrongUse, EnvironmentCannot."""
    chosen = cells if isinstance(cells, Suite) else suite_named(cells)
    _check_threads(settings.threads)
    weights = settings.imagenet_weights
    overrides = RunOverrides(
        data=root_options(settings.data),
        pretrain_data=root_options(settings.pretrain_data),
        threads=settings.threads,
        backend=settings.backend,
        device="cpu" if settings.elsewhere and settings.device == "auto" else settings.device,
        executor=settings.executor,
        imagenet_weights=None if weights is None else Path(weights),
        trust_code=settings.trust_code,
        up=settings.up,
        pretrained_on=as_list(settings.pretrained_on),
        label_splits=root_options(settings.label_splits),
        stand_ins=stand_ins,
        elsewhere=settings.elsewhere,
    )
    return resolve_suite(chosen, parse_filters(as_list(only)), overrides)


def _check_threads(threads: object) -> None:
    """Raises WrongUse for a number of threads that is not a whole number from 1."""
    if threads is not None and (type(threads) is not int or threads < 1):
        raise WrongUse(
            f"--threads {threads!r}: expected a whole number from 1, or None for all that may be used, at most 8"
        )


def root_options(roots: Roots) -> list[str]:
    """The same as NAME=DIR texts."""
    if isinstance(roots, Mapping):
        return [f"{name}={os.fspath(folder)}" for name, folder in roots.items()]
    return [roots] if isinstance(roots, str) else list(roots)
