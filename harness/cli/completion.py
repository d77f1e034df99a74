"""Values that a shell completes. Names are taken from file names, so that listing them loads nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pretrain_bench

METHODS, TASKS, SUITES = "methods/*/method.yaml", "benchmarks/configs/tasks/*.yaml", "benchmarks/configs/suites/*.yaml"
BUDGETS, PROFILES = "benchmarks/configs/budgets/*.yaml", "benchmarks/configs/profiles/*.yaml"
DATASETS, RATES = "benchmarks/configs/datasets/*.yaml", "benchmarks/configs/rates/*.yaml"
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


def keys(incomplete: str) -> list[str]:
    """Keys of the runs in $BENCH_RUNS, or the folder `runs` here."""
    runs = Path(os.environ.get("BENCH_RUNS") or "runs").expanduser()
    return sorted(p.name for kind in RUN_KINDS if (runs / kind).is_dir() for p in (runs / kind).iterdir())
