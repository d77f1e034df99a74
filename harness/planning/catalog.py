"""Finds methods, tasks, datasets, budgets, profiles and suites: by name among those that ship, or by the path of a YAML file."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.code_digest import package_folder

SpecT = TypeVar("SpecT", bound=Spec)

METHOD_FILE = "method.yaml"
_FOLDERS: dict[type[Spec], tuple[str, str]] = {
    Budget: ("benchmarks/configs/budgets", "*.yaml"),
    Profile: ("benchmarks/configs/profiles", "*.yaml"),
    Task: ("benchmarks/configs/tasks", "*.yaml"),
    Dataset: ("benchmarks/configs/datasets", "*.yaml"),
    Suite: ("benchmarks/configs/suites", "*.yaml"),
    Method: ("methods", f"*/{METHOD_FILE}"),
}


def available(kind: type[Spec]) -> dict[str, Path]:
    """Name to file of everything of one kind that ships, sorted by name."""
    folder, pattern = _FOLDERS[kind]
    paths = (package_folder() / folder).glob(pattern)
    return dict(sorted((p.parent.name if p.name == METHOD_FILE else p.stem, p) for p in paths))


def _own_method(folder: Path, kind: type[SpecT], known: Mapping[str, Path]) -> SpecT:
    """A user's own method, with the hash of its file. Raises WrongUse where it names no image or a name that is taken."""
    method = load_spec(folder / METHOD_FILE, kind)
    assert isinstance(method, Method)
    if method.image is None:
        raise WrongUse(
            f"{folder / METHOD_FILE}: image: missing; a method of your own names the container image that runs it"
        )
    if method.name in known:
        raise WrongUse(f"{folder / METHOD_FILE}: name: {method.name!r} is a method that ships; choose another name")
    # Its code is its image; the executor adds the image's id.
    return method.model_copy(update={"code_sha256": hashlib.sha256((folder / METHOD_FILE).read_bytes()).hexdigest()})


def find(kind: type[SpecT], name: str) -> SpecT:
    """Load one spec by its name or by the path of a YAML file. Raises WrongUse with the names that exist."""
    known = available(kind)
    if name in known:
        return load_spec(known[name], kind)
    if kind is Method and Path(name, METHOD_FILE).is_file():
        return _own_method(Path(name), kind, known)
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if kind is Method:
            raise WrongUse(f"method {name!r}: give the folder of your method, the one that holds {METHOD_FILE}")
        return load_spec(Path(name), kind, bases=package_folder() / _FOLDERS[kind][0])
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise WrongUse(f"unknown {kind.__name__.lower()} {name!r}.{hint} There are: {', '.join(known)}")
