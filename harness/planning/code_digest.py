"""The code digest: a hash of the files that a stage can import, of the lock files and of its image's build inputs.

It is part of the key, so that changed code makes exactly those stages stale that can import it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse

PACKAGE = "pretrain_bench"
COMPILED, WRITTEN_HERE = "__pycache__", ("runs", "report")
MAX_FOLDER_BYTES = 64 << 20
BASE_LOCKS = ("requirements.lock", "torch-cuda.lock")


_seen: list[tuple[tuple[str, int, int], ...]] = [()]


def forget_changed_code() -> None:
    """Recompute digests if a file of the project has changed since: a notebook may outlive an edit."""
    folder = package_folder()
    paths = [p for p in folder.glob("*/**/*") if p.suffix == ".py"] + [
        p for p in docker_folder().rglob("*") if p.is_file()
    ]
    now = tuple((str(p), (s := p.stat()).st_mtime_ns, s.st_size) for p in sorted(paths))
    if now != _seen[0]:
        _seen[0] = now
        for cached in (imports_of, code_sha256, build_hashes):
            cached.cache_clear()


@cache
def package_folder() -> Path:
    """The folder of the package: in a checkout its rooms are links to the top-level folders."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def docker_folder() -> Path:
    """The folder of the Dockerfiles. Raises EnvironmentCannot if the installation lacks it."""
    folder = package_folder() / "docker"
    if not (folder / "base.Dockerfile").is_file():
        raise EnvironmentCannot("the Dockerfiles of this installation are missing; install the project again")
    return folder


def base_inputs() -> dict[str, Path]:
    """Name to file of the base image's build inputs beside its Dockerfile: locks, and the edits of MinkowskiEngine."""
    folder = docker_folder()
    locks = {name: folder / name for name in BASE_LOCKS}
    edits = sorted(path for path in (folder / "minkowski").iterdir() if path.is_file())
    return {**locks, **{f"minkowski/{path.name}": path for path in edits}}


def digest(entries: Iterable[str]) -> str:
    """sha256 of the names and contents of every module of this project that `entries` can reach by imports."""
    hashed = hashlib.sha256()
    for module in sorted(reachable_modules(entries)):
        hashed.update(f"{module}\n".encode())
        hashed.update(file_of(module).read_bytes())  # type: ignore[union-attr]
    return hashed.hexdigest()


def project_sha256() -> str:
    """sha256 of the names and contents of all Python files of this project."""
    folder = package_folder()
    return digest_of_hashes({str(path.relative_to(folder)): file_sha256(path) for path in folder.glob("*/**/*.py")})


def module_hashes(entries: Iterable[str]) -> dict[str, str]:
    """sha256 of every module that `entries` can reach, by name."""
    return {m: hashlib.sha256(file_of(m).read_bytes()).hexdigest() for m in sorted(reachable_modules(entries))}  # type: ignore[union-attr]


def reachable_modules(entries: Iterable[str]) -> set[str]:
    """Modules of this project that `entries` import, directly or not, with the packages that hold them."""
    reached: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in reached or file_of(module) is None:
            continue
        reached.add(module)
        waiting += imports_of(module)
        package = module.rpartition(".")[0]
        if package != PACKAGE:  # its own __init__ names the API and imports nothing
            waiting.append(package)
    return reached


@cache
def imports_of(module: str) -> tuple[str, ...]:
    """Project modules in the import statements of a module, at any depth, except for those under `if
    TYPE_CHECKING:`."""
    path = file_of(module)
    assert path is not None
    return _imports_in(path, module if path.name == "__init__.py" else module.rpartition(".")[0])


def _imports_in(path: Path, package: str) -> tuple[str, ...]:
    """Modules of this project that a file imports; `package` is the one that its relative imports start from.

    Raises WrongUse for a file that is not Python.
    """
    names: list[str] = []
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise WrongUse(f"{path}{line}: not valid Python: {getattr(error, 'msg', error)}") from None
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(n for n in names if n.startswith(f"{PACKAGE}.") and file_of(n) is not None)


STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All statements except those under `if TYPE_CHECKING:`."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        if isinstance(child, STATEMENTS):  # expressions contain no imports, and most nodes are expressions
            yield from _executed(child)


def file_of(module: str) -> Path | None:
    """The file of a module of this project; None for other modules."""
    package, *rest = module.split(".")
    if package != PACKAGE:
        return None
    path = package_folder().joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def code_sha256(kind: str, method: str, part: str) -> str:
    """Hash of the names and contents of the modules that a stage can import and of its image's own inputs, as first read by this
    process. It is the same for all executors, so that their results can be compared bit by bit."""
    entry = entry_module(kind, method, part)
    if file_of(entry) is None:
        raise WrongUse(
            f"method {method!r}: its stage {part!r} has no module {entry}; only shipped methods can run here"
        )
    return digest_of_hashes(code_hashes(kind, method, part))


def digest_of_hashes(hashes: Mapping[str, str]) -> str:
    """The code digest of a mapping from modules or files to hashes, such as a run's code.json."""
    return hashlib.sha256("".join(f"{name} {sha256}\n" for name, sha256 in sorted(hashes.items())).encode()).hexdigest()


def code_hashes(kind: str, method: str, part: str) -> dict[str, str]:
    """Module or file to hash of everything that `code_sha256` covers, to name the changes to the user."""
    return {**module_hashes(("pretrain_bench.methods.stage", entry_module(kind, method, part))), **build_hashes(kind)}


def file_sha256(path: Path) -> str:
    """sha256 of a file. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_files(folder: Path) -> dict[str, Path]:
    """Relative name to path of all files of a method's folder, sorted.

    Hidden files, compiled ones and the runs and reports that `bench` writes there by default are left out. Raises
    WrongUse for a folder far larger than code, and for anything but readable files and plain folders.
    """
    files: dict[str, Path] = {}
    total = 0
    for place, folders, names in os.walk(folder):
        top = Path(place) == folder
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f != COMPILED and not (top and f in WRITTEN_HERE)
        )
        for link in (Path(place, f) for f in folders if Path(place, f).is_symlink()):
            raise WrongUse(f"{link}: a link to a folder; copy the code into the method's folder itself")
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(place, name)
                if not path.is_file() or not os.access(path, os.R_OK):
                    raise WrongUse(
                        f"{path}: cannot be read as a file; remove it from the method's folder, or make it readable"
                    )
                files[path.relative_to(folder).as_posix()] = path
                total += path.stat().st_size
        if total > MAX_FOLDER_BYTES:
            raise WrongUse(
                f"{folder}: holds more than {MAX_FOLDER_BYTES >> 20} MiB; keep only the method's code in its folder"
            )
    return files


def folder_sha256(folder: Path) -> str:
    """The code digest of a user's method folder: all its files, and every module of this project that they can
    import."""
    files = folder_files(folder)
    entries = {m for name, path in files.items() if name.endswith(".py") for m in _imports_in(path, folder.name)}
    hashed = hashlib.sha256(digest({f"{PACKAGE}.methods.stage", *entries}).encode())
    for name, path in files.items():
        hashed.update(f"{name} {file_sha256(path)}\n".encode())
    return hashed.hexdigest()


@cache
def build_hashes(kind: str) -> dict[str, str]:
    """File to hash of a stage image's build inputs beside its modules: Dockerfiles, lock, edits of MinkowskiEngine."""
    folder = docker_folder()
    own = "method.Dockerfile" if kind == "pretrain" else "task.Dockerfile"
    files = {name: folder / name for name in ("base.Dockerfile", own)} | base_inputs()
    return {f"docker/{name}": hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def entry_module(kind: str, method: str, part: str) -> str:
    """The module that runs a stage (`part`: see `StageSpec.part`); same as `module_of` in methods/stage.py, which the harness
    cannot import."""
    return f"pretrain_bench.methods.{method if kind == 'pretrain' else 'finetune'}.{part}"
