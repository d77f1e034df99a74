"""Tickets: everything that a worker on another machine needs to run one stage, as readable JSON.

It names the data by folder and hash, the executor by name, and the versions and code digest that the worker must have.
"""

from __future__ import annotations

import platform
from pathlib import Path

from pretrain_bench.benchmarks.datasets.layout import MANIFEST, read_manifest
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.clusters.base import ReadyStage
from pretrain_bench.harness.clusters.node_cache import NodeCache, local_copy
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.stage_runner import Retry, RunOptions
from pretrain_bench.harness.store.machine import package_version, project_version
from pretrain_bench.harness.store.store import Store

PACKAGES = ("torch", "numpy")
"""Packages whose versions must be equal on all workers: they affect results but are not part of keys."""


class ExecutorChoice(Spec):
    """How to isolate stages on a worker: `name` as for --executor, or `module:Class` for your own; `hidden` are folders that a
    sandbox hides, `command` replaces the command of a process executor."""

    name: str = "auto"
    device: str = "cpu"
    hidden: tuple[Path, ...] = ()
    command: tuple[str, ...] | None = None


class Job(Spec):
    """The shared part of a command's tickets: the store, the executor, the options of `RunOptions`, and the data caches."""

    runs: Path
    executor: ExecutorChoice = ExecutorChoice()
    retry: Retry = "infra"
    imagenet_weights: Path | None = None
    cache: Path
    node_cache: NodeCache | None = None
    versions: dict[str, str]


class Ticket(Spec):
    """One stage for a worker. `stage` omits the recipe, which only planning needs, and the data, which are given by dataset
    and folder."""

    job: Job
    key: str
    stage: PlannedStage
    dataset: Dataset | None = None
    data: Path | None = None
    needs_artifacts: bool = False

    def ready(self, manifests: dict[Path, PreparedDataset]) -> PlannedStage:
        """The stage with this machine's view of its data. Each folder is read once into `manifests`, and copied to the node's
        cache if there is one.

        Raises EnvironmentCannot if the data are missing here, or differ.
        """
        if self.data is None or self.dataset is None or self.stage.spec.data is None:
            return self.stage
        if self.data not in manifests:
            if not (self.data / MANIFEST).is_file():
                raise EnvironmentCannot(
                    f"{self.stage.title}: the prepared data of {self.dataset.name!r} are not on node {platform.node()}: "
                    f"{self.data} does not exist there; put the data cache on a file system that every node mounts "
                    "(BENCH_CACHE or `cache:` in bench.yaml)"
                )
            manifests[self.data] = PreparedDataset(self.dataset, self.data, read_manifest(self.data))
        held = manifests[self.data]
        if held.manifest.sha256 != self.stage.spec.data.manifest_sha256:
            raise EnvironmentCannot(
                f"{self.stage.title}: node {platform.node()} has different data of {self.dataset.name!r} in {self.data} than "
                "this run was planned with; let every node mount the same data cache"
            )
        if self.job.node_cache is not None and held.folder == self.data:
            held = manifests[self.data] = local_copy(self.job.node_cache, held)
        return self.stage._replace(data=held)


def ticket_of(ready: ReadyStage, job: Job) -> Ticket:
    """The ticket of a stage that is ready."""
    data = ready.planned.data
    return Ticket(
        job=job,
        key=ready.key,
        stage=ready.planned._replace(data=None, recipe=None),
        dataset=None if data is None else data.dataset,
        data=None if data is None else data.folder.resolve(),
        needs_artifacts=ready.needs_artifacts,
    )


def job_of(store: Store, executor: ExecutorChoice, options: RunOptions, node_cache: NodeCache | None = None) -> Job:
    """What the tickets of a command share, with the versions of this machine."""
    weights = options.imagenet_weights
    return Job(
        runs=store.root.resolve(),
        executor=executor,
        retry=options.retry,
        imagenet_weights=None if weights is None else weights.resolve(),
        cache=cache_folder().resolve(),
        node_cache=node_cache,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of this project, Python and the packages that decide results, on this machine."""
    packages = {name: version for name in PACKAGES if (version := package_version(name))}
    return {"pretrain_bench": project_version(), "python": platform.python_version(), **packages}


def check_versions(job: Job) -> None:
    """Raises EnvironmentCannot with the first version that differs on this machine."""
    here = versions()
    for name, version in job.versions.items():
        if here.get(name) != version:
            raise EnvironmentCannot(
                f"node {platform.node()} has {name} {here.get(name, 'not installed')}, and the command that submitted the stage "
                f"has {version}; use the same environment on every node, such as one on a shared file system"
            )
