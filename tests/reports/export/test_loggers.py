"""Export of runs: values read back from TensorBoard, MLflow and Weights & Biases equal those of the events."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.export import loggers
from tests.conftest import Bench, unboxed
from tests.reports.stores import add

pytestmark = pytest.mark.usefixtures("undrawn")

LOSSES = (2.0, 1.5, 1.25)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One successful run with a curve and one crashed run, each with its pre-training."""
    found = Store(tmp_path / "runs")
    add(found, "ours", 0.5)
    add(found, "scratch", 0.0, source="none", outcome="crashed", message="no")
    key = next(r.key for r in found.records() if r.kind == "finetune" and r.method == "ours")
    step = {"event": "step", "learning_rate": 0.1, "gradient_norm": 1.0, "seconds": 0.1, "data_seconds": 0.0}
    lines: list[dict[str, Any]] = [
        {**step, "step": i + 1, "loss": v, "health": {"top1": 0.1 * i}} for i, v in enumerate(LOSSES)
    ]
    lines.append({"event": "eval", "step": 3, "split": "test", "metrics": {"miou_voxel": 0.5, "accuracy": None}})
    (found.folder("finetune", key) / EVENTS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found


def test_tensorboard_reads_every_run(store: Store, bench: Bench, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bench("report", "--runs", str(store.root), "--no-page", "--export", "tensorboard", "--out", "out")
    bench("report", "--runs", str(store.root), "--no-page", "--export", "tensorboard", "--out", "out")
    folders = sorted((tmp_path / "out/tensorboard").iterdir())
    assert len(folders) == len(list(store.records())) and all(len(list(f.iterdir())) == 1 for f in folders)
    (mine,) = [f for f in folders if f.name.startswith("ours-s3dis-sem-100%")]
    read = EventAccumulator(str(mine)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == list(enumerate(LOSSES, 1))
    assert [round(e.value, 6) for e in read.Scalars("health/top1")] == [0.0, 0.1, 0.2]
    assert [(e.step, e.value) for e in read.Scalars("test/miou_voxel")] == [(3, 0.5)]
    assert read.Scalars("result/miou_voxel_final")[0].value == 0.5 and "test/accuracy" not in read.Tags()["scalars"]


def test_unknown_and_missing_tools_are_reported_before_anything_is_written(
    store: Store, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench("report", "--runs", str(store.root), "--export", "excel", "--out", "out", code=2).stderr
    assert "'excel' is not one of 'tensorboard', 'mlflow', 'wandb'" in unboxed(said) and not (tmp_path / "out").exists()
    with pytest.raises(WrongUse, match="excel"):
        loggers.check(["excel"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentCannot, match=r"pip install '\.\[wandb\]'"):
        loggers.check(["wandb"])


def test_mlflow_reads_every_run_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):
        out = loggers.export(store, None, "mlflow", tmp_path / "out")
    client = MlflowClient(out.resolve().as_uri())
    experiment = client.get_experiment_by_name("bench")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len(list(store.records()))
    (mine,) = [r for r in runs if r.data.params["kind"] == "finetune" and r.data.params["method"] == "ours"]
    history = client.get_metric_history(mine.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(enumerate(LOSSES, 1))
    assert mine.data.metrics["result/miou_voxel_final"] == 0.5 and mine.info.status == "FINISHED"
    assert sum(r.info.status == "FAILED" for r in runs) == 1


def test_wandb_writes_offline(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = loggers.export(store, None, "wandb", tmp_path / "out")
    written = list(out.glob("wandb/offline-run-*/*.wandb"))
    assert len(written) == len(list(store.records())) and all(p.stat().st_size > 200 for p in written)
