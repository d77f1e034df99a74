"""`bench.yaml`: the folders of a user's data, runs and cache. It is searched for in the working folder and the folders
above it, or named by $BENCH_CONFIG. Options override environment variables, which override the file, which overrides
defaults.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_with_lines
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.clusters.node_cache import NodeCache
from pretrain_bench.harness.planning.catalog import available, is_path, unknown

FILE, VARIABLE = "bench.yaml", "BENCH_CONFIG"
VARIABLES = {"runs": "BENCH_RUNS", "executor": "BENCH_EXECUTOR", "cache": "BENCH_CACHE"}
"""Environment variables of the fields that have one."""


class Configuration(Spec):
    """The content of `bench.yaml`. Relative paths start from its folder."""

    data: dict[str, Path] = Field(
        {}, description="dataset, or YAML file of your own dataset, to the folder of its data"
    )
    label_splits: dict[str, Path] = Field(
        {},
        description="official label list that does not ship, such as la20, to the file that the benchmark distributes",
    )
    runs: Path | None = Field(None, description="folder of runs (default: runs)")
    executor: Literal["auto", "bubblewrap", "local", "docker", "podman"] | None = Field(
        None, description="isolation of stages (default: auto)"
    )
    cache: Path | None = Field(
        None, description="folder of generated and prepared data (default: bench in your cache folder)"
    )

    node_cache: NodeCache | None = Field(
        None, description="with --on slurm or ray: copy prepared data to each node's own disk"
    )
    slurm: dict[str, str | int | bool | dict[str, str | int | bool]] = Field(
        {},
        description="options of sbatch for --on slurm; below pretrain, features, finetune or driver: for those jobs alone",
    )

    @field_validator("data", "label_splits", "runs", "cache")
    @classmethod
    def _at_home(cls, value: dict[str, Path] | Path | None) -> dict[str, Path] | Path | None:
        if isinstance(value, dict):
            return {name: path.expanduser() for name, path in value.items()}
        return None if value is None else value.expanduser()


class Setting(NamedTuple):
    """One effective setting and its origin: an option, a variable, the file, or `default`."""

    name: str
    value: str
    source: str


def configuration_file() -> Path | None:
    """The effective `bench.yaml`, or None. Raises WrongUse where $BENCH_CONFIG names no file."""
    if named := os.environ.get(VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise WrongUse(f"${VARIABLE}: {path}: no such file")
        return path.resolve()
    here = Path.cwd()
    return next((folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()), None)


def configuration() -> Configuration:
    """The content of the effective `bench.yaml`; empty without a file. Raises WrongUse with file, line and the allowed
    values."""
    path = configuration_file()
    if path is None:
        return Configuration()
    now = path.stat()
    return _read(path, now.st_mtime_ns, now.st_size)


def data_in_file() -> dict[str, Path]:
    """The data roots of `bench.yaml`. Raises WrongUse for a dataset that does not exist."""
    held, shipped = configuration().data, available(Dataset)
    for name in held:
        if not is_path(name) and name not in shipped:
            raise WrongUse(f"{configuration_file()}: data: {unknown(Dataset, name, shipped)}")
    return held


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Configuration:
    """The content of a file, read once for all questions of a command; again where time or size changed."""
    found, folder = load_with_lines(path, Configuration), path.parent
    return found.model_copy(
        update={
            "data": {
                _from(folder, n) if n.endswith((".yaml", ".yml")) else n: folder / d for n, d in found.data.items()
            },
            "label_splits": {name: folder / file for name, file in found.label_splits.items()},
            "runs": None if found.runs is None else folder / found.runs,
            "cache": None if found.cache is None else folder / found.cache,
        }
    )


def _from(folder: Path, name: str) -> str:
    return str((folder / Path(name).expanduser()).resolve())


def settings_in_force(options: dict[str, str]) -> list[Setting]:
    """Runs folder, executor, cache and data roots, each with its origin. `options` are those given on the command
    line."""
    path, held = configuration_file(), configuration()
    defaults = {"runs": "runs", "executor": "auto", "cache": str(cache_folder())}
    settings = [Setting("configuration", str(path or "none"), f"${VARIABLE}" if os.environ.get(VARIABLE) else FILE)]
    for name, default in defaults.items():
        in_file, value = getattr(held, name), os.environ.get(VARIABLES[name])
        if name in options:
            settings.append(Setting(name, options[name], f"--{name}"))
        elif value and value != str(in_file):  # the command line puts the file's cache into the variable
            settings.append(Setting(name, value, f"${VARIABLES[name]}"))
        elif in_file is not None:
            settings.append(Setting(name, str(in_file), str(path)))
        else:
            settings.append(Setting(name, default, "default"))
    return [*settings, *(Setting(f"data: {name}", str(folder), str(path)) for name, folder in held.data.items())]
