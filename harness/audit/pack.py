"""Pack a store for a reviewer: records, specs, events, confusion matrices, predictions and counts; no labels, points, images or
weights."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.benchmarks.support.foreign_files import MOST_JSON_BYTES, is_plain, open_plain
from pretrain_bench.harness.audit.prepared import find_data
from pretrain_bench.harness.audit.runs import AuditedRun
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import canonical_json
from pretrain_bench.harness.running.scoring import counts_of, scorer_for
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.bundle import CONTENTS, COUNTS, FORMAT, Contents, write_archive
from pretrain_bench.harness.store.retention import NOT_PACKED, PRUNED
from pretrain_bench.harness.store.signatures import sign
from pretrain_bench.harness.store.store import (
    ARTIFACTS,
    ATTEMPTS,
    CODE,
    CONFUSION,
    LOG,
    RECORD,
    SPEC,
    read_record,
    write_json,
)

PREDICTIONS = "predictions"


class PackOptions(NamedTuple):
    """Whether to hide host and git identity, and the SSH key to sign with."""

    anonymous: bool = False
    sign: Path | None = None


def pack(
    runs: dict[str, AuditedRun], root: Path, target: Path, options: PackOptions, say: Callable[[str], None]
) -> str:
    """Write the runs of the store at `root` to `target`, a tar.zst; returns the Merkle root over all records.

    Raises EnvironmentCannot if signing fails, WrongUse if there is no run to pack.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        packer = _Packer(folder, options.anonymous, say)
        hashes = [packer.add(run) for run in runs.values()]
        packer.add_chain(root)
        files = {
            p.relative_to(folder).as_posix(): size_and_sha256(p)[1] for p in sorted(folder.rglob("*")) if p.is_file()
        }
        merkle_root = chain.merkle_root(hashes)
        contents = Contents(
            format=FORMAT, anonymous=options.anonymous, records=len(hashes), merkle_root=merkle_root, files=files
        )
        write_json(folder / CONTENTS, contents.model_dump(mode="json"))
        if options.sign is not None:
            sign(folder / CONTENTS, options.sign)
        write_archive(folder, target)
    return merkle_root


class _Packer:
    """Copies runs into the folder that becomes the archive."""

    def __init__(self, folder: Path, anonymous: bool, say: Callable[[str], None]) -> None:
        self.folder, self.anonymous, self.say = folder, anonymous, say
        self.salt = secrets.token_hex(8)
        self.resealed: dict[str, str] = {}
        self.scorers: dict[str, Any] = {}

    def add(self, run: AuditedRun) -> str:
        """Copy one run; returns the hash of its record as packed."""
        into = self.folder / run.record.kind / run.record.key
        into.mkdir(parents=True)
        for path in sorted((run.folder / ATTEMPTS).glob(f"*/{RECORD}")):
            self._add_record(path, into / ATTEMPTS / path.parent.name / RECORD)
        packed = self._add_record(run.folder / RECORD, into / RECORD)
        names = [SPEC, CODE, EVENTS_FILE, CONFUSION, PRUNED]
        if not self.anonymous:
            names.append(LOG)  # free text, which may name anything
        for name in names:
            if is_plain(run.folder / name, run.folder):
                entry = run.record.files.get(name)
                self._copy(run.folder / name, into / name, run.folder, entry.bytes if entry else MOST_JSON_BYTES)
        self._add_predictions(run, into)
        counts = self._counts(run)
        if counts:
            write_json(into / COUNTS, counts)
        return packed

    def _add_record(self, source: Path, target: Path) -> str:
        record = read_record(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.anonymous:
            self._copy(source, target, source.parent, MOST_JSON_BYTES)
            return record.sha256
        hidden = _anonymous(record, self.salt)
        self.resealed[record.sha256] = hidden.sha256
        write_json(target, hidden.model_dump(mode="json"))
        return hidden.sha256

    def _add_predictions(self, run: AuditedRun, into: Path) -> None:
        """Copy predictions; omitted artifacts are recorded as pruned."""
        left_out = {}
        for name, entry in run.record.artifacts.items():
            source, target = run.folder / ARTIFACTS / name, into / ARTIFACTS / name
            if not is_plain(source, run.folder):
                continue
            if name.startswith(f"{PREDICTIONS}/"):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._copy(source, target, run.folder, entry.bytes)
            else:
                left_out[name] = NOT_PACKED
        if left_out:
            write_json(into / PRUNED, {**run.pruned, **left_out})

    def add_chain(self, root: Path) -> None:
        """Copy the chain. The line of a missing run is kept for the reviewer to see."""
        original = chain.read(root)
        if original is None:
            return
        if not self.anonymous:
            self._copy(root / chain.CHAIN_FILE, self.folder / chain.CHAIN_FILE, root, chain.MOST_CHAIN_BYTES)
            return
        links = [
            link.model_copy(
                update={
                    "record_sha256": self.resealed.get(link.record_sha256, link.record_sha256),
                    "why": NOT_PACKED if link.why else None,  # free text, which may name anything
                }
            )
            for link in original.links
        ]
        chain.write(self.folder, links)

    def _copy(self, source: Path, target: Path, below: Path, most: int) -> None:
        """Copy a plain file of at most `most` bytes; links are not followed. Raises OSError."""
        with open_plain(source, below=below) as file:
            if os.fstat(file.fileno()).st_size > most:
                self.say(f"{source}: larger than the limit of {most:,} bytes; left out of the bundle")
                return
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy)

    def _counts(self, run: AuditedRun) -> dict[str, Any]:
        """The counts behind every metric, by checkpoint and test scene; empty without the data or the predictions."""
        spec, predictions = run.spec, run.folder / ARTIFACTS / PREDICTIONS
        if spec.data is None or spec.split is None or run.record.outcome != Outcome.ok or not predictions.is_dir():
            return {}
        identity = canonical_json([spec.data.model_dump(), spec.split.test, spec.model_dump(mode="json")["recipe"]])
        if identity not in self.scorers:
            source = find_data(spec.data, self.say)
            self.scorers[identity] = None if isinstance(source, str) else scorer_for(spec, source)
        scorer = self.scorers[identity]
        counts: dict[str, Any] = {}
        for checkpoint in spec.checkpoints if scorer is not None else ():
            with contextlib.suppress(DataError):
                counts[checkpoint] = counts_of(scorer, predictions / checkpoint, spec.split.test)
        return counts


def _anonymous(record: Record, salt: str) -> Record:
    """A record with host and git identity replaced by hashes; their salt is discarded."""

    def hidden(text: str | None) -> str | None:
        return None if text is None else sha256(f"{salt}{text}".encode()).hexdigest()[:12]

    known = record.provenance
    provenance = known.model_copy(update={"machine": hidden(known.machine), "git_commit": hidden(known.git_commit)})
    return record.model_copy(update={"provenance": provenance}).sealed()
