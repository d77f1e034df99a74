"""Folders, user and sizes of a stage's sandbox, the same for engines and bubblewrap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

CONTAINER_USER = 10001
PIDS = 512
SHARED_MEMORY_BYTES = 1 << 30
TMP_BYTES = 256 << 20
TRITON_CACHE = "TRITON_CACHE_DIR"
"""Environment variable with the folder to which Triton writes what it compiles, and from which it loads code."""


class Bind(NamedTuple):
    """A file or folder of this machine, with links resolved, and its path inside the stage."""

    source: Path
    target: str
    read_only: bool = True


def contract_binds(root: Path) -> list[Bind]:
    """The folders of the container contract below `root`; all but `out` are read-only."""
    pairs = [(path, f"/bench/in/{path.name}") for path in sorted((root / "in").iterdir())]
    pairs += [(view, f"/bench/data/{view.parent.name}/{view.name}") for view in sorted((root / "data").glob("*/*"))]
    pairs += [(parent, f"/bench/parents/{parent.name}") for parent in sorted((root / "parents").iterdir())]
    binds = [Bind(source.resolve(), target) for source, target in pairs]
    return [*binds, Bind((root / "out").resolve(), "/bench/out", read_only=False)]


def sandbox_user() -> int:
    """The user id of a stage: this user's, or an unused one if this user is root."""
    return os.getuid() or CONTAINER_USER
