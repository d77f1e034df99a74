"""The folder that a report or a comparison is written to: files appear whole, and those of the one before it go."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENDING = r"\.(md|tex|csv|json|parquet|png|svg|pdf)"
OF_A_REPORT = re.compile(
    r"index\.html|(synthetic-)?(runs|effects|datasets|cost|(table|ratios|tasks)\d*)"
    rf"{_ENDING}|(table|scores|curves|reach|figure)-(?!(synthetic-)?compare\.).*{_ENDING}"
)
OF_A_COMPARISON = re.compile(rf"(figure-)?(synthetic-)?compare{_ENDING}")
"""Names of the files that each writes: nothing else is ever taken away."""


@contextmanager
def earlier_files_removed(out: Path, kind: re.Pattern[str]) -> Iterator[None]:
    """Around what writes files of a kind to a folder that exists: afterwards it has none that the one before wrote and this one
    did not, since they may be of other runs. A folder keeps a list of what was written, also where that broke off."""
    listed = out / (".bench-report.json" if kind is OF_A_REPORT else ".bench-comparison.json")
    before = _times(out, kind)
    try:
        earlier = {name for name in json.loads(listed.read_bytes()) if name in before}
    except (OSError, ValueError, TypeError):
        earlier = set()
    whole = False
    try:
        yield
        whole = True
    finally:
        written = {name for name, when in _times(out, kind).items() if before.get(name) != when}
        if whole:
            for name in earlier - written:
                (out / name).unlink(missing_ok=True)
        # What breaks off leaves its own error, not one of this list.
        with contextlib.nullcontext() if whole else contextlib.suppress(OSError):
            write_whole(listed, json.dumps(sorted(written if whole else written | earlier), indent=1).encode())


def _times(out: Path, kind: re.Pattern[str]) -> dict[str, int]:
    """When each file of a kind was changed."""
    found = {}
    for path in out.iterdir():
        if kind.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_mtime_ns
    return found


def write_whole(path: Path, content: bytes) -> Path:
    """Put a file in place at once, so that nobody reads half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path
