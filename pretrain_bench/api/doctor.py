"""A check of this machine: what is installed, what can be written, which data are there."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain_bench.api.settings import Roots, root_options
from pretrain_bench.api.stores import AnyPath
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, writing
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import parse_data_options
from pretrain_bench.harness.store.store import Store, try_write


class Diagnosis(NamedTuple):
    """One thing that was checked. `missing` can be lived with, `broken` cannot."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str


def doctor(runs: AnyPath = "runs", data: Roots = ()) -> list[Diagnosis]:
    """Check torch, the sparse backends, Docker, the GPU, the folder of runs, the data cache, and each dataset (`data`: its root).

    Raises WrongUse for an unknown dataset.
    """
    return [
        _torch(),
        _backend(),
        _docker(),
        _gpu(),
        _runs(Path(runs)),
        _cache(),
        *_datasets(root_options(data)),
        _local(),
    ]


def raise_if_broken(diagnoses: Iterable[Diagnosis]) -> None:
    """Raises EnvironmentCannot that names the first broken thing."""
    for one in diagnoses:
        if one.state == "broken":
            raise EnvironmentCannot(f"{one.what}: {one.detail}")


def _torch() -> Diagnosis:
    if importlib.util.find_spec("torch") is None:
        return Diagnosis("torch", "broken", "not installed; the README says how to choose the CPU or the CUDA build")
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return Diagnosis("torch", "ok", f"{torch.__version__}, {capability}, {torch.get_num_threads()} threads")


def _backend() -> Diagnosis:
    if importlib.util.find_spec("MinkowskiEngine") is None:
        return Diagnosis("sparse backend", "ok", "torch (MinkowskiEngine is not installed, which is fine)")
    return Diagnosis("sparse backend", "ok", "torch and minkowski")


def _docker() -> Diagnosis:
    from pretrain_bench.harness.executors.engine import connect

    try:
        version = connect(timeout=5).version().get("Version", "unknown version")
    except EnvironmentCannot as error:
        return Diagnosis("Docker", "missing", str(error))
    return Diagnosis("Docker", "ok", f"engine {version}")


def _gpu() -> Diagnosis:
    if importlib.util.find_spec("torch") is None:
        return Diagnosis("GPU", "missing", "torch is not installed")
    import torch

    if not torch.cuda.is_available():
        return Diagnosis("GPU", "missing", "no CUDA device; budgets smoke and tiny run on the CPU")
    memory = torch.cuda.get_device_properties(0).total_memory >> 20
    return Diagnosis("GPU", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory} MiB")


def _runs(runs: Path) -> Diagnosis:
    try:
        Store(runs.resolve()).check_writable()
    except BenchError as error:
        return Diagnosis("runs folder", "broken", str(error))
    return Diagnosis("runs folder", "ok", f"{runs}, {shutil.disk_usage(runs).free >> 30} GiB free")


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


def _local() -> Diagnosis:
    from pretrain_bench.harness.executors.local import LocalExecutor

    limits = ", ".join(LocalExecutor.not_enforced)
    return Diagnosis("executor local", "ok", f"enforces wall time, memory and output size; cannot enforce: {limits}")
