"""Records to one tidy data frame: a row for every fine-tuning run, and one for every pre-training that failed."""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic_core import from_json, to_json

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS, OVER_ALL, TITLES
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import KEY_LENGTH, StageSpec, canonical_json, hashes_as_written
from pretrain_bench.harness.store.store import SPEC, Store

if TYPE_CHECKING:
    import pandas as pd

GROUP = ["task", "dataset", "synthetic", "label_ratio", "budget", "profile", "protocol"]
"""Runs are only ever compared within one of these. `protocol` hashes what the names alone do not promise: the fine-tuning
recipe, limits, network, data, split and code."""

ACROSS_RATIOS = ["task", "dataset", "synthetic", "budget", "profile", "family"]
"""As GROUP, over all label ratios: `family` is the protocol without the ratio, and of the split its version and test scenes."""

ROW = ["method", "pretrain_dataset", "pretraining"]
"""What is averaged over seeds. `pretraining` hashes the pre-training stages without their seeds. The column `row` is its printed
name, the same in every table."""

METRIC_NAMES = {name: f"{title} (%)" for name, title in TITLES.items()}
"""What a task is judged by (`metric`), as axes name it; `score_final`, `score_selected` and `score_best` are its values."""


def class_metric(metric: str) -> str:
    """What an axis of the values of classes shows, whose mean is what a task is judged by."""
    return METRIC_NAMES[metric].removeprefix("m")


NO_DATASET = "none"
"""What a cell was pre-trained on where that was nothing."""


class Curve(NamedTuple):
    """Scores of a run on the test split, from 0 to 1, at the steps where it was validated."""

    method: str
    key: str
    pretrain_seed: int
    steps: list[int]
    scores: list[float]


class FailedPretraining(NamedTuple):
    """A pre-training that failed: where it would have counted, and the printed name of its row."""

    budget: str
    profile: str
    synthetic: bool | None
    """None for one that read no data."""
    method: str
    pretrain_dataset: str
    seed: int
    key: str
    digest: str = ""
    """Of its stage, without its seed: as in `pretrain_stages` of the runs that were pre-trained in the same way."""
    row: str = ""


class Loaded(NamedTuple):
    """A store, read once: the frame of fine-tuning runs, and what it was made from, by key.

    Runs that were told the same but for their seed and parents share one spec: those two are the record's to say.
    """

    runs: pd.DataFrame
    records: dict[str, Record]
    specs: dict[str, StageSpec]
    lost: frozenset[FailedPretraining] = frozenset()

    @property
    def failed_pretraining(self) -> list[Record]:
        """Pre-training runs that did not end well, and so have no fine-tuning run behind them."""
        keys = {lost.key for lost in self.lost}
        return [r for r in self.records.values() if r.key in keys]


def load(store: Store, keys: set[str] | None = None) -> Loaded:
    """Read every record and spec. `keys`: the fine-tunings and failed pre-trainings that count, None for all.

    Raises WrongUse for a store that does not parse.
    """
    import pandas as pd

    with _collector_off():
        records = {r.key: r for r in store.records()}
        specs = _specs(store, records)
        digests: dict[str, str] = {}
        counted = [r for r in records.values() if keys is None or r.key in keys]
        rows = [_row(r, records, specs, digests) for r in counted if r.kind == "finetune"]
    columns = [*GROUP, *ROW, "pretrain_seed", "finetune_seed", "outcome", "message", "key", "label_percent", "family"]
    failed = [r for r in counted if r.kind == "pretrain" and r.outcome != Outcome.ok]
    runs, lost = named(
        pd.DataFrame(rows, columns=None if rows else [*columns, "score_selected"]), [_lost(store, r) for r in failed]
    )
    # A copy has its numbers in one block, and so is much quicker to take rows from.
    return Loaded(runs.assign(checkpoint=_checkpoints(runs)).copy(), records, specs, frozenset(lost))


def named(runs: pd.DataFrame, lost: list[FailedPretraining]) -> tuple[pd.DataFrame, list[FailedPretraining]]:
    """The same with the printed names of rows, which no table makes up for itself: so a row has one name in all of them.

    It is the method's, with the dataset where the method was pre-trained on several, and the hash where it was in several ways on
    one dataset under one budget.
    """
    kinds = ["synthetic", "budget", "profile", *ROW]
    found = list(runs[kinds].drop_duplicates().itertuples(index=False, name=None))
    ways = Counter(r[:-1] for r in found)
    sources: dict[tuple[bool | None, str], set[str]] = {}
    for synthetic, method, dataset in (
        *((r[0], r[3], r[4]) for r in found),
        *((one.synthetic, one.method, one.pretrain_dataset) for one in lost),
    ):
        sources.setdefault((synthetic, method), set()).add(dataset)

    def name(synthetic: bool | None, method: str, dataset: str) -> str:
        return f"{method} ({dataset})" if len(sources[synthetic, method]) > 1 else method

    names = {r: name(r[0], r[3], r[4]) + (f" #{r[5]}" if ways[r[:-1]] > 1 else "") for r in found}
    rows = [names[r] for r in runs[kinds].itertuples(index=False, name=None)]
    return runs.assign(row=rows), [
        one._replace(row=name(one.synthetic, one.method, one.pretrain_dataset)) for one in lost
    ]


def _checkpoints(runs: pd.DataFrame) -> pd.Series:
    """What a run is judged by: `selected` where every good run of its family has it, at all its label ratios, else `final`."""
    import pandas as pd

    good = runs[runs["outcome"] == "ok"]
    lacking = good["score_selected"].isna().groupby([good[c] for c in ACROSS_RATIOS]).any()
    judged = pd.Series(np.where(lacking, "final", "selected"), index=lacking.index, name="checkpoint", dtype=object)
    return runs[ACROSS_RATIOS].join(judged, on=ACROSS_RATIOS)["checkpoint"].fillna("final")


def _lost(store: Store, record: Record) -> FailedPretraining:
    """Of a pre-training that failed. Its fine-tunings never ran, so it is in no row of the frame, and is no less a failure."""
    spec = store.spec(record.kind, record.key)  # its own: the shared one does not say the seed
    dataset, synthetic = (spec.data.dataset, spec.data.synthetic) if spec.data else (NO_DATASET, None)
    digest = _digest([spec], _FREE)
    return FailedPretraining(
        spec.limits.budget, spec.profile, synthetic, record.method, dataset, spec.seed, record.key, digest
    )


def load_runs(store: Store) -> pd.DataFrame:
    """One row a fine-tuning run, failed ones included, with the cost of its pre-training beside its own."""
    return load(store).runs


@contextmanager
def _collector_off() -> Iterator[None]:
    """Thousands of records are read and all are kept; looking for what could be freed takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _specs(store: Store, records: dict[str, Record]) -> dict[str, StageSpec]:
    """The spec of each run. Ten thousand differ in a few hundred ways, so only those are validated; every key is checked."""
    known: dict[bytes, StageSpec] = {}
    specs = {}
    for key, record in records.items():
        rest = b""
        try:
            plain = from_json((store.folder(record.kind, key) / SPEC).read_bytes())
            seed, parents = plain["seed"], plain["parents"]
            free = {
                "seed": 0 if type(seed) is int and seed >= 0 else seed,
                "parents": {name: "" if isinstance(parent, str) else parent for name, parent in parents.items()},
            }
            rest = to_json({**plain, **free})
            sound = rest in known and key in (h[:KEY_LENGTH] for h in hashes_as_written(plain))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            sound = False
        if not sound:
            # Also says what is wrong with a file.
            known[rest] = store.spec(record.kind, key)
        specs[key] = known[rest]
    return specs


def _row(
    record: Record, records: dict[str, Record], specs: dict[str, StageSpec], digests: dict[str, str]
) -> dict[str, object]:
    cell = record.cell
    if cell is None:
        raise WrongUse(
            f"finetune/{record.key}: its record names no cell; bench audit says more, and with the folder moved away the rest "
            "is reported"
        )
    parents = _ancestors(record, records)
    pretraining = " ".join(p.key for p in parents)
    if pretraining not in digests:
        digests[pretraining] = _digest([specs[p.key] for p in parents], _FREE)
    for p in parents:
        if f"stage {p.key}" not in digests:
            digests[f"stage {p.key}"] = _digest([specs[p.key]], _FREE)
    row: dict[str, object] = {
        "task": cell.task,
        "dataset": record.dataset or NO_DATASET,
        "synthetic": record.synthetic,
        "label_ratio": str(cell.label_ratio),
        "label_percent": float("nan")
        if cell.label_ratio.points or cell.label_ratio.boxes
        else cell.label_ratio.percent,
        "budget": cell.budget,
        "profile": cell.profile,
        **_protocol(specs[record.key], digests),
        "pretraining": digests[pretraining],
        "method": cell.method,
        "pretrain_dataset": cell.pretrain_dataset,
        "pretrain_seed": cell.pretrain_seed,
        "finetune_seed": cell.finetune_seed,
        "outcome": record.outcome.value,
        "message": record.message,
        "key": record.key,
        "metric": specs[record.key].headline_metric,
        "attempt": record.attempt,
        "pretrain_keys": tuple(p.key for p in parents),
        "pretrain_stages": tuple(digests[f"stage {p.key}"] for p in parents),
        "pretrain_steps": sum(p.ledger.optimizer_steps for p in parents),
        "finetune_steps": record.ledger.optimizer_steps,
        "pretrain_labels": sum(p.ledger.labels for p in parents),
        "finetune_labels": record.ledger.labels,
        "pretrain_cpu_seconds": sum(p.ledger.cpu_seconds for p in parents),
        "finetune_cpu_seconds": record.ledger.cpu_seconds,
        "pretrain_gpu_seconds": sum(p.ledger.gpu_seconds for p in parents),
        "finetune_gpu_seconds": record.ledger.gpu_seconds,
        "pretrain_gpu_joules": _joules(parents),
        "finetune_gpu_joules": _joules([record]),
        "pretrain_notes": [(f"{p.stage}: {k}", v) for p in reversed(parents) for k, v in p.notes.items()],
        "peak_memory_mib": max(r.ledger.peak_memory_bytes for r in (record, *parents)) / 2**20,
    }
    for name in OVER_ALL:
        for checkpoint in CHECKPOINTS:
            value = record.metrics.get(f"{name}_{checkpoint}")
            row[f"{name}_{checkpoint}"] = float("nan") if value is None else value
    for checkpoint in CHECKPOINTS:
        row[f"score_{checkpoint}"] = row[f"{row['metric']}_{checkpoint}"]
    return row


def _joules(records: list[Record]) -> float:
    """Energy of the GPUs over runs of stages, NaN where it was not measured for all that used one. What an executor saw is of one
    attempt, so a stage that took several was not measured as a whole."""
    seen = [r.measured.gpu_joules if r.attempt == 1 else None for r in records if r.ledger.gpu_seconds]
    return sum(float("nan") if joules is None else joules for joules in seen)


# What may differ between runs that are averaged or compared: seeds, the method itself, and where and with how many threads
# it ran. Everything else that is in a key must be equal.
_FREE = {"seed", "parents", "threads", "device", "sparse_backend"}


def _protocol(spec: StageSpec, digests: dict[str, str]) -> dict[str, str]:
    """`protocol` and `family` of a fine-tuning; a spec that runs share is hashed once."""
    name = str(id(spec))
    if f"protocol {name}" not in digests:
        plain = spec.model_dump(mode="json", exclude={*_FREE, "method"})
        digests[f"protocol {name}"] = _sha([plain])
        rest = {k: v for k, v in plain.items() if k != "label_ratio"}
        rest["split"] = {k: plain["split"][k] for k in ("version", "test")} if plain.get("split") else None
        digests[f"family {name}"] = _sha([rest])
    return {kind: digests[f"{kind} {name}"] for kind in ("protocol", "family")}


def _digest(specs: list[StageSpec], free: set[str]) -> str:
    plain = [spec.model_dump(mode="json", exclude=free) for spec in specs]
    plain.sort(key=lambda spec: str(spec["stage"]))
    return _sha(plain)


def _sha(plain: list[dict[str, object]]) -> str:
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:6]


def _ancestors(record: Record, records: dict[str, Record]) -> list[Record]:
    """The pre-trainings behind a run. Raises WrongUse where one has no record: how the run was made would be a guess."""
    found: dict[str, Record] = {}
    waiting = list(record.parents.values())
    while waiting:
        key = waiting.pop()
        if key not in records:
            raise WrongUse(
                f"finetune/{record.key}: no record of pretrain/{key}, from which it started; bench audit says more, and with the "
                "pre-training's folder back, or this one moved away as well, the rest is reported"
            )
        if key not in found:
            found[key] = records[key]
            waiting += records[key].parents.values()
    return list(found.values())
