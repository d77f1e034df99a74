"""A store of synthetic records with known effects, in the real layout: `python -m tests.reports.planted RUNS [RECORDS]`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.store import CONFUSION, Store
from pretrain_bench.reports.analysis.published_protocol import pretrainings
from tests.reports.stores import stage

GAINS = {"scratch": 0.0, "supervised": 4.0, "pointcontrast": 1.0, "csc": 3.0, "depthcontrast": -0.5, "ours": 2.0}
"""Gain in mIoU over scratch with all labels; with few labels twice as much."""
RATIOS = (5.0, 10.0, 20.0, 40.0, 100.0)
BASE = {5.0: 42.0, 10.0: 50.0, 20.0: 57.0, 40.0: 61.0, 100.0: 65.0}
SEED = 20261123
PRETRAIN_SD, RUN_SD = 0.8, 0.5
CLASSES = ("ceiling", "floor", "wall", "chair", "table")


TASKS = {"s3dis-sem": ("s3dis", 0.0), "scannet-sem": ("scannet", 5.0)}
"""The dataset of a task, and an offset of its scores. All pre-training is on scannet."""


def plant(
    store: Store,
    pretrain_seeds: int,
    finetune_seeds: int,
    *,
    synthetic: bool = True,
    fail: int = 40,
    tasks: Sequence[str] = ("s3dis-sem",),
    as_paper: bool = False,
    ratios: Sequence[float] = RATIOS,
    recipe: Mapping[str, object] | None = None,
    network: Mapping[str, object] | None = None,
) -> int:
    """Write a full crossed matrix, and return the number of records. Every `fail`-th fine-tuning has crashed.

    `as_paper`: all scenes are used as in the paper, so that no checkpoint is selected. `recipe`: the recipe of every pre-training.
    """
    rng = np.random.default_rng(SEED)
    count = 0
    template: dict[str, dict[str, object]] = {}
    for method, gain in GAINS.items():
        for one in range(pretrain_seeds):
            shared = rng.normal(0, PRETRAIN_SD)
            source = {"dataset": "scannet", "manifest_sha256": "3" * 64, "synthetic": synthetic, "view": "unlabelled"}
            parent = stage("pretrain", method, one, data=source, recipe=recipe)
            steps = pretrainings()[method].steps if as_paper else 600
            used = {"optimizer_steps": steps, "cpu_seconds": 500 + 100 * len(method)}
            _write(store, template, parent, {"ledger": used}, synthetic)
            count += 1
            for task, percent, two in product(tasks, ratios, range(finetune_seeds)):
                dataset, higher = TASKS[task]
                if method == "supervised" and dataset == "scannet":
                    continue  # it would be trained on the task's own labels
                child = _finetuning(parent, two, task, percent, synthetic, as_paper, network or {})
                score = BASE[percent] + higher + gain * (2 - percent / 100) + shared + rng.normal(0, RUN_SD)
                failed = fail and count % fail == 0
                metrics = {} if failed else _metrics(score / 100, rng)
                if as_paper:
                    metrics = {name: value for name, value in metrics.items() if not name.endswith("_selected")}
                extra = _result(parent, child, percent, metrics, 20_000 if as_paper else 300)
                folder = _write(store, template, child, extra, synthetic)
                if not failed:
                    _confusion(folder, score / 100)
                if not failed and one < 3 and two == 0:
                    _curve(folder, score / 100, gain)
                count += 1
    return count


def _finetuning(
    parent: StageSpec, seed: int, task: str, percent: float, synthetic: bool, as_paper: bool, network: Mapping[str, object]
) -> StageSpec:  # fmt: skip
    data = {
        "dataset": TASKS[task][0], "manifest_sha256": "2" * 64, "synthetic": synthetic, "view": "labelled", "classes": CLASSES,
    }  # fmt: skip
    return stage(
        "finetune", parent.method, seed, parents={"points": parent.key}, label_ratio={"percent": percent}, task=task,
        network=network, **{"data": data, **(_as_paper(task, percent) if as_paper else {})},
    )  # fmt: skip


def _result(
    parent: StageSpec, child: StageSpec, percent: float, metrics: dict[str, float], steps: int
) -> dict[str, object]:
    """Fields of the record of a fine-tuning; without metrics it has crashed."""
    cell = {
        "method": child.method, "pretrain_dataset": "scannet", "task": child.task, "label_ratio": {"percent": percent},
        "pretrain_seed": parent.seed, "finetune_seed": child.seed, "budget": "b", "profile": "p",
    }  # fmt: skip
    return {
        "cell": cell, "dataset": TASKS[child.task][0], "metrics": metrics, "outcome": "ok" if metrics else "crashed",
        "message": "" if metrics else "planted", "ledger": {"optimizer_steps": steps, "cpu_seconds": 120.0},
    }  # fmt: skip


def _as_paper(task: str, percent: float) -> dict[str, object]:
    """Fields of a stage spec with which the paper's numbers of a task are shown beside its runs."""
    dataset, classes, train, test = {"s3dis-sem": ("s3dis", 13, 204, 68), "scannet-sem": ("scannet", 20, 1201, 312)}[
        task
    ]
    names = (*CLASSES, *(f"class{i}" for i in range(len(CLASSES), classes)))
    return {
        "selection": "none",
        "split": {
            "version": 1, "sha256": "1" * 64, "selection": [],
            "train": [f"train{i}" for i in range(math.ceil(percent / 100 * train - 1e-9))], "test": [f"test{i}" for i in range(test)],
        },
        "recipe": {"steps": 1, "batch": 1, "micro_batch": 1, "voxel_metres": 0.05, "validate_every": 1},
        "data": {"dataset": dataset, "manifest_sha256": "2" * 64, "synthetic": False, "view": "labelled", "classes": names},
    }  # fmt: skip


def _metrics(score: float, rng: np.random.Generator) -> dict[str, float]:
    found = {f"miou_voxel_{c}": score + d for c, d in (("final", 0.0), ("selected", -0.003), ("best", 0.008))}
    for i in range(len(CLASSES)):
        value = float(np.clip(score + 0.3 - 0.13 * i + rng.normal(0, 0.02), 0, 1))
        found |= {f"iou_voxel/{i}_{c}": value for c in ("final", "selected", "best")}
    return found


def _confusion(folder: Path, score: float) -> None:
    """Counts of 1,000 labelled voxels per class; errors go to the next class, and the last class has no labels."""
    right = round(1000 * score)
    last = len(CLASSES) - 1
    table = [[0] * len(CLASSES) for _ in CLASSES]
    for i in range(last):
        table[i][i], table[i][i + 1] = right, 1000 - right
    counts = {"voxel": table, "point": table}
    (folder / CONFUSION).write_text(json.dumps(dict.fromkeys(("final", "selected", "best"), counts)))


def _curve(folder: Path, score: float, gain: float) -> None:
    """A validation curve that rises to the score, sooner for a larger gain."""
    lines = []
    for step in range(30, 301, 30):
        value = score * (1 - np.exp(-step * (1 + gain / 4) / 60))
        lines.append(json.dumps({"event": "eval", "step": step, "split": "test", "metrics": {"miou_voxel": value}}))
    (folder / EVENTS_FILE).write_text("\n".join(lines) + "\n")


def _write(
    store: Store, template: dict[str, dict[str, object]], spec: object, extra: dict[str, object], synthetic: bool
) -> Path:
    from pretrain_bench.harness.store.provenance import provenance

    kind, key = spec.kind, spec.key  # type: ignore[attr-defined]
    if kind not in template:
        template[kind] = {"provenance": provenance({}).model_dump(mode="json")}
    base = {
        "key": key, "kind": kind, "method": spec.method, "stage": spec.stage, "attempt": 1, "outcome": "ok",  # type: ignore[attr-defined]
        "synthetic": synthetic, "executor": "local", "label_isolation": "none", **template[kind],
        "parents": spec.parents, "started_at": "2026-01-01", "ended_at": "2026-01-01",  # type: ignore[attr-defined]
    }  # fmt: skip
    folder = store.folder(kind, key)
    folder.mkdir(parents=True)
    record = Record.model_validate({**base, **extra}).sealed()
    (folder / "spec.json").write_text(json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True))  # type: ignore[attr-defined]
    (folder / "record.json").write_text(json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True))
    return folder


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    seeds = max(1, round(wanted / (len(GAINS) * len(RATIOS) * 10)))
    print(plant(Store(Path(sys.argv[1])), seeds, 10))
