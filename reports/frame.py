"""Records to one tidy data frame: a row for every fine-tuning run, and one for every pre-training that failed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from harness.contract.records import Outcome, Record
from harness.contract.stage import StageSpec, canonical_json
from harness.store import Store

if TYPE_CHECKING:
    import pandas as pd

GROUP = ["task", "dataset", "synthetic", "label_percent", "budget", "profile", "protocol"]
"""Runs are only ever compared within one of these. `protocol` hashes what the names alone do not promise: the fine-tuning
recipe, limits, network, data, split and code."""

ROW = ["method", "pretrain_dataset", "pretraining"]
"""What is averaged over seeds. `pretraining` hashes the pre-training stages without their seeds."""

METRICS = ("miou_voxel", "miou_point", "accuracy_voxel")
CHECKPOINTS = ("final", "selected", "best")


def load_runs(store: Store) -> pd.DataFrame:
    """One row a fine-tuning run, failed ones included, with the cost of its pre-training beside its own."""
    import pandas as pd

    records = {r.key: r for r in store.records()}
    specs = {key: store.spec(r.kind, key) for key, r in records.items()}
    rows = [_row(r, records, specs) for r in records.values() if r.kind == "finetune"]
    columns = [*GROUP, *ROW, "pretrain_seed", "finetune_seed", "outcome", "message", "key"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def failed_pretraining(store: Store) -> list[Record]:
    """Pre-training runs that did not end well, and so have no fine-tuning run behind them."""
    return [r for r in store.records() if r.kind == "pretrain" and r.outcome != Outcome.ok]


def _row(record: Record, records: dict[str, Record], specs: dict[str, StageSpec]) -> dict[str, object]:
    cell = record.cell
    assert cell is not None
    parents = _ancestors(record, records)
    row: dict[str, object] = {
        "task": cell.task,
        "dataset": record.dataset,
        "synthetic": record.synthetic,
        "label_percent": cell.label_ratio.percent,
        "budget": cell.budget,
        "profile": cell.profile,
        "protocol": _digest([specs[record.key]]),
        "pretraining": _digest([specs[p.key] for p in parents]),
        "method": cell.method,
        "pretrain_dataset": cell.pretrain_dataset,
        "pretrain_seed": cell.pretrain_seed,
        "finetune_seed": cell.finetune_seed,
        "outcome": record.outcome.value,
        "message": record.message,
        "key": record.key,
        "attempt": record.attempt,
        "pretrain_steps": sum(p.ledger.optimizer_steps for p in parents),
        "finetune_steps": record.ledger.optimizer_steps,
        "labels_seen": record.ledger.labels,
        "pretrain_cpu_seconds": sum(p.ledger.cpu_seconds for p in parents),
        "finetune_cpu_seconds": record.ledger.cpu_seconds,
        "pretrain_notes": [(f"{p.stage}: {k}", v) for p in reversed(parents) for k, v in p.notes.items()],
        "peak_memory_mib": max(r.ledger.peak_memory_bytes for r in (record, *parents)) / 2**20,
    }
    for name in METRICS:
        for checkpoint in CHECKPOINTS:
            value = record.metrics.get(f"{name}_{checkpoint}")
            row[f"{name}_{checkpoint}"] = float("nan") if value is None else value
    return row


# What may differ between runs that are averaged or compared: seeds, the method itself, and where and with how many threads
# it ran. Everything else that is in a key must be equal.
_FREE = {"seed", "parents", "threads", "device", "sparse_backend"}


def _digest(specs: list[StageSpec]) -> str:
    plain = [spec.model_dump(mode="json", exclude=_FREE) for spec in specs]
    for spec in plain:
        if spec["kind"] == "finetune":
            del spec["method"]
    plain.sort(key=lambda spec: str(spec["stage"]))
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:6]


def _ancestors(record: Record, records: dict[str, Record]) -> list[Record]:
    found: dict[str, Record] = {}
    waiting = list(record.parents.values())
    while waiting:
        key = waiting.pop()
        if key in records and key not in found:
            found[key] = records[key]
            waiting += records[key].parents.values()
    return list(found.values())
