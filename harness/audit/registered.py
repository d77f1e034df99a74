"""Compare a store with the registration of its suite: every registered cell must be present, including failed ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.harness.audit.account import time_of
from pretrain_bench.harness.audit.bundle import check_signature
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.runs import Runs
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.planning.registration import read_registration

PRESENT, EARLIER = "every registered cell is present", "no registered cell ran before its registration"


def check_registered(path: Path, runs: Runs, signers: Path | None, signer: str | None, tally: Tally) -> None:
    """Report every registered cell without a run here. Raises WrongUse for a file that is not a registration."""
    registration = read_registration(path)
    check_signature(path, signers, signer, tally)
    records = {key: run.record for key, run in runs.items()}
    by_cell = {_identity(r.cell): r for r in records.values() if r.cell is not None}
    failed = {
        _Earlier(
            r.method,
            spec.seed,
            spec.task,
            spec.limits.budget,
            spec.profile,
            r.dataset if r.kind == "pretrain" else None,
        )
        for r, spec in ((run.record, run.spec) for run in runs.values())
        if r.kind != "finetune" and r.outcome != Outcome.ok
    }
    since = time_of(registration.registered_at)
    for entry in registration.cells:
        cell, title = entry.cell, title_of(entry.cell)
        record = records.get(entry.key)
        if record is None and (record := by_cell.get(_identity(cell))) is not None:
            text = (
                f"present as {record.key}, registered as {entry.key}: different code, recipe, data or machine settings"
            )
            tally.note(PRESENT, "warning", title, text)
        elif record is None and failed & _stages_before(cell):
            tally.note(PRESENT, "warning", title, "was not run because an earlier stage of it failed")
        elif not tally.expect(PRESENT, record is not None, title, f"registered as {entry.key}, but has no run here"):
            continue
        if record is not None and time_of(record.started_at) < since:
            text = f"started {record.started_at}, before its registration at {registration.registered_at}"
            tally.note(EARLIER, "warning", title, text)


def title_of(cell: Cell) -> str:
    """A short title of a cell, with its seeds."""
    seeds = f"seeds {cell.pretrain_seed}/{cell.finetune_seed}"
    return f"{cell.method} -> {cell.task} at {cell.label_ratio}, {seeds}"


def _identity(cell: Cell) -> str:
    return cell.model_dump_json()


class _Earlier(NamedTuple):
    """An earlier stage of a cell: a pre-training on a dataset, or the features of a task for linear probes."""

    method: str
    seed: int
    task: str | None
    budget: str
    profile: str
    dataset: str | None


def _stages_before(cell: Cell) -> set[_Earlier]:
    pretraining = _Earlier(cell.method, cell.pretrain_seed, None, cell.budget, cell.profile, cell.pretrain_dataset)
    found = {pretraining, pretraining._replace(dataset=None)}  # a stage that only draws or converts weights has no data
    if cell.protocol == "linear":
        found.add(pretraining._replace(task=cell.task, dataset=None))
    return found
