"""`bench doctor`: what this machine can do."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Data, Json, Runs

if TYPE_CHECKING:
    from pathlib import Path

Finding = dict[str, str]


def doctor(data: Data = None, runs: Runs = DEFAULT_RUNS, json: Json = False) -> None:
    """Check torch, the sparse backends, Docker, GPU, the runs folder and the data. Ends with 3 if nothing can run."""
    from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
    from pretrain_bench.harness.cli.console import print_json, table

    findings = [_torch(), _backend(), _docker(), _gpu(), _runs(runs), _cache(), *_datasets(data or []), _local()]
    if json:
        print_json(findings)
    else:
        print(table(("what", "state", "detail"), [(f["what"], f["state"], f["detail"]) for f in findings]))
    broken = [f for f in findings if f["state"] == "broken"]
    if broken:
        raise EnvironmentCannot(f"{broken[0]['what']}: {broken[0]['detail']}")


def _finding(what: str, state: str, detail: str) -> Finding:
    return {"what": what, "state": state, "detail": detail}


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _finding("torch", "broken", "not installed; the README says how to choose the CPU or the CUDA build")
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return _finding("torch", "ok", f"{torch.__version__}, {capability}, {torch.get_num_threads()} threads")


def _backend() -> Finding:
    if importlib.util.find_spec("MinkowskiEngine") is None:
        return _finding("sparse backend", "ok", "torch (MinkowskiEngine is not installed, which is fine)")
    return _finding("sparse backend", "ok", "torch and minkowski")


def _docker() -> Finding:
    from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
    from pretrain_bench.harness.executors.images import connect

    try:
        version = connect(timeout=5).version().get("Version", "unknown version")
    except EnvironmentCannot as error:
        return _finding("Docker", "missing", str(error))
    return _finding("Docker", "ok", f"engine {version}")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _finding("GPU", "missing", "torch is not installed")
    import torch

    if not torch.cuda.is_available():
        return _finding("GPU", "missing", "no CUDA device; budgets smoke and tiny run on the CPU")
    memory = torch.cuda.get_device_properties(0).total_memory >> 20
    return _finding("GPU", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory} MiB")


def _runs(runs: Path) -> Finding:
    import shutil

    from pretrain_bench.benchmarks.support.errors import BenchError
    from pretrain_bench.harness.store.store import Store

    try:
        Store(runs.resolve()).check_writable()
    except BenchError as error:
        return _finding("runs folder", "broken", str(error))
    return _finding("runs folder", "ok", f"{runs}, {shutil.disk_usage(runs).free >> 30} GiB free")


def _cache() -> Finding:
    import shutil

    from pretrain_bench.benchmarks.support.errors import BenchError
    from pretrain_bench.benchmarks.support.files import cache_folder
    from pretrain_bench.harness.cli.console import writing
    from pretrain_bench.harness.store.store import try_write

    folder = cache_folder()
    try:
        with writing(folder, "data cache (BENCH_CACHE names another folder)"):
            try_write(folder)
    except BenchError as error:
        return _finding("data cache", "broken", str(error))
    return _finding("data cache", "ok", f"{folder} (BENCH_CACHE), {shutil.disk_usage(folder).free >> 30} GiB free")


def _datasets(data: list[str]) -> list[Finding]:
    from pretrain_bench.benchmarks.specs.dataset import Dataset
    from pretrain_bench.harness.planning.catalog import available, find
    from pretrain_bench.harness.planning.prepared_data import parse_roots

    roots = parse_roots(data, "--data")
    findings = []
    for name in available(Dataset):
        dataset = find(Dataset, name)
        if dataset.synthetic:
            continue
        if name in roots:
            there = roots[name].is_dir()
            state, detail = ("ok", str(roots[name])) if there else ("broken", f"{roots[name]} is not a folder")
        else:
            stand_in = f"; {dataset.stand_in} stands in" if dataset.stand_in else ""
            state, detail = "missing", f"give --data {name}=DIR{stand_in}"
        findings.append(_finding(f"data: {name}", state, detail))
    return findings


def _local() -> Finding:
    from pretrain_bench.harness.executors.local import LocalExecutor

    return _finding(
        "executor local",
        "ok",
        f"enforces wall time, memory and output size; cannot enforce: {', '.join(LocalExecutor.not_enforced)}",
    )
