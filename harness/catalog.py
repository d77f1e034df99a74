"""Finds methods, tasks, datasets, budgets and profiles: by name among those that ship, or by the path of a YAML file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TypeVar

from benchmarks.errors import WrongUse
from benchmarks.spec_files import load_spec
from benchmarks.specs import Budget, Dataset, Method, Profile, Spec, Task
from harness.code import package_folder

SpecT = TypeVar("SpecT", bound=Spec)

_FOLDERS: dict[type[Spec], tuple[str, str, str]] = {
    Budget: ("benchmarks", "budgets", "*.yaml"),
    Profile: ("benchmarks", "profiles", "*.yaml"),
    Task: ("benchmarks", "tasks", "*.yaml"),
    Dataset: ("benchmarks", "datasets", "*.yaml"),
    Method: ("methods", ".", "*/method.yaml"),
}


def available(kind: type[Spec]) -> dict[str, Path]:
    """Name to file of everything of one kind that ships, sorted by name."""
    package, folder, pattern = _FOLDERS[kind]
    paths = (package_folder(package) / folder).glob(pattern)
    return dict(sorted((p.parent.name if p.name == "method.yaml" else p.stem, p) for p in paths))


def find(kind: type[SpecT], name: str) -> SpecT:
    """Load one spec by its name or by the path of a YAML file. Raises WrongUse with the names that exist."""
    known = available(kind)
    if name in known:
        return load_spec(known[name], kind)
    if name.endswith((".yaml", ".yml")) or "/" in name:
        package, folder, _ = _FOLDERS[kind]
        return load_spec(Path(name), kind, bases=package_folder(package) / folder)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise WrongUse(f"unknown {kind.__name__.lower()} {name!r}.{hint} There are: {', '.join(known)}")
