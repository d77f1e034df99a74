"""The code digest: a hash of the files that a stage can import, so that a change elsewhere invalidates nothing."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

from benchmarks.errors import WrongUse
from harness.catalog import package_folder

PACKAGES = ("benchmarks", "harness", "methods")


def code_sha256(kind: str, method: str, stage: str) -> str:
    """Hash of the names and contents of the modules that one stage can reach by its imports."""
    entry = entry_module(kind, method, stage)
    if _file_of(entry) is None:
        raise WrongUse(
            f"method {method!r}: its stage {stage!r} has no module {entry}; only methods that ship can run here"
        )
    digest = hashlib.sha256()
    for module in sorted(reachable_modules(("methods.stage", entry))):
        digest.update(f"{module}\n".encode())
        digest.update(_file_of(module).read_bytes())  # type: ignore[union-attr]
    return digest.hexdigest()


def entry_module(kind: str, method: str, stage: str) -> str:
    """The module that carries out a stage: the rule of `methods.stage.module_of`, which the harness cannot import."""
    return "methods.finetune.semantic" if kind == "finetune" else f"methods.{method}.{stage}"


def reachable_modules(entries: tuple[str, ...]) -> set[str]:
    """Modules of this project that `entries` import, directly or not, with the packages that hold them."""
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or _file_of(module) is None:
            continue
        found.add(module)
        waiting += imports_of(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
    return found


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Project modules named in the import statements of a module, wherever in it they stand."""
    path = _file_of(module)
    assert path is not None
    names = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(n for n in names if n.split(".")[0] in PACKAGES and _file_of(n) is not None)


def _file_of(module: str) -> Path | None:
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    path = package_folder(package).joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py") if rest else path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
