"""Where the stages of a run are carried out: on this machine, or as jobs of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pretrain_bench.api.configuration import configuration
from pretrain_bench.api.settings import Settings
from pretrain_bench.api.stores import AnyPath, folder_to_write
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.clusters.base import Place
from pretrain_bench.harness.clusters.local import LocalMachine
from pretrain_bench.harness.clusters.slurm_options import SlurmOptions, parse_options
from pretrain_bench.harness.clusters.submissions import OWN_FILES
from pretrain_bench.harness.clusters.ticket import ExecutorChoice, Job, job_of
from pretrain_bench.harness.planning.resolved_suite import ResolvedSuite
from pretrain_bench.harness.running.capacity import whole_machine
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store

On = Literal["local", "slurm", "ray"]
"""Places that a run may choose."""


class Where(NamedTuple):
    """The place of a run, as a user chooses it."""

    on: On = "local"
    slurm: Names = ()
    """Options of sbatch, as `partition=gpu,time=24:00:00`, after those of `slurm:` in `bench.yaml`."""
    max_pending: int | None = None
    """Most stages that a cluster holds at a time."""
    address: str | None = None
    """HOST:PORT of the head of a Ray cluster; by default the cluster that this machine belongs to."""

    def check(self, workers: int | None = None) -> None:
        """Raises WrongUse for what does not go together."""
        if self.on not in get_args(On):
            raise WrongUse(f"--on {self.on!r}: expected one of {', '.join(get_args(On))}")
        if self.on == "local" and (self.slurm or self.max_pending is not None):
            flag = "--slurm" if self.slurm else "--max-pending"
            raise WrongUse(f"{flag}: it is for runs on a cluster; add --on slurm")
        if self.on != "local" and workers is not None:
            raise WrongUse(
                "--workers: it is for runs on this machine; on a cluster --max-pending limits submitted stages"
            )
        if self.on == "ray" and self.slurm:
            raise WrongUse("--slurm: it is for runs on Slurm, and this one is --on ray")
        if self.on != "ray" and self.address is not None:
            raise WrongUse("--address: it is for runs on a Ray cluster; add --on ray")

    def slurm_options(self) -> SlurmOptions:
        """Those of the command after those of `bench.yaml`. Raises WrongUse."""
        return parse_options(as_list(self.slurm), configuration().slurm)

    def settings(self, settings: Settings) -> Settings:
        """The settings for this place: on a cluster the device is a GPU where its jobs ask for one."""
        if self.on == "local":
            return settings
        device = "cuda" if settings.device == "auto" and self._gives_gpus() else settings.device
        return settings._replace(device=device, elsewhere=True)

    def _gives_gpus(self) -> bool:
        if self.on == "slurm":
            return self.slurm_options().gives_gpus
        from pretrain_bench.harness.clusters.ray_cluster import gives_gpus

        return gives_gpus(self.address)


def place_for(where: Where, resolved: ResolvedSuite, runner: StageRunner, workers: int | None) -> Place:
    """The place that runs the stages of a suite, with this command's store and options."""
    if where.on == "local":
        return LocalMachine(runner, whole_machine(resolved.machine.device), workers)
    job = cluster_job(runner.store, resolved.executor, resolved.machine.device, runner.options, resolved)
    if where.on == "ray":
        from pretrain_bench.harness.clusters.ray_cluster import RayCluster

        return RayCluster(runner.store, job, where.address, where.max_pending)
    from pretrain_bench.harness.clusters.slurm import Slurm

    return Slurm(runner.store, job, where.slurm_options(), where.max_pending)


def cluster_job(
    store: Store, executor: str, device: str, options: RunOptions, resolved: ResolvedSuite | None = None
) -> Job:
    """What the tickets of a command share. A sandbox hides the roots of the data."""
    roots = () if resolved is None else resolved.sources.roots.values()
    hidden = tuple(root.resolve() for root in roots)
    choice = ExecutorChoice(name=executor, device=device, hidden=hidden)
    return job_of(store, choice, options, configuration().node_cache)


class Detached(NamedTuple):
    """A driver that was submitted: its job, and the folder of its log."""

    job: str
    log: Path


def detach(command: Sequence[str], where: Where, runs: AnyPath) -> Detached:
    """Submit a `bench` command line, without the program's name, as a small job of its own: the driver of the others.

    Raises WrongUse where sbatch refuses it, EnvironmentCannot without it.
    """
    from pretrain_bench.harness.clusters.driver import submit_driver

    where.check()
    if where.on != "slurm":
        raise WrongUse("--detach: it submits the command as a job; add --on slurm")
    store = folder_to_write(runs)
    store.check_writable()
    submission = submit_driver(store, [sys.executable, "-m", "pretrain_bench", *command], where.slurm_options())
    return Detached(f"slurm:{submission.number}", submission.folder / OWN_FILES)
