"""Find methods, tasks, datasets, budgets, profiles and suites by name, or by the path of a YAML file or method folder."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.checkpoint import IMPORTED
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import Method, MethodFile, Origin
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.rates import Rates
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.code_digest import file_sha256, folder_sha256, package_folder
from pretrain_bench.harness.planning.imported_method import FORM, import_request, imported_method

SpecT = TypeVar("SpecT", bound=Spec)

METHOD_FILE = "method.yaml"
ENTRY_POINTS = "pretrain_bench.methods"
"""Entry point group of packages that provide methods: method name to package, whose folder holds method.yaml."""
MISSPELLED = 0.75
"""How much a name must resemble another to count as a misspelling of it, where it may also be a name of its own."""
_FOLDERS: dict[type[Spec], tuple[str, str]] = {
    Budget: ("benchmarks/configs/budgets", "*.yaml"),
    Profile: ("benchmarks/configs/profiles", "*.yaml"),
    Task: ("benchmarks/configs/tasks", "*.yaml"),
    Dataset: ("benchmarks/configs/datasets", "*.yaml"),
    Rates: ("benchmarks/configs/rates", "*.yaml"),
    Suite: ("benchmarks/configs/suites", "*.yaml"),
    Method: ("methods", f"*/{METHOD_FILE}"),
}


def available(kind: type[Spec]) -> dict[str, Path]:
    """Name to file of the shipped specs of one kind, sorted by name."""
    folder, pattern = _FOLDERS[kind]
    paths = (package_folder() / folder).glob(pattern)
    return dict(sorted((p.parent.name if p.name == METHOD_FILE else p.stem, p) for p in paths))


def installed_methods() -> dict[str, Path]:
    """Name to file of the methods in other installed packages, sorted by name. Imports none of their code; a broken
    entry point is left out, and is an error only when its method is named."""
    return {name: path for name, path in _entry_points().items() if path.is_file()}


def _entry_points() -> dict[str, Path]:
    """Name to the method.yaml that each entry point promises."""
    promised = {}
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        top, *rest = entry.value.split(".")
        spec = importlib.util.find_spec(top)  # a top-level name: locating it imports nothing
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        promised[entry.name] = Path(*folders[:1], *rest, METHOD_FILE) if folders else Path(entry.value, METHOD_FILE)
    return promised


def find(kind: type[SpecT], name: str | os.PathLike[str]) -> SpecT:
    """Load one spec by its name or path. Raises WrongUse listing the known names."""
    name = os.fspath(name)
    if kind is Method:
        return cast(SpecT, _find_method(name))
    known = available(kind)
    if name in known:
        return load_spec(known[name], kind)
    if is_path(name):
        path = Path(name).expanduser()
        spec = load_spec(path, kind, bases=package_folder() / _FOLDERS[kind][0])
        if isinstance(spec, Dataset):
            _check_classes(spec, path)
        return cast(SpecT, _with_whole_paths(spec, path.parent)) if isinstance(spec, Suite) else spec
    raise unknown(kind, name, known)


def _check_classes(dataset: Dataset, path: Path) -> None:
    """Raises WrongUse if a class is listed twice: the second would never be labelled."""
    for field in ("classes", "box_classes", "class_ids", "box_class_ids"):
        values = getattr(dataset, field) or ()
        if twice := [value for value, times in Counter(values).items() if times > 1]:
            raise WrongUse(f"{path}: {field}: {twice[0]!r} is listed twice; remove one")


def _with_whole_paths(suite: Suite, folder: Path) -> Suite:
    """The suite with relative paths of methods, tasks, budget and profile resolved against its own `folder`."""

    def placed(text: str, kind: type[Spec]) -> str:
        own = folder / Path(text).expanduser()
        return str(own) if is_path(text) or (text not in available(kind) and own.exists()) else text

    def excluded(axis: str, value: Any) -> Any:
        kinds: dict[str, type[Spec]] = {"method": Method, "task": Task}
        if axis not in kinds:
            return value
        return placed(value, kinds[axis]) if isinstance(value, str) else tuple(placed(v, kinds[axis]) for v in value)

    return suite.model_copy(
        update={
            "methods": tuple(placed(text, Method) for text in suite.methods),
            "tasks": tuple(placed(text, Task) for text in suite.tasks),
            "budget": placed(suite.budget, Budget),
            "profile": None if suite.profile is None else placed(suite.profile, Profile),
            "exclude": tuple({axis: excluded(axis, value) for axis, value in e.items()} for e in suite.exclude),
        }
    )


def is_path(name: str) -> bool:
    """Whether a name on the command line is the path of a file or folder, not a name from the catalog."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def _find_method(name: str) -> Method:
    known = available(Method)
    request = import_request(name)
    if request is not None:
        if request.name in known:
            raise WrongUse(f"--method {name}: {request.name!r} is a method that ships; choose another name")
        path = known[IMPORTED]
        return imported_method(request, load_spec(path, MethodFile), path.parent)
    if name in known:
        return Method(**dict(load_spec(known[name], MethodFile)), folder=known[name].parent)
    promised = _entry_points()
    if name in promised:
        path = promised[name]
        if not path.is_file():
            raise WrongUse(f"entry point {name!r} of {ENTRY_POINTS}: {path} does not exist")
        method = _own_method(path.parent, "package")
        if method.name != name:
            raise WrongUse(f"{path}: name: {method.name!r}; the entry point calls it {name!r}")
        return method
    folder = Path(name).expanduser().resolve()
    if (folder / METHOD_FILE).is_file():
        return _own_method(folder, "folder")
    if is_path(name):
        raise WrongUse(
            f"method {name!r}: give the folder of your method, which holds {METHOD_FILE}; give a checkpoint as {FORM}"
        )
    raise unknown(Method, name, [*known, *installed_methods()])


def _own_method(folder: Path, origin: Origin) -> Method:
    """A method from outside this project, with the hash of its code. Raises WrongUse for a name that is already used."""
    path = folder / METHOD_FILE
    content = load_spec(path, MethodFile)
    if content.name in available(Method):
        raise WrongUse(f"{path}: name: {content.name!r} is a method that ships; choose another name")
    if content.image is not None:
        # Its code is in its image; the executor adds the image id.
        return Method(**dict(content), folder=folder, origin="image", code_sha256=file_sha256(path))
    for stage in content.stages:
        if not stage.name.isidentifier():
            raise WrongUse(
                f"{path}: stage {stage.name!r}: its file is imported, so its name must be a valid Python name"
            )
    missing = [s.name for s in content.stages if not (folder / f"{s.name}.py").is_file()]
    if missing:
        raise WrongUse(
            f"{path}: stage {missing[0]!r} has no {missing[0]}.py beside it; a method of your own holds a Python file for each "
            "stage, or names the container image that runs them (image:)"
        )
    return Method(**dict(content), folder=folder, origin=origin, code_sha256=folder_sha256(folder))


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that an unknown one is likely to be a misspelling of; None without one that resembles it by `cutoff`, from 0
    to 1."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def unknown(kind: type[Spec], name: str, known: Iterable[str]) -> WrongUse:
    """The error for an unknown name. It lists the `known` names and suggests the closest one."""
    known = list(known)
    close = closest(name, known)
    hint = f" Did you mean {close!r}?" if close else ""
    file = f"; give a checkpoint as {FORM}" if kind is Method and Path(name).is_file() else ""
    return WrongUse(f"unknown {kind.__name__.lower()} {name!r}.{hint} There are: {', '.join(known)}{file}")
