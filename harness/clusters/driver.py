"""Run the driver as a job (`--detach`), and check a worker (`bench doctor --on slurm`)."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.clusters.jobs import squeue
from pretrain_bench.harness.clusters.node_checks import Answer, Check, Probe, checks_of_node, probe_of
from pretrain_bench.harness.clusters.slurm import submit_calls
from pretrain_bench.harness.clusters.slurm_options import (
    DRIVER,
    GPU_OPTIONS,
    MEMORY_OPTIONS,
    SlurmOptions,
    sbatch_parameters,
)
from pretrain_bench.harness.clusters.submissions import OWN_FILES, Submission, announce
from pretrain_bench.harness.clusters.ticket import Job
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
    write_json(submission.folder / PROBE, probe_of(job, data).model_dump(mode="json"), durable=True)
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
    write_json(folder / ANSWER, Answer(checks=tuple(checks_of_node(probe))).model_dump(mode="json"), durable=True)
    return 0
