"""The folder of a report or a comparison: files are replaced atomically, and those of the previous one are removed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_bench.benchmarks.support.files import replacing

_ENDING = r"\.(md|tex|csv|json|parquet|png|svg|pdf)"
REPORT_FILES = re.compile(
    r"index\.html|(synthetic-)?(runs|effects|claims|probes|published|datasets|cost|(table|ratios|tasks)\d*)"
    rf"{_ENDING}|(table|used|scores|curves|reach|figure)-(?!(synthetic-)?compare\.).*{_ENDING}"
)
COMPARISON_FILES = re.compile(rf"(figure-)?(synthetic-)?compare{_ENDING}")
"""Names of the files that each writes; no other file is ever removed."""


@contextmanager
def earlier_files_removed(out: Path, kind: re.Pattern[str]) -> Iterator[None]:
    """Context for writing files of a kind to an existing folder. Afterwards it removes files that the previous report wrote
    and this one did not, since they may describe other runs. The folder keeps a list of written files, also after an error."""
    listed = out / (".bench-report.json" if kind is REPORT_FILES else ".bench-comparison.json")
    before = _times(out, kind)
    try:
        earlier = {name for name in json.loads(listed.read_bytes()) if name in before}
    except (OSError, ValueError, TypeError):
        earlier = set()
    complete = False
    try:
        yield
        complete = True
    finally:
        written = {name for name, when in _times(out, kind).items() if before.get(name) != when}
        if complete:
            for name in earlier - written:
                (out / name).unlink(missing_ok=True)
        # After an error, an error in writing this list must not hide it.
        with contextlib.nullcontext() if complete else contextlib.suppress(OSError):
            write_whole(listed, json.dumps(sorted(written if complete else written | earlier), indent=1).encode())


def _times(out: Path, kind: re.Pattern[str]) -> dict[str, int]:
    """Modification time of each file of a kind, in nanoseconds, by name."""
    times = {}
    for path in out.iterdir():
        if kind.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                times[path.name] = path.stat().st_mtime_ns
    return times


def write_whole(path: Path, content: bytes) -> Path:
    """Replace a file atomically, so that no reader sees half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path
