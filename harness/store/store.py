"""The folder of runs: readable without this program; each run is complete or absent.

<runs>/<kind>/<key>/    spec.json  record.json  attempts/<n>/record.json  code.json  events.jsonl  log.txt  artifacts/
<runs>/chain.jsonl      one line for every run that was completed (harness/store/chain.py)
<runs>/.partial/<key>/  lock  child.json  attempts/  root/{in,data,parents,out}   the stage under way
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.benchmarks.support.errors import WrongUse, cannot_write
from pretrain_bench.benchmarks.support.files import (
    copy_tree,
    link_or_copy,
    readable,
    remove_tree,
    replacing,
    sync,
    sync_tree,
)
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.benchmarks.support.locks import exclusive, holder, owner_file
from pretrain_bench.harness.clusters.jobs import has_ended
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.migrations import WrongHash, load_record
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import Kind, StageSpec, key_of
from pretrain_bench.harness.store import chain

KINDS: tuple[Kind, ...] = get_args(Kind)
RECORD, SPEC, ATTEMPTS, ARTIFACTS, LOG = "record.json", "spec.json", "attempts", "artifacts", "log.txt"
CODE, CONFUSION = "code.json", "confusion.json"

FINAL = "final"
"""Folder in a stage's partial folder in which a run is assembled. Its files are links to those of the stage."""
GONE = ".gone-"
"""Prefix of folders that are being removed."""


class Store:
    """A folder of runs, or a read-only bundle unpacked at `root`. `open_store` (bundle.py) opens either."""

    def __init__(self, root: Path, bundle: Path | None = None) -> None:
        self.root, self.bundle = root, bundle
        self._unreadable: list[str] | None = None

    @property
    def place(self) -> Path:
        """The store's name in messages: the folder of runs, or the bundle."""
        return self.bundle or self.root

    # ------------------------------------------------------------------------------------------------------- reading

    def folder(self, kind: str, key: str) -> Path:
        """The folder of a complete run."""
        return self.root / kind / key

    def record(self, kind: str, key: str) -> Record | None:
        """The counted record, or None. Raises WrongUse for an invalid record."""
        path = self.folder(kind, key) / RECORD
        return read_record(path) if path.is_file() else None

    def check(self) -> None:
        """Raises WrongUse where the folder does not exist."""
        if not self.root.is_dir():
            raise WrongUse(
                f"{self.root}: no such folder of runs; create one with `bench run`, or name another with --runs"
            )

    def records(self) -> Iterator[Record]:
        """Yield every readable counted record; `unreadable` lists the other runs."""
        self.check()
        unreadable = []
        for kind in KINDS:
            folder = self.root / kind
            for key in sorted(os.listdir(folder)) if folder.is_dir() else []:
                try:
                    record = read_record(os.path.join(folder, key, RECORD))
                except WrongUse as error:
                    # A file is not a run, nor is an empty folder (left by a crash of the machine).
                    if os.path.isdir(folder / key) and os.listdir(folder / key):
                        unreadable.append(str(error))
                    continue
                if (record.kind, record.key) == (kind, key):
                    yield record
                else:
                    names = f"{record.kind}/{record.key}; run folders must keep their names"
                    unreadable.append(f"{folder / key}: holds the record of {names}")
        self._unreadable = unreadable

    def unreadable(self) -> list[str]:
        """Runs with an unreadable record, which `records` skips: path, reason and next step of each."""
        if self._unreadable is None:
            for _ in self.records():
                pass
        return self._unreadable or []

    def set_aside(self, problem: str) -> None:
        """Count a run as unreadable after `records` yielded it, because another of its files is damaged."""
        self._unreadable = [*self.unreadable(), problem]

    def spec(self, kind: str, key: str) -> StageSpec:
        """The spec of a run. Raises WrongUse if it is missing or does not match the run's key."""
        return read_spec(self.folder(kind, key))

    def find(self, prefix: str) -> Path:
        """The run folder whose key starts with `prefix`. Raises WrongUse if none or several match."""
        runs = [p for kind in KINDS for p in sorted((self.root / kind).glob("*")) if p.name.startswith(prefix)]
        if len(runs) != 1:
            what = "no run" if not runs else f"{len(runs)} runs"
            hint = f"; to name a folder or a bundle: --runs {prefix}" if os.path.exists(prefix) else ""
            raise WrongUse(
                f"{what} in {self.place} whose key starts with {prefix!r}; `bench show` lists the runs{hint}"
            )
        return runs[0]

    # ------------------------------------------------------------------------------------------------------- writing

    def check_writable(self) -> None:
        """Create the folder, test writing, and finish interrupted removals.

        Raises WrongUse for a bundle, and EnvironmentCannot if writing fails.
        """
        self.refuse_bundle()
        if str(self.root) != readable(str(self.root)):
            raise WrongUse(
                f"{self.root}: this path is not UTF-8, which weight files require; name another folder with --runs"
            )
        try:
            try_write(self.root / ".partial")
            for folder in self._partial_top().glob(f"{GONE}*"):
                remove_tree(folder)
        except OSError as error:
            raise cannot_write(self.root, error, "runs (--runs names another folder)") from None

    def refuse_bundle(self) -> None:
        """Raises WrongUse if the store is a bundle."""
        if self.bundle is not None or self.root.is_file():
            raise WrongUse(
                f"{self.place}: bundles are read-only; name a folder of runs to write to with --runs FOLDER, or make this "
                f"bundle one: bench unpack {self.place} --runs FOLDER"
            )

    def partial(self, key: str) -> Path:
        """The folder with the resumable state of a stage in progress."""
        return self.root / ".partial" / key

    def partial_folders(self) -> list[Path]:
        """The state of stages in progress, and remains of interrupted removals. Raises WrongUse if the top folder is a link."""
        top = self._partial_top()
        return sorted(p for p in top.glob("*") if p.name.startswith(GONE) or (p.name[0] != "." and p.is_dir()))

    def _partial_top(self) -> Path:
        top = self.root / ".partial"
        if top.is_symlink():
            raise WrongUse(f"{top}: a link, which is not followed; remove it")
        return top

    def drop_abandoned(self, folder: Path, is_abandoned: Callable[[], bool] = lambda: True) -> bool:
        """Remove one of `partial_folders` unless a process uses it, or `is_abandoned`, asked under its lock, says no. Raises
        OSError."""

        def give_up(holder: str) -> None:
            raise WrongUse(holder)

        if folder.is_symlink():
            folder.unlink()
        elif folder.name.startswith(GONE):
            remove_tree(folder)
        else:
            try:
                with exclusive(folder / "lock", give_up, has_ended):
                    if not is_abandoned():
                        return False
                    self.drop_partial(folder.name)
            except WrongUse:
                return False
        return True

    @contextlib.contextmanager
    def lock(self, key: str, waiting: Callable[[str], None]) -> Iterator[Path]:
        """Lock a stage, so that several processes on one store run it once, on one machine or several; yields its partial folder.

        The lock of a holder known to be gone is void (ownership.py). If another process holds the stage, `waiting` is called
        with its description every 0.2 s, and may raise to give up.
        """
        folder = self.partial(key)
        with exclusive(folder / "lock", waiting, has_ended):
            self._restore(key)
            yield folder

    def _restore(self, key: str) -> None:
        """Finish what a killed process had begun to publish, or restore what it had moved aside without replacing."""
        # Half-made, its links to the events and artifacts would make these look like a stage's links to other files.
        shutil.rmtree(self.partial(key) / FINAL, ignore_errors=True)
        for kind in KINDS:
            aside, complete = self.partial(key) / f"replaced-{kind}", self.partial(key) / f"complete-{kind}"
            if complete.is_dir():
                try:
                    record = read_record(complete / RECORD)
                except WrongUse:  # empty after a power cut; the stage's own state still exists, and it reruns
                    remove_tree(complete)
                else:
                    self._admit_losses(kind, key, complete / ATTEMPTS)
                    if record.sha256 not in {link.record_sha256 for link in chain.links_of(self.root, kind, key)}:
                        chain.append(self.root, record, self.records)
                    self._publish(kind, key)
            if aside.is_dir() and not self.folder(kind, key).exists():
                self.folder(kind, key).parent.mkdir(parents=True, exist_ok=True)
                os.rename(aside, self.folder(kind, key))

    def complete(
        self,
        spec: StageSpec,
        record: Record,
        code: Mapping[str, str] | None = None,
        confusion: Mapping[str, object] | None = None,
    ) -> Path:
        """Make a finished attempt visible by one rename, and drop the partial state. Everything is flushed to disk first, so
        that after a power cut the run is complete or absent.

        `code` maps each module behind the run to its hash, so that a later plan can name changed modules; `confusion` holds the
        matrices that reports show (no score is read from it).
        """
        partial, out = self.partial(spec.key), self.partial(spec.key) / "root" / "out"
        target, final = self.folder(spec.kind, spec.key), self.partial(spec.key) / FINAL
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
        earlier = target / ATTEMPTS if (target / ATTEMPTS).is_dir() else None
        if earlier is not None:
            copy_tree(earlier, final / ATTEMPTS)
            for path in final.glob(f"{ATTEMPTS}/*/{RECORD}"):
                if not _is_readable(path):  # the chain records its loss
                    remove_tree(path.parent)
        if (partial / ATTEMPTS).is_dir():
            copy_tree(partial / ATTEMPTS, final / ATTEMPTS)
        write_json(final / SPEC, spec.model_dump(mode="json"))
        if code:
            write_json(final / CODE, dict(code))
        if confusion:
            write_json(final / CONFUSION, dict(confusion))
        write_json(final / ATTEMPTS / str(record.attempt) / RECORD, record.model_dump(mode="json"))
        write_json(final / RECORD, record.model_dump(mode="json"))
        # Links instead of moves: until the last rename the partial state remains what a resumed stage expects.
        for source, name in ((out / EVENTS_FILE, EVENTS_FILE), (partial / LOG, LOG)):
            if source.is_file():
                link_or_copy(source, final / name)
        for name in record.artifacts:
            (final / ARTIFACTS / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(out / ARTIFACTS / name, final / ARTIFACTS / name)
        # From here on the run counts as done: the stage's next lock holder finishes anything that is left.
        sync_tree(final)
        ownership.check_owned(owner_file(partial / "lock"))
        os.rename(final, partial / f"complete-{spec.kind}")
        sync(partial)
        self.admit(record)
        return target

    def admit(self, record: Record) -> None:
        """Publish a run that is complete in its stage's partial folder, whose lock is held, with its line in the chain."""
        self._admit_losses(record.kind, record.key, self.partial(record.key) / f"complete-{record.kind}" / ATTEMPTS)
        chain.append(self.root, record, self.records)
        self._publish(record.kind, record.key)
        self.drop_partial(record.key)

    def _admit_losses(self, kind: str, key: str, attempts: Path) -> None:
        """Add a line to the chain for each completed attempt at a stage that is missing here and whose loss is not yet
        recorded: its folder was damaged or moved out of the store, and the stage ran again."""
        links = chain.links_of(self.root, kind, key)
        settled = chain.hashes_of(links, chain.SETTLED)
        for path in attempts.glob(f"*/{RECORD}"):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                settled.add(read_json(path, below=attempts)["sha256"])  # as written, in any version
        for link in links:
            if link.record_sha256 not in settled and link.outcome != chain.PRUNED:
                chain.append_loss(self.root, link)

    def _publish(self, kind: str, key: str) -> None:
        """Move a complete run into place; an earlier run is moved aside first."""
        complete, target = self.partial(key) / f"complete-{kind}", self.folder(kind, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            aside = self.partial(key) / f"replaced-{kind}"
            remove_tree(aside)
            os.rename(target, aside)
        os.rename(complete, target)
        sync(target.parent)
        sync(self.partial(key))

    def drop_partial(self, key: str) -> None:
        """Remove the partial state of a stage; it is renamed first, so that a waiting process never sees part of it."""
        gone = self.root / ".partial" / f"{GONE}{key}-{os.getpid()}"
        remove_tree(gone)
        os.rename(self.partial(key), gone)
        remove_tree(gone)

    def keep_attempt(self, record: Record) -> None:
        """Keep the record of a cancelled attempt, which does not count, beside the resumable state."""
        path = self.partial(record.key) / ATTEMPTS / str(record.attempt) / RECORD
        write_json(path, record.model_dump(mode="json"), durable=True)

    def last_attempt(self, key: str) -> Record | None:
        """The record of the last attempt at a stage in progress, if any."""
        numbers = [int(p.name) for p in (self.partial(key) / ATTEMPTS).glob("*") if p.name.isdigit()]
        path = self.partial(key) / ATTEMPTS / str(max(numbers, default=0)) / RECORD
        return read_record(path) if path.is_file() else None

    def held_by(self, key: str) -> str | None:
        """The process that runs a stage now; None if there is none."""
        return holder(self.partial(key) / "lock", has_ended)

    def drop_gone_owner(self, key: str) -> None:
        """Remove the owner file of a worker that the cluster reports as lost: another node may be unable to ask the cluster."""
        ownership.drop_gone(owner_file(self.partial(key) / "lock"), has_ended)

    def next_attempt(self, spec: StageSpec) -> int:
        """The number of the next attempt, from 1."""
        numbers = [0]
        for folder in (self.folder(spec.kind, spec.key), self.partial(spec.key)):
            numbers += [int(p.name) for p in (folder / ATTEMPTS).glob("*") if p.name.isdigit()]
        return max(numbers) + 1


def try_write(folder: Path) -> None:
    """Create a folder and write a file into it, without a name where possible, so that a kill leaves nothing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x" * 4096)
        probe.flush()


def read_spec(folder: Path) -> StageSpec:
    """Read the spec in a run folder. Fields newer than the file get their defaults.

    Raises WrongUse if it is missing or does not match the folder's key.
    """
    try:
        payload = read_json(folder / SPEC, below=folder)
        spec, key = StageSpec.model_validate(payload), key_of(payload)
    except (OSError, ValueError) as error:
        raise WrongUse(
            f"{folder / SPEC}: not a stage spec readable by this version: {str(error).splitlines()[0]}"
        ) from None
    if key != folder.name:
        raise WrongUse(f"{folder / SPEC}: belongs to key {key}; it was edited or put in the wrong folder")
    return spec


def _is_readable(path: Path) -> bool:
    try:
        read_record(path)
    except WrongUse:
        return False
    return True


def read_record(path: Path | str) -> Record:
    """Read one record. Raises WrongUse if the file is not a record or does not match its own hash."""
    try:
        return load_record(read_json(path))
    except WrongHash as error:
        raise WrongUse(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise WrongUse(
            f"{path}: not a record readable by this version: {why}; restore the file, or move the run's folder out of the "
            "store to rerun the stage; bench audit lists all such records"
        ) from None


def write_json(path: Path, data: object, durable: bool = False) -> None:
    """Write a JSON file atomically; with `durable` it is on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(json_bytes(data))
        if durable:
            sync(temporary)


def json_bytes(data: object) -> bytes:
    """Serialise the content of a JSON file of a store. Raises ValueError for NaN."""
    return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def is_done(record: Record | None) -> bool:
    """Whether a stage needs no further work."""
    return record is not None and record.outcome == Outcome.ok
