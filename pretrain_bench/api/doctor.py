"""A check of this machine: what is installed, what can be written, which data are there."""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain_bench.api.places import Where, cluster_job
from pretrain_bench.api.settings import Roots, Settings, root_options
from pretrain_bench.api.stores import Runs, folder_to_write
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, writing
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.benchmarks.support.process_limits import shared_memory_bytes, usable_cpus, usable_memory_bytes
from pretrain_bench.harness.clusters.ticket import Job
from pretrain_bench.harness.executors.choice import ENGINES
from pretrain_bench.harness.executors.local import LocalExecutor, stage_environment
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import parse_data_options
from pretrain_bench.harness.running.stage_runner import RunOptions
from pretrain_bench.harness.store.object_store import count_runs, remote_url
from pretrain_bench.harness.store.store import Store, try_write

WORKER_SECONDS = 300.0
"""How long the check of a cluster waits for its nodes."""


class Diagnosis(NamedTuple):
    """One thing that was checked. `missing` can be lived with, `broken` cannot."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str


def doctor(runs: Runs = "runs", data: Roots = ()) -> list[Diagnosis]:
    """Check torch as a stage finds it, the sparse backends, the executors, the GPU, CPUs, memory, worker processes, the folder of
    runs, the data cache, and each dataset (`data`: its root).

    Raises WrongUse for an unknown dataset.
    """
    return [
        _torch(),
        _backend(),
        *isolation(),
        _gpu(),
        _machine(),
        _worker_processes(),
        _runs(runs),
        _cache(),
        *_datasets(root_options(data)),
    ]


def doctor_of_worker(
    where: Where, runs: Runs = "runs", data: Roots = (), executor: str = "auto", seconds: float = WORKER_SECONDS
) -> list[Diagnosis]:
    """Check a node of Slurm by a job, or each node of a Ray cluster by a task: versions, code, the folder of runs, the data
    cache, the executor and the data. Waits up to `seconds`. Raises WrongUse where the cluster refuses, EnvironmentCannot
    without one."""
    where.check()
    store, (roots, _) = folder_to_write(runs), parse_data_options(root_options(data), "--data")
    store.check_writable()
    if where.on == "ray":
        from pretrain_bench.harness.clusters.ray_cluster import joined

        with joined(where.address):
            return _ray_nodes(_job(where, store, executor), roots, seconds)
    from pretrain_bench.harness.clusters.driver import probe_worker

    result = probe_worker(store, _job(where, store, executor), roots, where.slurm_options(), seconds)
    if result.checks is None:
        return [Diagnosis("worker", "missing", f"job {result.job} has not answered in {seconds:.0f} s: {result.state}")]
    return [Diagnosis(f"worker: {check.what}", check.state, check.detail) for check in result.checks]


def _job(where: Where, store: Store, executor: str) -> Job:
    return cluster_job(store, executor, where.settings(Settings()).device.replace("auto", "cpu"), RunOptions())


def _ray_nodes(job: Job, roots: Mapping[str, Path], seconds: float) -> list[Diagnosis]:
    """One line for a node that is in order, else its problems."""
    from pretrain_bench.harness.clusters.node_checks import probe_of
    from pretrain_bench.harness.clusters.ray_cluster import probe_nodes

    found = []
    for node, checks in probe_nodes(probe_of(job, roots), seconds).items():
        problems = [c for c in checks if c.state != "ok"]
        found += [Diagnosis(f"{node}: {c.what}", c.state, c.detail) for c in problems] or [
            Diagnosis(f"Ray node {node}", "ok", ", ".join(c.what for c in checks[1:]))
        ]
    return found


def raise_if_broken(diagnoses: Iterable[Diagnosis]) -> None:
    """Raises EnvironmentCannot that names the first broken thing."""
    for one in diagnoses:
        if one.state == "broken":
            raise EnvironmentCannot(f"{one.what}: {one.detail}")


_ASK_A_STAGE = """
import json, torch, pretrain_bench.methods.stage
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
first = torch.cuda.get_device_properties(0) if gpus else None
print(json.dumps({
    "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
    "gpu": f"{gpus} x {first.name}, {first.total_memory >> 20} MiB" if first else "",
}))
"""
LONGEST_START_SECONDS = 300.0


class _Torch(NamedTuple):
    """Torch and GPUs as a stage's process reports them, or the reason why it cannot start."""

    torch: str = ""
    gpu: str = ""
    error: str = ""


def _ask_a_stage() -> _Torch:
    """Start Python as a stage is started: it may find other packages than this process."""
    return _answer(tuple(sorted(stage_environment().items())))


@functools.cache
def _answer(environment: tuple[tuple[str, str], ...]) -> _Torch:
    command = [sys.executable, "-c", _ASK_A_STAGE]
    try:
        with tempfile.TemporaryDirectory() as folder:
            seconds, variables = LONGEST_START_SECONDS, dict(environment)
            done = subprocess.run(
                command, check=False, cwd=folder, env=variables, capture_output=True, text=True, timeout=seconds
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Torch(error=str(error))
    if done.returncode:
        return _Torch(error=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return _Torch(**json.loads(done.stdout.splitlines()[-1]))


def _torch() -> Diagnosis:
    stage = _ask_a_stage()
    if stage.error:
        detail = f"a stage cannot start: {stage.error}; the README says how to choose the CPU or the CUDA build"
        return Diagnosis("torch", "broken", detail)
    return Diagnosis("torch", "ok", stage.torch)


def _machine() -> Diagnosis:
    """CPUs and memory of this process, and of the machine if it has more."""
    import psutil

    cpus, memory = usable_cpus(), usable_memory_bytes()
    detail = f"{cpus} CPUs, {memory / (1 << 30):.1f} GiB"
    total_cpus, total = os.cpu_count() or 1, psutil.virtual_memory().total
    if cpus < total_cpus or memory < total:
        detail += f" for this process, of {total_cpus} CPUs, {total / (1 << 30):.1f} GiB"
    return Diagnosis("CPUs and memory", "ok", detail)


def _worker_processes() -> Diagnosis:
    """Whether worker processes of loaders and of preparation can be started; they need semaphores in shared memory."""
    size = shared_memory_bytes()
    try:
        multiprocessing.Lock()
    except OSError as error:
        detail = f"cannot be started: {error.strerror or error}; mount /dev/shm, writable and not full"
        return Diagnosis("worker processes", "broken", detail)
    room = "no /dev/shm" if size is None else f"/dev/shm of {size / (1 << 20):,.0f} MiB"
    return Diagnosis("worker processes", "ok", f"{room}; batches do not use it")


def _backend() -> Diagnosis:
    if importlib.util.find_spec("MinkowskiEngine") is None:
        return Diagnosis("sparse backend", "ok", "torch (MinkowskiEngine is not installed, which is fine)")
    return Diagnosis("sparse backend", "ok", "torch and minkowski")


def isolation() -> Iterator[Diagnosis]:
    """Each executor: the limits that it cannot enforce, or the reason why it does not work here."""
    from pretrain_bench.harness.executors.bubblewrap import BubblewrapExecutor, why_not
    from pretrain_bench.harness.executors.engine import connect

    reason = why_not()
    if reason:
        yield Diagnosis("executor bubblewrap", "missing", reason)
    else:
        limits = ", ".join(BubblewrapExecutor().not_enforced)
        yield Diagnosis("executor bubblewrap", "ok", f"the default; labels out of reach; cannot enforce: {limits}")
    for engine in ENGINES:
        try:
            version = connect(engine, timeout=5).version().get("Version", "unknown version")
            yield Diagnosis(f"executor {engine}", "ok", f"engine {version}; labels out of reach")
        except EnvironmentCannot as error:
            yield Diagnosis(f"executor {engine}", "missing", str(error))
    limits = ", ".join(LocalExecutor.not_enforced)
    default = "the default; " if reason else ""
    detail = f"{default}no isolation; enforces wall time, memory and output size; cannot enforce: {limits}"
    yield Diagnosis("executor local", "ok", detail)


def _gpu() -> Diagnosis:
    stage = _ask_a_stage()
    if stage.error:
        return Diagnosis("GPU", "missing", "torch cannot be imported")
    if not stage.gpu:
        return Diagnosis("GPU", "missing", "no CUDA device; budgets smoke and tiny run on the CPU")
    return Diagnosis("GPU", "ok", stage.gpu)


def _runs(runs: Runs) -> Diagnosis:
    runs = runs.place if isinstance(runs, Store) else runs
    try:
        if (url := remote_url(runs)) is not None:
            return Diagnosis("runs folder", "ok", f"{url}, {count_runs(url):,} runs; writing was not tried")
        folder = Path(runs).resolve()
        with writing(folder, "runs folder (--runs names another one)"):
            there = next(path for path in (folder, *folder.parents) if path.exists())
            Store(folder).check_writable() if there == folder else try_write(there)
    except BenchError as error:
        return Diagnosis("runs folder", "broken", str(error))
    made = "" if there == folder else ", to be created by the first `bench run`"
    return Diagnosis("runs folder", "ok", f"{runs}{made}; {shutil.disk_usage(there).free >> 30} GiB free")


def _cache() -> Diagnosis:
    folder = cache_folder()
    try:
        with writing(folder, "data cache (BENCH_CACHE names another folder)"):
            try_write(folder)
    except BenchError as error:
        return Diagnosis("data cache", "broken", str(error))
    return Diagnosis("data cache", "ok", f"{folder} (BENCH_CACHE), {shutil.disk_usage(folder).free >> 30} GiB free")


def _datasets(data: list[str]) -> Iterator[Diagnosis]:
    roots, own = parse_data_options(data, "--data")
    for dataset in (*(find(Dataset, name) for name in available(Dataset)), *own.values()):
        name, subject = dataset.name, f"data: {dataset.name}"
        if dataset.synthetic:
            continue
        if name not in roots:
            stand_in = f"; {dataset.stand_in} stands in" if dataset.stand_in else ""
            yield Diagnosis(subject, "missing", f"give --data {name}=DIR{stand_in}")
        elif roots[name].is_dir():
            yield Diagnosis(subject, "ok", str(roots[name]))
        else:
            yield Diagnosis(subject, "broken", f"{roots[name]} is not a folder")
