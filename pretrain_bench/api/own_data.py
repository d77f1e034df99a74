"""A user's own data: the layout of a folder, and dataset and task files to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.api.stores import AnyPath
from pretrain_bench.benchmarks.datasets.layout import is_prepared
from pretrain_bench.benchmarks.datasets.layouts.describe import Description, describe
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import WrongUse, writing
from pretrain_bench.harness.planning.catalog import available

FolderDescription = Description
"""What `describe_data` finds in a folder."""


class InitialFiles(NamedTuple):
    """The files that `init_data` wrote; `task` is None where the folder has no labels of points."""

    described: FolderDescription
    dataset: Path
    task: Path | None


def describe_data(folder: AnyPath, *, count: bool = False) -> FolderDescription:
    """The layout of a folder, its scenes, and with `count` its classes. Raises DataError where no layout is recognised."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise WrongUse(f"{root}: not a folder")
    return describe(root, count)


def holds_originals(folder: AnyPath) -> bool:
    """Whether a folder holds original data: it exists, is not prepared, and no dataset that ships has its name."""
    path = Path(folder).expanduser()
    return path.is_dir() and not is_prepared(path) and str(folder) not in available(Dataset)


def init_data(folder: AnyPath, out: AnyPath | None = None) -> InitialFiles:
    """Write a commented dataset file for a folder, and a file of a semantic task beside it where its points have labels.

    `out` is the dataset file, NAME.yaml in the working folder by default; its stem names the dataset. Raises DataError where no
    layout is recognised, WrongUse for a file that exists or a name that ships, EnvironmentCannot where it cannot be written.
    """
    from pretrain_bench.benchmarks.datasets.layouts.describe import dataset_text, task_text

    described = describe_data(folder, count=True)
    path = Path(f"{_default_name(described.root)}.yaml" if out is None else out)
    name = path.stem
    if path.suffix not in (".yaml", ".yml") or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise WrongUse(f"--out {path}: expected a name in lower case that ends in .yaml, such as my-rooms.yaml")
    if name in available(Dataset):
        raise WrongUse(f"--out {path}: {name!r} is a dataset that ships; choose another name")
    texts = {path: dataset_text(described, name), path.with_name(f"{name}-sem.yaml"): task_text(described, name)}
    for target, text in texts.items():
        if text is not None and target.exists():
            raise WrongUse(f"{target}: exists; give --out another name")
    for target, text in texts.items():
        if text is not None:
            with writing(target, "dataset file (--out names another)"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
    dataset, task = texts
    return InitialFiles(described, dataset, task if texts[task] is not None else None)


def _default_name(root: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", root.resolve().name.lower()).strip("-._") or "data"
    return f"my-{name}" if name in available(Dataset) else name
