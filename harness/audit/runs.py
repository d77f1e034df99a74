"""The runs of a store as an audit reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.contract.migrations import compact
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.retention import pruned
from pretrain_bench.harness.store.spec_reader import SharedSpec, SpecReader
from pretrain_bench.harness.store.store import KINDS, RECORD, Store, read_record

PUBLISHING_SECONDS = 0.05
"""A run that a newer attempt replaces is missing for less than this."""


class AuditedRun(NamedTuple):
    """One run folder with a readable record and spec."""

    folder: Path
    record: Record
    spec: StageSpec
    shared: SharedSpec
    pruned: Mapping[str, str] = {}
    """Names of the artifacts that were pruned, each with the command that did it."""

    @property
    def name(self) -> str:
        """The run's name in findings."""
        return f"{self.record.kind}/{self.record.key}"


Runs = dict[str, AuditedRun]
"""By key."""


def read_runs(store: Store, tally: Tally) -> Runs:
    """Read all runs of a store; a run that does not parse becomes a finding."""
    runs, specs = {}, SpecReader()
    for kind in KINDS:
        for folder in sorted((store.root / kind).glob("*")):
            subject = f"{kind}/{folder.name}"
            if not _holds_record(folder):
                tally.note("every folder is a run", "warning", subject, f"has no {RECORD}; not a run of this program")
                continue
            try:
                run = read_run(folder, specs)
            except WrongUse as error:
                tally.expect("record and spec parse and match their hashes", False, subject, str(error))
                continue
            tally.expect("record and spec parse and match their hashes", True, subject, "")
            # `SpecReader` has computed the key from the spec as written.
            same = (run.record.kind, run.record.key) == (kind, folder.name) == (run.spec.kind, folder.name)
            if tally.expect("key recomputed from the spec", same, subject, f"the spec describes a {run.spec.kind}"):
                runs[run.record.key] = run
    return runs


def read_run(folder: Path, specs: SpecReader) -> AuditedRun:
    """Read one run. Raises WrongUse if its record or spec is unreadable."""
    return AuditedRun(folder, compact(read_record(folder / RECORD)), *specs.read(folder), pruned(folder))


def _holds_record(folder: Path) -> bool:
    if (folder / RECORD).is_file():
        return True
    time.sleep(PUBLISHING_SECONDS)
    return (folder / RECORD).is_file()


def behind(run: AuditedRun, runs: Runs) -> list[AuditedRun] | None:
    """All pre-trainings that a run builds on, nearest first; None if one is missing."""
    waiting, stages = list(run.spec.parents.values()), dict[str, AuditedRun]()
    while waiting:
        key = waiting.pop(0)
        if key in stages:
            continue
        if key not in runs:
            return None
        stages[key] = runs[key]
        waiting += runs[key].spec.parents.values()
    return list(stages.values())
