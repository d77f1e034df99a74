"""Load records into one tidy data frame with a row for every fine-tuning run, including failed ones."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretrain_bench.benchmarks.datasets.contamination import Contamination
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS, OVER_ALL
from pretrain_bench.benchmarks.specs.probes import FINETUNE, FeatureRecipe, LinearProbe
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.contamination import contamination_of
from pretrain_bench.harness.contract.migrations import compact
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.spec_reader import SpecReader
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.budgets import limit_columns
from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS, GROUP, NO_DATASET, ROW, UNIT
from pretrain_bench.reports.analysis.digests import SpecDigests, digest_of, digest_of_text
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining
from pretrain_bench.reports.analysis.method_cards import use_cards_of
from pretrain_bench.reports.analysis.published import published_name
from pretrain_bench.reports.analysis.rows import row_name

if TYPE_CHECKING:
    import pandas as pd


class Loaded(NamedTuple):
    """A store, read once: the frame of fine-tuning runs, and the records and specs behind it, by key.

    Runs whose specs differ only in seed and parents share one spec; read those two from the record.
    """

    runs: pd.DataFrame
    records: dict[str, Record]
    specs: dict[str, StageSpec]
    failed_pretrainings: frozenset[FailedPretraining] = frozenset()

    @property
    def failed_pretraining_records(self) -> list[Record]:
        """Records of failed pre-trainings, which have no fine-tuning run behind them."""
        keys = {failed.key for failed in self.failed_pretrainings}
        return [r for r in self.records.values() if r.key in keys]


def load(store: Store, keys: set[str] | None = None) -> Loaded:
    """Read every record and spec. `keys` selects fine-tunings and failed pre-trainings, None means all.

    Unreadable runs are skipped and named by `store.unreadable()`. Raises WrongUse if there is no store.
    """
    import pandas as pd

    with _collector_off():
        records = {r.key: compact(r) for r in store.records()}
        use_cards_of(records.values())
        specs = _specs(store, records)
        records = {key: record for key, record in records.items() if key in specs}
        digests = SpecDigests(specs)
        counted = [r for r in records.values() if keys is None or r.key in keys]
        # Lists of columns: a dictionary for each of 50,000 rows takes five times the memory of its values.
        cells, known = dict[str, list[object]](), dict[tuple[int, ...], dict[str, str]]()
        for record in [r for r in counted if r.kind == "finetune"]:
            try:
                parents = _ancestors(record, records)
                row = _row(record, parents, specs, digests) | _contamination(record, parents, specs, known)
            except WrongUse as error:
                store.set_aside(str(error))
                continue
            for name, value in row.items():
                cells.setdefault(name, []).append(value)
    columns = [*GROUP, *ROW, "pretrain_seed", "finetune_seed", "outcome", "message", "key", "label_percent", "family"]
    columns += ["pretrain_synthetic", "score_selected"]
    failed = [
        r
        for r in counted
        if r.kind != "finetune" and r.outcome != Outcome.ok and set(r.parents.values()) <= set(records)
    ]
    runs = _apart_by_file(pd.DataFrame(cells or {name: [] for name in columns}))
    cells.clear()
    runs, failed_pretrainings = with_row_names(runs, [_failed_pretraining(store, r, records, runs) for r in failed])
    runs["checkpoint"] = _checkpoints(runs)
    # A copy has its numbers in one block, and so is much quicker to take rows from.
    runs = runs.copy()
    return Loaded(runs, records, specs, frozenset(failed_pretrainings))


def load_runs(store: Store) -> pd.DataFrame:
    """One row per fine-tuning run, including failed ones, with the cost of its pre-training beside its own."""
    return load(store).runs


def with_row_names(runs: pd.DataFrame, failed: list[FailedPretraining]) -> tuple[pd.DataFrame, list[FailedPretraining]]:
    """Add the printed names of rows, which all tables use, so that a row has one name everywhere.

    The name is that of the method, plus the dataset if the method was pre-trained on several or on synthetic data before a
    task on real data, plus the hash if it was pre-trained in several ways on one dataset under one budget.
    """
    kinds = ["synthetic", "budget", "profile", *ROW]
    rows = list(runs[[*kinds, "pretrain_synthetic"]].drop_duplicates().itertuples(index=False, name=None))
    ways = Counter(r[:5] for r in rows)
    sources: dict[tuple[bool | None, str], set[str]] = {}
    for synthetic, method, dataset in (
        *((r[0], r[3], r[4]) for r in rows),
        *((one.synthetic, one.method, one.pretrain_dataset) for one in failed),
    ):
        sources.setdefault((synthetic, method), set()).add(dataset)

    def name(synthetic: bool | None, method: str, dataset: str, pretrain_synthetic: bool | None) -> str:
        return row_name(
            method, dataset, len(sources[synthetic, method]) > 1, not synthetic and bool(pretrain_synthetic)
        )

    names = {r[:6]: name(r[0], r[3], r[4], r[6]) + (f" #{r[5]}" if ways[r[:5]] > 1 else "") for r in rows}
    column = [names[r] for r in runs[kinds].itertuples(index=False, name=None)]
    return runs.assign(row=column), [
        one._replace(row=name(one.synthetic, one.method, one.pretrain_dataset, one.pretrain_synthetic))
        for one in failed
    ]


def _apart_by_file(runs: pd.DataFrame) -> pd.DataFrame:
    """Separate rows of imported checkpoints with one name if a pre-training seed stands for several files, as when the name was
    reused."""
    which = ["budget", "profile", *ROW]
    if not len(runs) or not (runs["imported"] != "").any():
        return runs
    files = runs.groupby([*which, UNIT])["imported"].nunique().groupby(which).max().rename("files")
    several = runs[which].join(files, on=which)["files"] > 1
    return runs.assign(pretraining=runs["pretraining"].where(~several, runs["imported"].map(digest_of_text)))


def _checkpoints(runs: pd.DataFrame) -> pd.Series:
    """The headline checkpoint of each run: `selected` if every successful run of its family has one, at all label ratios, else
    `final`."""
    import pandas as pd

    good = runs[runs["outcome"] == "ok"]
    lacking = good["score_selected"].isna().groupby([good[c] for c in ACROSS_RATIOS]).any()
    headline = pd.Series(np.where(lacking, "final", "selected"), index=lacking.index, name="checkpoint", dtype=object)
    return runs[ACROSS_RATIOS].join(headline, on=ACROSS_RATIOS)["checkpoint"].fillna("final")


def _failed_pretraining(
    store: Store, record: Record, records: Mapping[str, Record], runs: pd.DataFrame
) -> FailedPretraining:
    """A failed pre-training, or failed features, which affect only linear probes of one task. `runs` tell for which kinds of
    task data a pre-training may have been made: real, synthetic or both (None)."""
    spec = store.spec(record.kind, record.key)  # its own spec: a shared one lacks its seed
    if record.kind == "features":
        (parent,) = record.parents.values()
        failed = _failed_pretraining(store, records[parent], records, runs)
        probed = LinearProbe(batch_norm=FeatureRecipe.model_validate(spec.recipe).batch_norm).title
        on_synthetic = spec.data is not None and spec.data.synthetic
        return failed._replace(key=record.key, synthetic=on_synthetic, task=spec.task, protocol=probed)
    dataset, pretrain_synthetic = (spec.data.dataset, spec.data.synthetic) if spec.data else (NO_DATASET, None)
    budget, profile = spec.limits.budget, spec.profile
    tasks = set(runs.loc[(runs["budget"] == budget) & (runs["profile"] == profile), "synthetic"])
    synthetic = pretrain_synthetic if len(tasks) != 1 else bool(*tasks)
    digest = digest_of([spec])
    failed = FailedPretraining(budget, profile, synthetic, record.method, dataset, spec.seed, record.key, digest)
    transfer = (spec.recipe or {}).get("transfer", "all")
    return failed._replace(pretrain_synthetic=pretrain_synthetic, transfer=str(transfer))


@contextmanager
def _collector_off() -> Iterator[None]:
    """Turn off garbage collection while thousands of records are read, all of which are kept; this saves a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _specs(store: Store, records: dict[str, Record]) -> dict[str, StageSpec]:
    """The spec of each run, shared by all that differ only in seed and parents; every key is checked."""
    reader, specs = SpecReader(), {}
    for key, record in records.items():
        try:
            specs[key] = reader.read(store.folder(record.kind, key)).shared.spec
        except WrongUse as error:
            store.set_aside(str(error))
    return specs


def _row(
    record: Record, parents: list[Record], specs: Mapping[str, StageSpec], digests: SpecDigests
) -> dict[str, object]:
    """One row of the frame: identity of the run, its limits and cost and those of its pre-training, and its scores."""
    cell, spec = record.cell, specs[record.key]
    if cell is None:
        raise WrongUse(
            f"finetune/{record.key}: its record names no cell, so no table can show it; bench audit gives details"
        )
    pretrainings = [p for p in parents if p.kind == "pretrain"]
    return {
        "task": cell.task,
        "dataset": record.dataset or NO_DATASET,
        "synthetic": spec.data is not None and spec.data.synthetic,
        "pretrain_synthetic": any(p.synthetic for p in pretrainings),
        "protocol": title_of_protocol(spec),
        "label_ratio": str(cell.label_ratio),
        "label_percent": cell.label_ratio.percent if cell.label_ratio.is_share else float("nan"),
        "budget": cell.budget,
        "profile": cell.profile,
        **digests.conditions(record.key),
        "pretraining": digests.pretraining(record.key, pretrainings),
        "imported": " ".join(f"{p.imported.sha256} {p.imported.origin or ''}".strip() for p in parents if p.imported),
        "method": cell.method,
        "published_as": published_name(cell.method, [specs[p.key].recipe for p in pretrainings]),
        "pretrain_dataset": cell.pretrain_dataset,
        "pretrain_seed": cell.pretrain_seed,
        "finetune_seed": cell.finetune_seed,
        "outcome": record.outcome.value,
        "message": record.message,
        "key": record.key,
        "metric": spec.headline_metric,
        **_conditions(spec),
        "attempt": record.attempt,
        "pretrain_keys": tuple(p.key for p in pretrainings),
        "pretrain_stages": tuple(digests.stage(p.key) for p in pretrainings),
        **limit_columns("pretrain", [specs[p.key].limits for p in pretrainings]),
        **limit_columns("finetune", [] if spec.takes_no_step else [spec.limits]),
        **_costs(record, pretrainings),
        **_features(parents),
        **_scores(record, spec.headline_metric),
    }


def title_of_protocol(spec: StageSpec) -> str:
    """The protocol of a run with its non-default options; runs with different titles are never averaged."""
    return FINETUNE if spec.probe is None else spec.probe.title


def _conditions(spec: StageSpec) -> dict[str, object]:
    """The conditions that decide which published numbers are comparable; columns of `columns.CONDITIONS`."""
    split, data = spec.split, spec.data
    averaged = () if data is None else data.things if spec.task_kind == "instance" else data.classes
    return {
        "train_scenes": len(split.train) if split else 0,
        "held_out_scenes": len(split.selection) if split else 0,
        "test_scenes": len(split.test) if split else 0,
        "mean_over": len(averaged),
        "voxel_metres": spec.task_recipe.voxel_metres,
        "part_of_test_split": spec.coverage.mark if spec.coverage else "",
        "network_width": spec.network.width,
    }


def _contamination(
    record: Record, parents: list[Record], specs: Mapping[str, StageSpec], known: dict[tuple[int, ...], dict[str, str]]
) -> dict[str, str]:
    """What the pre-training saw of the run's scenes: columns of `columns.CONTAMINATION`. For older records computed once for
    all runs that share their specs (`known`)."""
    seen = record.contamination
    if seen is not None:
        return {"contamination": seen.flag, "contamination_mark": seen.mark}
    behind = [specs[p.key] for p in parents]
    shared = tuple(map(id, (specs[record.key], *behind)))
    if shared not in known:
        try:
            seen = contamination_of(specs[record.key], behind)
        except WrongUse:  # a newer version may define the form in which a spec states scenes
            seen = Contamination(flag="unknown", test=0)
        known[shared] = {"contamination": seen.flag, "contamination_mark": seen.mark} if seen else _NOT_SPLIT
    return known[shared]


_NOT_SPLIT = {"contamination": "none", "contamination_mark": ""}
"""For runs whose spec names no test scenes."""


def _features(parents: list[Record]) -> dict[str, object]:
    """Key and cost of the features that a linear probe shares with others; empty and 0 for other protocols."""
    features = next((p for p in parents if p.kind == "features"), None)
    return {
        "features_key": features.key if features else "",
        "features_cpu_seconds": features.ledger.cpu_seconds if features else 0.0,
        "features_gpu_seconds": features.ledger.gpu_seconds if features else 0.0,
        "features_gpu_joules": gpu_joules([features] if features else []),
    }


AMOUNTS = {
    "steps": "optimizer_steps", "samples": "samples", "flops": "flops", "labels": "labels", "cpu_seconds": "cpu_seconds",
    "gpu_seconds": "gpu_seconds",
}  # fmt: skip
"""Columns of the frame, prefixed `pretrain_` or `finetune_`, to fields of a ledger."""


def _costs(record: Record, parents: list[Record]) -> dict[str, object]:
    """Resources used by a run and its pre-training; unknown for the pre-training behind an imported checkpoint."""
    unknown = any(p.imported for p in parents)
    amounts: dict[str, object] = {}
    for column, field in AMOUNTS.items():
        amounts[f"pretrain_{column}"] = float("nan") if unknown else sum(getattr(p.ledger, field) for p in parents)
        amounts[f"finetune_{column}"] = getattr(record.ledger, field)
    return {
        **amounts,
        "pretrain_gpu_joules": float("nan") if unknown else gpu_joules(parents),
        "finetune_gpu_joules": gpu_joules([record]),
        "pretrain_notes": [(f"{p.stage}: {k}", v) for p in reversed(parents) for k, v in _notes(p).items()],
        "peak_memory_mib": max(r.ledger.peak_memory_bytes for r in (record, *parents)) / 2**20,
    }


def _notes(record: Record) -> dict[str, str]:
    return {**(record.imported.facts if record.imported else {}), **record.notes}


def _scores(record: Record, headline_metric: str) -> dict[str, float]:
    """Every metric over all classes at each checkpoint, from 0 to 1, NaN where missing; `score_*` is the headline metric."""
    scores = {}
    for name in (f"{metric}_{checkpoint}" for metric in OVER_ALL for checkpoint in CHECKPOINTS):
        value = record.metrics.get(name)
        scores[name] = float("nan") if value is None else value
    return scores | {f"score_{checkpoint}": scores[f"{headline_metric}_{checkpoint}"] for checkpoint in CHECKPOINTS}


def gpu_joules(records: Iterable[Record]) -> float:
    """Energy of the GPUs over stages; NaN unless it was measured for all stages that used one.

    The executor measures one attempt, so the energy of a stage with several attempts is unknown.
    """
    measured = [r.measured.gpu_joules if r.attempt == 1 else None for r in records if r.ledger.gpu_seconds]
    return sum(float("nan") if joules is None else joules for joules in measured)


def _ancestors(record: Record, records: dict[str, Record]) -> list[Record]:
    """The pre-trainings and features behind a run. Raises WrongUse if one has no readable record, since it is then unknown how
    the run was made."""
    ancestors: dict[str, Record] = {}
    kind = "features" if record.cell is not None and record.cell.protocol == "linear" else "pretrain"
    waiting = [(kind, key) for key in record.parents.values()]
    while waiting:
        kind, key = waiting.pop()
        if key not in records:
            raise WrongUse(
                f"finetune/{record.key}: its parent {kind}/{key} has no readable record; restore its folder, "
                "or run the suite again"
            )
        if key not in ancestors:
            ancestors[key] = records[key]
            waiting += [("pretrain", parent) for parent in records[key].parents.values()]
    return list(ancestors.values())
