"""The files visible to a stage in bubblewrap: system programs, the packages of its Python, the folders of the contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from glob import glob
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors.sandbox import SHARED_MEMORY_BYTES, TMP_BYTES, Bind
from pretrain_bench.harness.planning.code_digest import package_folder

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store", "/etc/alternatives",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/sys/devices/system",
)  # fmt: skip
"""Programs, libraries, and processor information, by which libraries choose their kernels."""
GPU_DEVICES = ("/dev/nvidia*", "/dev/dxg", "/dev/dri", "/dev/kfd")
GPU_SYSTEM = ("/sys/devices", "/sys/bus", "/sys/module", "/etc/OpenCL")


class View(NamedTuple):
    """The folders of a stage's Python and its packages, the folders hidden from it, and its device."""

    python: tuple[Path, ...]
    hidden: tuple[Path, ...]
    device: str


def view_arguments(view: View, binds: Iterable[Bind]) -> list[str]:
    """Arguments of bubblewrap for a root with this view and these folders of the contract. Only /tmp, /dev/shm and writable binds
    can be written."""
    gpus = [path for pattern in GPU_DEVICES for path in sorted(glob(pattern))] if view.device == "cuda" else []
    system = [Path(path) for path in (*SYSTEM, *(GPU_SYSTEM if view.device == "cuda" else ())) if os.path.exists(path)]
    masked = list(_masked(view))
    binds = list(binds)
    above = {folder for path in (*system, *view.python, *(Path(b.target) for b in binds)) for folder in path.parents}
    return [
        "--proc", "/proc", "--dev", "/dev",
        *_each("--dev-bind", ((path, path) for path in gpus)),
        "--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
        "--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp",
        # bubblewrap creates parent folders of a bind with access for the owner only.
        *(word for path in sorted({*above, Path("/bench")}) for word in ("--perms", "0755", "--dir", str(path))),
        *_each("--ro-bind", ((str(path), str(path)) for path in (*system, *view.python))),
        *(word for folder in masked for word in ("--tmpfs", str(folder), "--remount-ro", str(folder))),
        *_each("--ro-bind", ((str(b.source), b.target) for b in binds if b.read_only)),
        *_each("--bind", ((str(b.source), b.target) for b in binds if not b.read_only)),
        "--remount-ro", "/", "--hostname", "bench", "--chdir", "/bench",
    ]  # fmt: skip


def python_folders(environment: Mapping[str, str]) -> list[Path]:
    """Folders with Python, with every package that a stage in this environment can import, and with the libraries of
    LD_LIBRARY_PATH; from this project's checkout only its packages. Raises EnvironmentCannot if Python does not start.
    """
    libraries = [Path(p) for p in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    rooms = [package_folder(), *(room for room in package_folder().iterdir() if room.is_dir())]
    named = [*map(Path, _ask_python(tuple(sorted(environment.items())))), *libraries, *rooms]
    checkout = package_folder().parent.resolve() if (package_folder().parent / "pyproject.toml").is_file() else None
    named = [path for path in named if path.is_absolute() and path.exists() and path.resolve() != checkout]
    # Links map one name to the other.
    folders = sorted({*named, *(path.resolve() for path in named)} - {Path("/")})
    kept: list[Path] = []
    for folder in folders:
        if not any(folder.is_relative_to(above) for above in (*kept, Path("/usr"))):
            kept.append(folder)
    return kept


_ASK = """
import json, site, sys
paths = [*sys.path, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
for finder in sys.meta_path:
    paths += getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", {}).values()
print(json.dumps([p for p in paths if p]))
"""
"""Editable installations may use a finder that maps packages to their folders."""


@cache
def _ask_python(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The folders that Python imports from, as reported by a process like the stage's."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ASK], env=dict(environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EnvironmentCannot(f"{sys.executable} does not start: {done.stderr.strip().splitlines()[-1:]}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def _masked(view: View) -> Iterator[Path]:
    """The hidden folders that lie inside a visible folder."""
    for hidden in dict.fromkeys(path.resolve() for path in view.hidden):
        for shown in (*view.python, Path("/usr")):
            real = shown.resolve()
            if hidden.is_dir() and hidden.is_relative_to(real):
                yield shown / hidden.relative_to(real)


def _each(option: str, pairs: Iterable[Sequence[str]]) -> Iterator[str]:
    for source, target in pairs:
        yield from (option, source, target)
