"""Run the driver as a job (`--detach`), and check a worker (`bench doctor --on slurm`)."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters.jobs import squeue
from pretrain_bench.harness.clusters.slurm import submit_calls
from pretrain_bench.harness.clusters.slurm_options import (
    DRIVER,
    GPU_OPTIONS,
    MEMORY_OPTIONS,
    SlurmOptions,
    sbatch_parameters,
)
from pretrain_bench.harness.clusters.submissions import OWN_FILES, Submission, announce
from pretrain_bench.harness.clusters.ticket import Job, check_versions
from pretrain_bench.harness.clusters.worker import executor_of, host
from pretrain_bench.harness.planning.code_digest import project_sha256
from pretrain_bench.harness.store.store import Store, write_json

NOT_FOR_DRIVERS = (
    *GPU_OPTIONS,
    *MEMORY_OPTIONS,
    "cpus_per_task",
    "cpus_per_gpu",
    "exclusive",
    "nodes",
    "ntasks",
    "ntasks_per_node",
)
"""Options that only stages need: a driver takes one processor and little memory, unless `slurm: driver:` sets others."""
PROBE, ANSWER = "probe.json", "answer.json"
LOOK_SECONDS = 0.5


def submit_driver(store: Store, command: Sequence[str], options: SlurmOptions) -> Submission:
    """Submit a command as a job with one processor. Raises WrongUse if sbatch refuses it, EnvironmentCannot without sbatch."""
    own = options.sections.get(DRIVER, {})
    values = {name: value for name, value in options.common.items() if name not in NOT_FOR_DRIVERS} | own
    submission = announce(store, "slurm-driver", [])
    parameters = sbatch_parameters({"cpus_per_task": "1", "mem": "2G", **values}, None)
    call = functools.partial(run_command, list(command), os.getcwd())
    try:
        return submission.with_number(submit_calls([call], submission, parameters, values, as_step=False))
    except BenchError:
        submission.drop()
        raise


def run_command(command: Sequence[str], folder: str) -> int:
    """Entry point of the driver's job."""
    return subprocess.run(command, cwd=folder, check=False).returncode


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


class ProbeResult(NamedTuple):
    """The job that checked a worker, and its answer; None while it waits."""

    job: str
    state: str
    checks: tuple[Check, ...] | None


def probe_worker(
    store: Store, job: Job, data: Mapping[str, Path], options: SlurmOptions, seconds: float
) -> ProbeResult:
    """Submit a job that checks its node, and wait up to `seconds` for the answer. Raises as `submit_driver`."""
    submission = announce(store, "slurm-probe", [])
    roots = {name: folder.resolve() for name, folder in data.items()}
    probe = Probe(job=job, code=project_sha256(), data=roots)
    write_json(submission.folder / PROBE, probe.model_dump(mode="json"), durable=True)
    values = options.of("pretrain")
    parameters = sbatch_parameters({"cpus_per_task": "1", **values}, None)
    number = submit_calls([functools.partial(check_here, submission.folder)], submission, parameters, values)
    deadline, state = time.monotonic() + seconds, "pending"
    while time.monotonic() < deadline:
        listed = squeue("--jobs", number)  # asked before looking for the answer, which the job writes before it ends
        if (submission.folder / ANSWER).is_file():
            answer = Answer.model_validate_json((submission.folder / ANSWER).read_bytes())
            submission.drop()
            return ProbeResult(number, "ended", answer.checks)
        if listed:
            state = next(iter(listed.values()))[0].lower()
        elif listed is not None:
            state = f"ended without an answer; see {submission.folder / OWN_FILES}"
        time.sleep(LOOK_SECONDS)
    return ProbeResult(number, state, None)


def check_here(folder: Path) -> int:
    """Entry point of the job: compare this node with the probe, and write the answer beside it."""
    probe = Probe.model_validate_json((folder / PROBE).read_bytes())
    write_json(folder / ANSWER, Answer(checks=tuple(_checks(probe))).model_dump(mode="json"), durable=True)
    return 0


def _checks(probe: Probe) -> list[Check]:
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
        except BenchError as error:
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
