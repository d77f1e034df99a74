"""What `bench doctor --on slurm` and `--on ray` check on a node of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters.ticket import Job, check_versions
from pretrain_bench.harness.clusters.worker import executor_of, host
from pretrain_bench.harness.planning.code_digest import project_sha256
from pretrain_bench.harness.store.store import Store


class Probe(Spec):
    """A request to check a worker: the shared part of tickets, the project's digest, and data roots by name."""

    job: Job
    code: str
    data: dict[str, Path] = {}


class Check(Spec):
    """One check made by a worker."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str


class Answer(Spec):
    """A worker's answer to a probe."""

    checks: tuple[Check, ...]


def probe_of(job: Job, data: Mapping[str, Path]) -> Probe:
    """The request of this project to a node, with the roots of the data by name."""
    return Probe(job=job, code=project_sha256(), data={name: folder.resolve() for name, folder in data.items()})


def checks_of_node(probe: Probe) -> list[Check]:
    """Compare this node with a probe."""
    job, node = probe.job, host()
    steps: tuple[tuple[str, Callable[[], object], str], ...] = (
        ("versions", lambda: check_versions(job), ", ".join(f"{n} {v}" for n, v in job.versions.items())),
        ("code", lambda: _check_code(probe.code), probe.code[:12]),
        ("runs folder", lambda: Store(job.runs).check_writable(), str(job.runs)),
        ("data cache", lambda: _check_folder(job.cache), str(job.cache)),
        (f"executor {job.executor.name}", lambda: executor_of(job.executor, ()), "works"),
        *((f"data: {name}", functools.partial(_check_folder, root), str(root)) for name, root in probe.data.items()),
    )
    checks = [Check(what="node", state="ok", detail=node)]
    for what, step, detail in steps:
        try:
            step()
            checks.append(Check(what=what, state="ok", detail=detail))
        except (BenchError, OSError) as error:
            checks.append(Check(what=what, state="broken", detail=str(error)))
    return checks


def _check_code(expected: str) -> None:
    here = project_sha256()
    if here != expected:
        raise BenchError(
            f"node {host()} has different code of this project (digest {here[:12]}, expected {expected[:12]})"
        )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BenchError(f"{folder} does not exist on node {host()}; every node must mount it")
