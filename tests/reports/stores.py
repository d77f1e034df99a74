"""Handmade stores, built one record at a time."""

from __future__ import annotations

import shutil

from pretrain_bench.benchmarks.datasets.coverage import SplitCoverage
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.checkpoint import ImportedFrom
from pretrain_bench.benchmarks.specs.method import MethodCard
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.provenance import provenance
from pretrain_bench.harness.store.store import Store, write_json
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.frame import load_runs

SPLIT = {"version": 1, "train": ["a"], "selection": ["b"], "test": ["c"], "sha256": "1" * 64}

DATA = {
    "dataset": "s3dis", "manifest_sha256": "2" * 64, "synthetic": False, "view": "labelled", "classes": ["x", "y"],
}  # fmt: skip


def stage(kind: str, method: str, seed: int, voxel: float = 0.1, **more: object) -> StageSpec:
    plain_spec = {
        "kind": kind, "method": method, "stage": "finetune" if kind == "finetune" else "points", "seed": seed, "profile": "p",
        "profile_version": 1, "network": {}, "threads": 1, "sparse_backend": "torch", "device": "cpu", "code_sha256": "0" * 64,
        "limits": {"budget": "b", "budget_version": 1, "currency": "optimizer_steps", "amount": 1, "schedule_horizon": "budget"},
    }  # fmt: skip
    if kind == "finetune":
        plain_spec |= {
            "task": "s3dis-sem",
            "split": SPLIT,
            "recipe": {"steps": 1, "batch": 1, "micro_batch": 1, "voxel_metres": voxel, "validate_every": 1},
            "data": DATA,
        }
    return StageSpec.model_validate({**plain_spec, **more})


def add(
    store: Store, method: str, score: float, pretrain_seed: int = 0, finetune_seed: int = 0, *, outcome: str = "ok",
    synthetic: bool = False, source: str = "scannet", voxel: float = 0.1, message: str = "", percent: float = 100.0,
    notes: dict[str, str] | None = None, checkpoints: tuple[str, ...] = CHECKPOINTS, labels: LabelRatio | None = None,
    budget: str = "b", pretrain_code: str = "0" * 64, split: dict[str, object] = SPLIT, task_synthetic: bool | None = None,
    uniformity: str = "at_most", amount: float = 1, ledger: dict[str, float] | None = None,
    coverage: SplitCoverage | None = None, transfer: str = "all", protocol: str = "finetune", features: str = "ok",
    read: tuple[str, ...] = (), imported: ImportedFrom | None = None, seen: str = "colour",
) -> None:  # fmt: skip
    """Add a pre-training and its fine-tuning. `imported`: the pre-training is a user's checkpoint; `seen`: what a linear probe's
    network sees."""
    labels = labels or LabelRatio(percent=percent)
    limits = {
        "budget": budget, "budget_version": 1, "currency": "optimizer_steps", "amount": amount, "schedule_horizon": "budget",
        "uniformity": uniformity,
    }  # fmt: skip
    parent = _pretraining(method, pretrain_seed, pretrain_code, limits, source, synthetic, read, imported)
    made_from, probe = parent, {}
    if protocol == "linear":
        made_from = _features(parent, voxel, split)
        probe, checkpoints = {"probe": {"protocol": "linear"}, "input": seen}, ("final",)
    on_synthetic = synthetic if task_synthetic is None else task_synthetic
    child = stage(
        "finetune", method, finetune_seed, voxel, parents={made_from.stage: made_from.key}, **probe, label_ratio=labels,
        limits=limits, split=split, coverage=coverage, transfer=transfer,
        **({"data": DATA | {"synthetic": True}} if on_synthetic else {}),
    )  # fmt: skip
    cell = Cell(
        method=method, pretrain_dataset=source, task="s3dis-sem", label_ratio=labels,
        pretrain_seed=pretrain_seed, finetune_seed=finetune_seed, budget=budget, profile="p", protocol=protocol,
    )  # fmt: skip
    metrics = {f"miou_voxel_{c}": score for c in checkpoints} if outcome == "ok" else {}
    card = MethodCard(title="Imported checkpoint", group="imported", origin="imported", place=900) if imported else None
    shared = {"synthetic": synthetic, "method_card": card}
    used = ledger or {}
    _write(store, parent, **shared, ledger=used if source != "none" else {}, imported=imported)
    if made_from is not parent:
        _write(store, made_from, **shared, outcome=features, dataset="s3dis")
    if features == "ok":
        _write(
            store, child, **shared, cell=cell, dataset="s3dis", metrics=metrics, coverage=coverage if metrics else None,
            outcome=outcome, message=message, notes=notes or {}, ledger=used,
        )  # fmt: skip


def _pretraining(
    method: str, seed: int, code: str, limits: dict[str, object], source: str, synthetic: bool, read: tuple[str, ...],
    imported: ImportedFrom | None,
) -> StageSpec:  # fmt: skip
    """The spec of a pre-training that reads the scenes `read` of `source`, or that converts a user's checkpoint."""
    if source == "none":
        limits = limits | {"amount": 0}  # as for scratch, whose only stage has a share of zero
    data = {
        "dataset": source, "manifest_sha256": "3" * 64, "synthetic": synthetic, "view": "unlabelled", "scenes": read,
    }  # fmt: skip
    origin: dict[str, object] = {"data": data}
    if imported:
        origin = {"data": None, "checkpoint": {"sha256": imported.sha256, "origin": imported.origin}}
    return stage("pretrain", method, seed, code_sha256=code, limits=limits, **origin)


def _features(parent: StageSpec, voxel: float, split: dict[str, object]) -> StageSpec:
    """The spec of the features that a linear probe of a pre-training is fitted to."""
    return stage(
        "features", parent.method, parent.seed, stage="features", parents={"points": parent.key},
        recipe={"voxel_metres": voxel}, data=DATA, task="s3dis-sem", split=split,
    )  # fmt: skip


def _write(store: Store, spec: StageSpec, **fields: object) -> None:
    """Write spec and record of a run, by default a successful one."""
    base = {
        "key": spec.key, "kind": spec.kind, "method": spec.method, "stage": spec.stage, "attempt": 1, "outcome": "ok",
        "executor": "local", "label_isolation": "none", "provenance": provenance({}), "parents": spec.parents,
        "started_at": "2026-01-01", "ended_at": "2026-01-01",
    }  # fmt: skip
    folder = store.folder(spec.kind, spec.key)
    write_json(folder / "spec.json", spec.model_dump(mode="json"))
    write_json(folder / "record.json", Record.model_validate({**base, **fields}).sealed().model_dump(mode="json"))


def only_group(store: Store):
    runs = load_runs(store)
    groups = [g for _, g in runs.groupby(GROUP)]
    assert len(groups) == 1
    return groups[0]


def rewrite(store: Store, record: Record, **changes: object) -> None:
    """Change a record of a store and reseal it."""
    changed = record.model_copy(update=changes).sealed()
    write_json(store.folder(record.kind, record.key) / "record.json", changed.model_dump(mode="json"))


def lose(store: Store, method: str, seed: int, code: str, budget: str = "b") -> None:
    """Add a crashed pre-training with a different code digest."""
    add(store, method, 0.5, seed, pretrain_code=code, budget=budget)
    (child,) = [
        r
        for r in store.records()
        if r.cell and (r.method, r.cell.pretrain_seed) == (method, seed) and _code_of(store, r) == code
    ]
    (key,) = child.parents.values()
    shutil.rmtree(store.folder("finetune", child.key))
    (record,) = [r for r in store.records() if r.key == key]
    rewrite(store, record, outcome=Outcome.crashed, metrics={})


def _code_of(store: Store, record: Record) -> str:
    (parent,) = record.parents.values()
    return store.spec("pretrain", parent).code_sha256
