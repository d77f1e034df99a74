"""The provenance in a record: this machine and this copy of the project, without paths, names or secrets."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import psutil

from pretrain_bench.harness.contract.records import Provenance
from pretrain_bench.harness.planning.code_digest import package_folder
from pretrain_bench.harness.store.machine import cpu_name, package_version, project_version

PACKAGES = ("torch", "numpy", "scipy", "pandas", "pillow", "safetensors", "pydantic", "MinkowskiEngine")


@cache
def _static() -> Provenance:
    commit, dirty = git_state(package_folder().parent)
    cpu, cpu_count, memory = cpu_name(), os.cpu_count() or 1, psutil.virtual_memory().total
    # Machines of a pool often share one name.
    machine = hashlib.sha256(f"{platform.node()} {cpu} {cpu_count} {memory}".encode()).hexdigest()[:12]
    return Provenance(
        project_version=project_version(),
        git_commit=commit,
        git_dirty=dirty,
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := package_version(name))},
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu,
        cpu_count=cpu_count,
        memory_bytes=memory,
        machine=machine,
    )


def provenance(numerics: dict[str, str]) -> Provenance:
    """This machine and this copy of the project; `numerics` is what the stage reported."""
    return _static().model_copy(update={"numerics": numerics})


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of this project's own checkout; (None, None) for an installed copy."""
    if not (folder / ".git").exists():
        return None, None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())
