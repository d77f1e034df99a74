"""Values that a shell completes. Names are taken from file names, so that listing them loads nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import typer

import pretrain_bench

METHODS, TASKS, SUITES = "methods/*/method.yaml", "benchmarks/configs/tasks/*.yaml", "benchmarks/configs/suites/*.yaml"
BUDGETS, PROFILES = "benchmarks/configs/budgets/*.yaml", "benchmarks/configs/profiles/*.yaml"
DATASETS, RATES = "benchmarks/configs/datasets/*.yaml", "benchmarks/configs/rates/*.yaml"
DEFAULT_RUNS = Path("runs")
RUN_KINDS = ("pretrain", "features", "finetune")


def names(pattern: str) -> list[str]:
    """Names of the shipped specs of one kind, sorted."""
    paths = Path(pretrain_bench.__file__).parent.glob(pattern)
    return sorted(path.parent.name if path.name == "method.yaml" else path.stem for path in paths)


def _last(kind: str, incomplete: str) -> list[str]:
    """Completions of the last name of a list with commas."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names(kind)]


def methods(incomplete: str) -> list[str]:
    """Methods that ship."""
    return _last(METHODS, incomplete)


def tasks(incomplete: str) -> list[str]:
    """Tasks that ship."""
    return _last(TASKS, incomplete)


def suites(incomplete: str) -> list[str]:
    """Suites that ship."""
    return names(SUITES)


def budgets(incomplete: str) -> list[str]:
    """Budgets that ship."""
    return names(BUDGETS)


def profiles(incomplete: str) -> list[str]:
    """Profiles that ship."""
    return names(PROFILES)


def rates(incomplete: str) -> list[str]:
    """Machines whose rates ship."""
    return names(RATES)


def datasets(incomplete: str) -> list[str]:
    """Datasets that ship."""
    return names(DATASETS)


def roots(incomplete: str) -> list[str]:
    """Names of shipped datasets with `=`; after NAME=, folders."""
    name, equals, folder = incomplete.partition("=")
    if not equals:
        return [f"{dataset}=" for dataset in names(DATASETS)]
    parent, _, _ = folder.rpartition("/")
    inside = Path(parent or ("/" if folder.startswith("/") else ".")).expanduser()
    found = [f"{parent}/{p.name}" if "/" in folder else p.name for p in sorted(inside.glob("*")) if p.is_dir()]
    return [f"{name}={path}" for path in found]


def keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys of the runs in the folder that the command would read."""
    runs = _folder_of_runs(ctx.params.get("runs"))
    return sorted(p.name for kind in RUN_KINDS if (runs / kind).is_dir() for p in (runs / kind).iterdir())


def _folder_of_runs(option: str | None) -> Path:
    """The folder of --runs, $BENCH_RUNS or `bench.yaml`, or `runs` here."""
    if named := option or os.environ.get("BENCH_RUNS"):
        return Path(named).expanduser()
    here = Path.cwd()
    if os.environ.get("BENCH_CONFIG") or any((folder / "bench.yaml").is_file() for folder in (here, *here.parents)):
        from pretrain_bench.api.configuration import configuration  # loads pydantic

        with contextlib.suppress(pretrain_bench.BenchError):  # the command itself will report it
            return configuration().runs or DEFAULT_RUNS
    return DEFAULT_RUNS
