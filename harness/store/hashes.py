"""Size and sha256 of the files of a run, for its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import ArtifactEntry
from pretrain_bench.harness.store.store import LOG, json_bytes


def hash_side_files(out: Path, log: Path, json_files: Mapping[str, object]) -> dict[str, ArtifactEntry]:
    """Size and sha256 of the files that `Store.complete` puts beside a record: the events in `out`, the log, and the
    non-empty entries of `json_files` (name to content)."""
    entries = {}
    for name, content in json_files.items():
        if content:
            written = json_bytes(content)
            entries[name] = ArtifactEntry(bytes=len(written), sha256=hashlib.sha256(written).hexdigest())
    for name, path in ((EVENTS_FILE, out / EVENTS_FILE), (LOG, log)):
        if path.is_file():
            size, digest = size_and_sha256(path)
            entries[name] = ArtifactEntry(bytes=size, sha256=digest)
    return entries


def hash_artifacts(folder: Path) -> dict[str, ArtifactEntry]:
    """Size and sha256 of every plain file below `folder`, by relative path; links are left out."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            size, digest = size_and_sha256(path)
            entries[path.relative_to(folder).as_posix()] = ArtifactEntry(bytes=size, sha256=digest)
    return entries
