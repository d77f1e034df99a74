"""The folder of runs: readable without this program, complete or absent, never half (design section 4).

<runs>/<kind>/<key>/    spec.json  record.json  attempts/<n>/record.json  events.jsonl  log.txt  artifacts/
<runs>/.partial/<key>/  lock  child.json  attempts/  root/{in,data,parents,out}   the stage under way
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from benchmarks.errors import WrongUse, cannot_write
from benchmarks.files import link_or_copy, remove_tree
from benchmarks.locks import exclusive
from harness.contract.events import EVENTS_FILE
from harness.contract.records import ArtifactEntry, Outcome, Record
from harness.contract.stage import StageSpec

KINDS = ("pretrain", "finetune")
RECORD, SPEC, ATTEMPTS, ARTIFACTS, LOG = "record.json", "spec.json", "attempts", "artifacts", "log.txt"
TMP_SUFFIX = ".tmp"


class Store:
    """One folder of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ------------------------------------------------------------------------------------------------------- reading

    def folder(self, kind: str, key: str) -> Path:
        """Where a complete run of a stage lies."""
        return self.root / kind / key

    def record(self, kind: str, key: str) -> Record | None:
        """The record that counts, or None. Raises WrongUse for a record that does not parse."""
        path = self.folder(kind, key) / RECORD
        return read_record(path) if path.is_file() else None

    def records(self) -> Iterator[Record]:
        """Every record that counts; a run folder without a readable one raises WrongUse."""
        if not self.root.is_dir():
            raise WrongUse(f"{self.root}: no such folder of runs; `bench run` makes one, --runs names another")
        for kind in KINDS:
            for folder in sorted((self.root / kind).glob("*")):
                if (folder / RECORD).is_file():
                    record = read_record(folder / RECORD)
                    if (record.kind, record.key) != (kind, folder.name):
                        raise WrongUse(
                            f"{folder}: holds the record of {record.kind}/{record.key}; folders keep their names"
                        )
                    yield record

    def spec(self, kind: str, key: str) -> StageSpec:
        """The spec of a run. Raises WrongUse where it is missing or does not give the run's key."""
        return read_spec(self.folder(kind, key))

    def find(self, prefix: str) -> Path:
        """The run folder whose key starts with `prefix`. Raises WrongUse where that is none or several."""
        found = [p for kind in KINDS for p in sorted((self.root / kind).glob("*")) if p.name.startswith(prefix)]
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            raise WrongUse(f"{what} in {self.root} whose key starts with {prefix!r}; `bench show` lists the runs")
        return found[0]

    # ------------------------------------------------------------------------------------------------------- writing

    def check_writable(self) -> None:
        """Make the folder and try a write. Raises EnvironmentCannot where that fails."""
        probe = self.root / ".partial" / f".probe-{os.getpid()}"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            raise cannot_write(self.root, error, "runs (--runs names another folder)") from None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def partial(self, key: str) -> Path:
        """Where the resumable state of a stage under way lies."""
        return self.root / ".partial" / key

    @contextlib.contextmanager
    def lock(self, key: str, waiting: Callable[[str], None]) -> Iterator[Path]:
        """Hold a stage, so that two processes on one store run it once; yields its partial folder.

        The operating system drops the lock with the process, however that ends, so there is no stale lock. `waiting` is
        told once who holds it, if somebody does.
        """
        folder = self.partial(key)
        with exclusive(folder / "lock", waiting):
            self._restore(key)
            yield folder

    def _restore(self, key: str) -> None:
        """Put back a run that a killed process had moved aside but not yet replaced."""
        for kind in KINDS:
            aside = self.partial(key) / f"replaced-{kind}"
            if aside.is_dir() and not self.folder(kind, key).exists():
                self.folder(kind, key).parent.mkdir(parents=True, exist_ok=True)
                os.rename(aside, self.folder(kind, key))

    def complete(self, spec: StageSpec, record: Record) -> Path:
        """Make a finished attempt visible by one rename, and drop the partial state."""
        partial, out = self.partial(spec.key), self.partial(spec.key) / "root" / "out"
        target, final = self.folder(spec.kind, spec.key), self.partial(spec.key) / "final"
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
        earlier = target / ATTEMPTS if (target / ATTEMPTS).is_dir() else None
        if earlier is not None:
            shutil.copytree(earlier, final / ATTEMPTS)
        if (partial / ATTEMPTS).is_dir():
            shutil.copytree(partial / ATTEMPTS, final / ATTEMPTS, dirs_exist_ok=True)
        write_json(final / SPEC, spec.model_dump(mode="json"))
        write_json(final / ATTEMPTS / str(record.attempt) / RECORD, record.model_dump(mode="json"))
        write_json(final / RECORD, record.model_dump(mode="json"))
        # Links, not moves: until the last rename the partial state stays what a resumed stage expects.
        for source, name in ((out / EVENTS_FILE, EVENTS_FILE), (partial / LOG, LOG)):
            if source.is_file():
                link_or_copy(source, final / name)
        for name in record.artifacts:
            (final / ARTIFACTS / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(out / ARTIFACTS / name, final / ARTIFACTS / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            aside = partial / f"replaced-{spec.kind}"
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(target, aside)
        os.rename(final, target)
        self.drop_partial(spec.key)
        return target

    def drop_partial(self, key: str) -> None:
        """Remove the partial state of a stage: first out of sight, so that a waiting process never sees half of it."""
        gone = self.root / ".partial" / f".gone-{key}-{os.getpid()}"
        remove_tree(gone)
        os.rename(self.partial(key), gone)
        remove_tree(gone)

    def keep_attempt(self, record: Record) -> None:
        """Keep the record of an attempt that does not count (cancelled), beside the resumable state."""
        write_json(self.partial(record.key) / ATTEMPTS / str(record.attempt) / RECORD, record.model_dump(mode="json"))

    def next_attempt(self, spec: StageSpec) -> int:
        """The number of the attempt that starts now, from 1."""
        numbers = [0]
        for folder in (self.folder(spec.kind, spec.key), self.partial(spec.key)):
            numbers += [int(p.name) for p in (folder / ATTEMPTS).glob("*") if p.name.isdigit()]
        return max(numbers) + 1


def read_spec(folder: Path) -> StageSpec:
    """The spec in a run folder. Raises WrongUse where it is missing or does not give the folder's key."""
    try:
        spec = StageSpec.model_validate_json((folder / SPEC).read_bytes())
    except (OSError, ValidationError) as error:
        raise WrongUse(
            f"{folder / SPEC}: not a stage spec that this version can read: {str(error).splitlines()[0]}"
        ) from None
    if spec.key != folder.name:
        raise WrongUse(f"{folder / SPEC}: belongs to the key {spec.key}; it was edited or put in the wrong folder")
    return spec


def read_record(path: Path) -> Record:
    """One record. Raises WrongUse where the file is not one, or does not match its own hash."""
    try:
        record = Record.model_validate_json(path.read_bytes())
        if record.content_sha256() != record.sha256:
            raise WrongUse(f"{path}: the record does not match its own hash; it was edited or damaged")
        return record
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise WrongUse(f"{path}: not a record that this version can read: {why}") from None


def write_json(path: Path, data: object) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TMP_SUFFIX)
    temporary.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def hash_artifacts(folder: Path) -> dict[str, ArtifactEntry]:
    """Size and sha256 of every plain file below `folder`, by relative path; links are left out."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256()
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
            entries[path.relative_to(folder).as_posix()] = ArtifactEntry(
                bytes=path.stat().st_size, sha256=digest.hexdigest()
            )
    return entries


def is_done(record: Record | None) -> bool:
    """Whether a stage needs no more work."""
    return record is not None and record.outcome == Outcome.ok
