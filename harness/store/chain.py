"""The chain of a store: one line for every run ever completed in it, each with the hash of the previous line.

A removed run or hidden attempt leaves its line behind. Rewriting the whole chain leaves no trace in it; a signed bundle
reveals that (docs/audit.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from pydantic import Field, ValidationError

from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.benchmarks.support.files import sync
from pretrain_bench.benchmarks.support.foreign_files import open_plain, read_plain
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.harness.clusters.jobs import has_ended
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import canonical_json

CHAIN_FILE = "chain.jsonl"
START = "0" * 64
MOST_CHAIN_BYTES = 1 << 30
LOST = "lost"
"""Outcome of a link that records the loss of the attempt with the same hash."""
PRUNED = "pruned"
"""Outcome of a link that records the deliberate deletion (`bench clean`) of artifacts of the attempt with the same hash."""
WITHDRAWN = "withdrawn"
"""Outcome of a link that records the deliberate removal of the attempt with the same hash, and says `why`."""
NOTES = (LOST, PRUNED, WITHDRAWN)
"""Outcomes of links that concern an attempt of an earlier link."""
SETTLED = (LOST, WITHDRAWN)
"""Outcomes of links after which an attempt is no longer missed."""
MOST_REASON = 500
"""Limit of the characters of a reason."""


class Link(Spec):
    """One completed attempt."""

    kind: str
    key: str
    attempt: int
    outcome: str
    record_sha256: str
    before: str
    why: str | None = Field(None, max_length=MOST_REASON, description="the reason for withdrawing it")
    found: Literal[True] | None = Field(
        None, description="it was in the store before its chain began: of an older version, or copied from elsewhere"
    )

    def line(self) -> str:
        """The line in the chain, without its break. Fields without a value are left out: older chains lack them."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    def sha256(self) -> str:
        """Hash of this line, which the next line carries."""
        return hashlib.sha256(self.line().encode()).hexdigest()


class Chain(NamedTuple):
    """The links in order, and descriptions of faults."""

    links: list[Link]
    faults: list[str]


Earlier = Callable[[], Iterable[Record]]
"""Yields the counted records in a store. A new chain begins with their lines: an audit would otherwise take them for inserted."""


def append(root: Path, record: Record, earlier: Earlier = tuple) -> None:
    """Append a record's line, durably. One process at a time; a partial last line of a killed process is cut off first."""
    _append(root, [_link(record, record.outcome.value)], earlier)


def append_loss(root: Path, lost: Link) -> None:
    """Record that a completed attempt is lost, with its outcome, so that an audit warns instead of failing."""
    _append(root, [lost.model_copy(update={"outcome": LOST})])


def append_pruned(root: Path, record: Record, earlier: Earlier = tuple) -> None:
    """Record that artifacts of a run are deleted on purpose, so that an audit distinguishes this from tampering."""
    _append(root, [_link(record, PRUNED)], earlier)


def append_withdrawn(root: Path, record: Record, why: str, earlier: Earlier = tuple) -> None:
    """Record, once, that every attempt at a stage is removed on purpose. A counted record without a line gets one first."""
    links = links_of(root, record.kind, record.key)
    attempts = [link for link in links if link.outcome not in NOTES]
    added = [] if record.sha256 in {link.record_sha256 for link in attempts} else [_found(record)]
    gone = hashes_of(links, SETTLED)
    added += [
        link.model_copy(update={"outcome": WITHDRAWN, "why": why, "found": None})
        for link in [*attempts, *added]
        if link.record_sha256 not in gone
    ]
    _append(root, added, lambda: (one for one in earlier() if one.key != record.key))


def hashes_of(links: Iterable[Link], outcomes: Iterable[str]) -> set[str]:
    """The hashes of the attempts that have a line of one of these outcomes."""
    return {link.record_sha256 for link in links if link.outcome in outcomes}


def _link(record: Record, outcome: str) -> Link:
    return Link(
        kind=record.kind, key=record.key, attempt=record.attempt, outcome=outcome, record_sha256=record.sha256, before=START
    )  # fmt: skip


def _found(record: Record) -> Link:
    return _link(record, record.outcome.value).model_copy(update={"found": True})


def _append(root: Path, links: Iterable[Link], earlier: Earlier = tuple) -> None:
    path = root / CHAIN_FILE
    with (
        exclusive(root / ".partial" / ".chain.lock", job_ended=has_ended),
        open_plain(path, os.O_RDWR | os.O_CREAT) as file,
    ):
        before = _last_hash(file)
        is_new = file.seek(0, os.SEEK_END) == 0
        lines = []
        for link in (*(map(_found, earlier()) if is_new else ()), *links):
            fresh = link.model_copy(update={"before": before})
            before = fresh.sha256()
            lines.append(fresh.line().encode() + b"\n")
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    sync(root)


def links_of(root: Path, kind: str, key: str) -> list[Link]:
    """The links of one stage. Reads the whole chain, but parses only lines that name the stage."""
    try:
        content = read_plain(root / CHAIN_FILE, MOST_CHAIN_BYTES)
    except OSError:
        return []
    links = []
    for line in content.split(b"\n")[:-1]:
        if key.encode() in line:
            with contextlib.suppress(ValidationError):
                link = Link.model_validate_json(line)
                if (link.kind, link.key) == (kind, key):
                    links.append(link)
    return links


def _last_hash(chain: BinaryIO) -> str:
    """Hash of the last line, which the next line carries; a partial line at the end is cut off."""
    size = chain.seek(0, os.SEEK_END)
    if size == 0:
        return START
    for length in (4096, size):  # the last two lines, which are rarely longer
        chain.seek(max(0, size - length))
        lines = chain.read().split(b"\n")
        if len(lines) > 2:
            break
    if lines[-1]:  # without its line break a line was never complete
        chain.truncate(size - len(lines[-1]))
        lines[-1] = b""
    if len(lines) < 2 or not lines[-2]:
        return START
    try:
        return Link.model_validate_json(lines[-2]).sha256()
    except ValidationError:
        return hashlib.sha256(lines[-2]).hexdigest()


def read(root: Path) -> Chain | None:
    """The chain of a store; None without one (an empty store, or one older than chains)."""
    path = root / CHAIN_FILE
    if not path.exists() and not path.is_symlink():
        return None
    try:
        content = read_plain(path, MOST_CHAIN_BYTES)
    except OSError as error:
        return Chain([], [f"{CHAIN_FILE} cannot be read: {error.strerror}"])
    links: list[Link] = []
    faults: list[str] = []
    before = START
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            link = Link.model_validate_json(line)
        except ValidationError:
            faults.append(f"line {number} is damaged")
            before = hashlib.sha256(line).hexdigest()
            continue
        if link.before != before:
            faults.append(f"line {number} does not continue the previous line")
        before = link.sha256()
        links.append(link)
    return Chain(links, faults)


def merkle_root(hashes: Iterable[str]) -> str:
    """Hash of many hashes, sorted: a binary sha256 tree; an unpaired node moves up unchanged. Raises WrongUse for none."""
    level = [bytes.fromhex(h) for h in sorted(hashes)]
    if not level:
        raise WrongUse("there is no run to pack")
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(b"".join(p)).digest() if len(p) == 2 else p[0] for p in pairs]
    return level[0].hex()


def write(root: Path, links: Iterable[Link]) -> None:
    """Write a new chain for a bundle, with the hashes of its lines recomputed."""
    before, lines = START, []
    for link in links:
        fresh = link.model_copy(update={"before": before})
        before = fresh.sha256()
        lines.append(fresh.line())
    (root / CHAIN_FILE).write_text("".join(f"{line}\n" for line in lines))
