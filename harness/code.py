"""This project's own code: where its packages lie, what a module imports, and a hash of all that it can reach."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from benchmarks.errors import EnvironmentCannot

PACKAGES = ("benchmarks", "harness", "methods", "reports")
BASE_LOCKS = ("requirements.lock", "torch-cuda.lock")


@cache
def package_folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def docker_folder() -> Path:
    """Where the Dockerfiles lie: in the checkout, or where the installation put them."""
    for folder in (package_folder("harness").parent / "docker", Path(sys.prefix) / "share/pretrain-bench/docker"):
        if (folder / "base.Dockerfile").is_file():
            return folder
    raise EnvironmentCannot("the Dockerfiles of this installation are missing; install the project again")


def base_inputs() -> dict[str, Path]:
    """Name to file of what the base image is built from beside its Dockerfile: locks, and the edits of MinkowskiEngine."""
    folder = docker_folder()
    locks = {name: folder / name for name in BASE_LOCKS}
    edits = sorted(path for path in (folder / "minkowski").iterdir() if path.is_file())
    return {**locks, **{f"minkowski/{path.name}": path for path in edits}}


def digest(entries: Iterable[str]) -> str:
    """sha256 of the names and contents of every module of this project that `entries` can reach by imports."""
    found = hashlib.sha256()
    for module in sorted(reachable_modules(entries)):
        found.update(f"{module}\n".encode())
        found.update(file_of(module).read_bytes())  # type: ignore[union-attr]
    return found.hexdigest()


def module_hashes(entries: Iterable[str]) -> dict[str, str]:
    """sha256 of every module that `entries` can reach, by name."""
    return {m: hashlib.sha256(file_of(m).read_bytes()).hexdigest() for m in sorted(reachable_modules(entries))}  # type: ignore[union-attr]


def reachable_modules(entries: Iterable[str]) -> set[str]:
    """Modules of this project that `entries` import, directly or not, with the packages that hold them."""
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or file_of(module) is None:
            continue
        found.add(module)
        waiting += imports_of(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
    return found


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Project modules named in the import statements of a module, wherever in it they stand, but for type checkers."""
    path = file_of(module)
    assert path is not None
    names: list[str] = []
    for node in _executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(n for n in names if n.split(".")[0] in PACKAGES and file_of(n) is not None)


STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All statements but those under `if TYPE_CHECKING:`."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        if isinstance(child, STATEMENTS):  # an expression holds no import, and most nodes are of expressions
            yield from _executed(child)


def file_of(module: str) -> Path | None:
    """The file of a module of this project, None where there is none."""
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    path = package_folder(package).joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py") if rest else path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
