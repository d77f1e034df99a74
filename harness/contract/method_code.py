"""Import the Python files of a method's folder, for the planner (its recipe) and for the stage (its code).

A built-in method is a package of this project. An external folder becomes a package with its own name, so that its files can
import each other relatively (`from .recipe import MyRecipe`) without hiding other modules.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

BUILT_IN = "pretrain_bench.methods"
PREFIX = "bench_method_"
CODE = "__bench_code__"


def import_built_in(method: str, part: str) -> ModuleType:
    """Import a module of a shipped method. Raises ImportError."""
    return importlib.import_module(f"{BUILT_IN}.{method}.{part}")


def import_from_folder(folder: Path, method: str, part: str, code: str | None = None) -> ModuleType:
    """Import a module of an external method's folder. This runs its code, so it may raise anything.

    `code` is the digest of the folder: modules imported before it changed are imported again.
    """
    package = PREFIX + re.sub(r"\W", "_", method)
    loaded = sys.modules.get(package)
    if loaded is None or list(loaded.__path__) != [str(folder)] or getattr(loaded, CODE, None) != code:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        _make_package(folder, package, code)
    return importlib.import_module(f"{package}.{part}")


def _make_package(folder: Path, package: str, code: str | None) -> None:
    start = folder / "__init__.py"
    locations = [str(folder)]
    if start.is_file():
        spec = importlib.util.spec_from_file_location(package, start, submodule_search_locations=locations)
    else:
        spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = locations
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, CODE, code)
    sys.modules[package] = module
    if spec.loader is not None:
        spec.loader.exec_module(module)
