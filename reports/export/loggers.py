"""Export of runs to other tools: TensorBoard event files, MLflow, Weights & Biases. Each is an optional extra.

MLflow and Weights & Biases write below the output folder unless MLFLOW_TRACKING_URI or WANDB_MODE=online say otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse
from pretrain_bench.harness.contract.events import EVENTS_FILE, Eval, Step, read_events
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.store.store import Store

PROJECT = "bench"


class Point(NamedTuple):
    """One number of one run."""

    step: int
    name: str
    value: float


class LoggedRun(NamedTuple):
    """A run in the terms of such tools: name, hyper-parameters, final metrics, and curves by step."""

    name: str
    key: str
    choices: dict[str, str]
    metrics: dict[str, float]
    points: list[Point]


def check(kinds: Iterable[str]) -> None:
    """Raise WrongUse for an unknown tool, EnvironmentCannot for one that is not installed."""
    for kind in kinds:
        if kind not in KINDS:
            raise WrongUse(f"--export {kind!r}: expected one of {', '.join(KINDS)}")
        if importlib.util.find_spec(KINDS[kind][0]) is None:
            raise EnvironmentCannot(f"--export {kind}: it is not installed; install the extra: pip install '.[{kind}]'")


def export(store: Store, keys: set[str] | None, kind: str, out: Path) -> Path:
    """Export the runs of a store to one tool, except fine-tunings outside `keys`. Returns the folder. Raises as `check`."""
    check([kind])
    _, write = KINDS[kind]
    records = [r for r in store.records() if keys is None or r.kind == "pretrain" or r.key in keys]
    return write((_logged(store, r) for r in records), out / kind)


def _logged(store: Store, record: Record) -> LoggedRun:
    mark = "synthetic-" if record.synthetic else ""
    cell = record.cell
    stage = f"{cell.task}-{cell.label_ratio}" if cell else record.stage
    choices = {
        "method": record.method,
        "kind": record.kind,
        "stage": record.stage,
        "outcome": record.outcome.value,
        "synthetic": str(record.synthetic).lower(),
        "dataset": record.dataset or "",
        **({k: str(v) for k, v in cell.model_dump(mode="json", exclude={"method"}).items()} if cell else {}),
    }
    metrics = {name: value for name, value in record.metrics.items() if value is not None}
    points = list(_points(store.folder(record.kind, record.key) / EVENTS_FILE))
    # The name becomes a folder below --out, so characters of a path are replaced.
    name = re.sub(r"[^\w.%-]+", "-", f"{mark}{record.method}-{stage}-{record.key[:8]}").lstrip(".")
    return LoggedRun(name, record.key, choices, metrics, points)


def _points(path: Path) -> Iterator[Point]:
    for event in read_events(path):
        if isinstance(event, Step):
            yield Point(event.step, "train/loss", event.loss)
            yield Point(event.step, "train/learning_rate", event.learning_rate)
            yield Point(event.step, "train/gradient_norm", event.gradient_norm)
            yield from (Point(event.step, f"health/{name}", value) for name, value in event.health.items())
        elif isinstance(event, Eval):
            known = {name: value for name, value in event.metrics.items() if value is not None}
            yield from (Point(event.step, f"{event.split}/{name}", value) for name, value in known.items())


def to_tensorboard(runs: Iterable[LoggedRun], out: Path) -> Path:
    """Write one folder of event files a run, replacing that of an earlier export."""
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        shutil.rmtree(out / run.name, ignore_errors=True)
        with SummaryWriter(str(out / run.name)) as writer:
            for point in run.points:
                writer.add_scalar(point.name, point.value, point.step)
            last = max((p.step for p in run.points), default=0)
            for name, value in run.metrics.items():
                writer.add_scalar(f"result/{name}", value, last)
            writer.add_text("choices", "\n\n".join(f"{k}: {v}" for k, v in run.choices.items()))
    return out


def to_mlflow(runs: Iterable[LoggedRun], out: Path) -> Path:
    """Write one MLflow run for each run, to the store at MLFLOW_TRACKING_URI or else to files below `out`. Runs that it
    already has are left unchanged."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    out.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or out.resolve().as_uri())
    known = client.get_experiment_by_name(PROJECT)
    experiment = known.experiment_id if known else client.create_experiment(PROJECT)
    now = int(1000 * time.time())
    for run in runs:
        if client.search_runs([experiment], f"tags.key = '{run.key}'", max_results=1):
            continue
        started = client.create_run(experiment, tags={"key": run.key}, run_name=run.name).info.run_id
        points = [Metric(_mlflow_name(p.name), p.value, now, p.step) for p in run.points]
        points += [Metric(_mlflow_name(f"result/{n}"), v, now, 0) for n, v in run.metrics.items()]
        params = [Param(k, v[:500]) for k, v in run.choices.items()]
        for start in range(0, max(1, len(points)), 900):
            client.log_batch(
                started, points[start : start + 900], params if start == 0 else [], [RunTag("key", run.key)]
            )
        client.set_terminated(started, "FINISHED" if run.choices["outcome"] == "ok" else "FAILED")
    return out


def _mlflow_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def to_wandb(runs: Iterable[LoggedRun], out: Path) -> Path:
    """Write one Weights & Biases run a run, offline below `out` unless WANDB_MODE says otherwise (`wandb sync` uploads them)."""
    import wandb

    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        started = wandb.init(
            project=PROJECT, name=run.name, id=run.key, config=run.choices, dir=str(out), reinit="finish_previous",
            mode=os.environ.get("WANDB_MODE") or "offline", settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        steps: dict[int, dict[str, float]] = {}
        for point in run.points:
            steps.setdefault(point.step, {})[point.name] = point.value
        for step, values in sorted(steps.items()):
            started.log(values, step=step)
        started.summary.update({f"result/{n}": v for n, v in run.metrics.items()})
        started.finish(exit_code=0 if run.choices["outcome"] == "ok" else 1)
    return out


KINDS: dict[str, tuple[str, Callable[[Iterable[LoggedRun], Path], Path]]] = {
    "tensorboard": ("tensorboard", to_tensorboard),
    "mlflow": ("mlflow", to_mlflow),
    "wandb": ("wandb", to_wandb),
}
"""Tool to the package that it needs (in the extra of the same name) and its writer."""
