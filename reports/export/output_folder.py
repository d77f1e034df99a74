"""The folder of a report or a comparison: files are replaced atomically, and those of the previous one are removed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_bench.benchmarks.support.files import replacing

TABLES, FIGURES, GROUPS = "tables", "figures", "groups"
"""Folders of a report: tables and figures over several groups of comparable runs, and one folder for each group."""
_ENDING = r"\.(md|tex|csv|json|parquet|png|svg|pdf)"
REPORT_FILES = re.compile(
    rf"index\.html|table{_ENDING}|(synthetic-)?(runs|effects){_ENDING}"
    rf"|{TABLES}/(synthetic-)?(table1|claims|probes|published|datasets|cost|(ratios|tasks)\d+){_ENDING}"
    rf"|{FIGURES}/(synthetic-)?(forest|variance|(gains|cost|datasets|ratios|prediction|ranks|classes)\d*(-best)?){_ENDING}"
    rf"|{GROUPS}/[a-z0-9-]+/(table|used|reach|scores|curves){_ENDING}"
    # Earlier versions wrote all files to one folder.
    rf"|(synthetic-)?(claims|probes|published|datasets|cost|(table|ratios|tasks)\d+){_ENDING}"
    rf"|(table|used|scores|curves|reach|figure)-(?!(synthetic-)?compare\.)[a-z0-9-]+{_ENDING}"
)
COMPARISON_FILES = re.compile(rf"(figure-)?(synthetic-)?compare{_ENDING}")
"""Paths of the files that each writes, below its folder; no other file is ever removed."""


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
                _remove_empty_folders(out, out / name)
        # After an error, an error in writing this list must not hide it.
        with contextlib.nullcontext() if complete else contextlib.suppress(OSError):
            write_whole(listed, json.dumps(sorted(written if complete else written | earlier), indent=1).encode())


def _times(out: Path, kind: re.Pattern[str]) -> dict[str, int]:
    """Modification time of each file of a kind, in nanoseconds, by its path below the folder."""
    times = {}
    for path in (p for pattern in ("*", f"{TABLES}/*", f"{FIGURES}/*", f"{GROUPS}/*/*") for p in out.glob(pattern)):
        if kind.fullmatch(name := path.relative_to(out).as_posix()):
            with contextlib.suppress(FileNotFoundError):
                times[name] = path.stat().st_mtime_ns
    return times


def _remove_empty_folders(out: Path, removed: Path) -> None:
    """Remove the folders between `out` and a removed file that have become empty."""
    with contextlib.suppress(OSError):  # not empty
        for folder in removed.parents:
            if folder == out:
                return
            folder.rmdir()


def write_whole(path: Path, content: bytes) -> Path:
    """Replace a file atomically, so that no reader sees half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path
