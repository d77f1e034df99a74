"""`make verify-tasks`: every kind of task overfits one procedural scene, and every task at `tiny` beats a constant prediction.

Runs the real stages from scratch: about 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain_bench.benchmarks.datasets.views import load_boxes, load_cloud
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import task_recipe
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.files import cache_folder
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.harness.running.scoring import scorer_for
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune import detection, instance, semantic
from pretrain_bench.methods.scratch import init
from pretrain_bench.methods.stage import set_up_torch
from tests.verification.report import write_report

BUDGET = "tiny"
ONE_THREAD = Machine(1, "torch", "cpu")
RUN = {"semantic": semantic.run, "instance": instance.run, "detection": detection.run}
STILL: dict[str, Any] = {
    "rotation_degrees": (0.0, 0.0, 0.0), "scale": (1.0, 1.0), "dropout_probability": 0.0, "flip_probability": 0.0,
    "contrast_probability": 0.0, "translation_ratio": 0.0, "jitter_std": 0.0, "offset_voxels": 0, "elastic": (),
    "clip_metres": None, "max_voxels_per_scene": None, "batch": 1, "micro_batch": 1,
}  # fmt: skip
"""Recipe changes that switch off augmentation of the scene."""


LEAST_BOXES = 3


class Overfit(NamedTuple):
    """One scene to overfit: the task, changes to its tiny recipe, and lower bounds on metrics."""

    task: str
    changes: dict[str, Any]
    most_voxels: int
    least: dict[str, float]


OVERFITS = (
    Overfit("s3dis-sem", {**STILL, "steps": 300}, 5000, {"miou_voxel": 0.95}),
    Overfit("s3dis-inst", {**STILL, "steps": 300}, 5000, {"ap50": 0.9}),
    Overfit(
        "sunrgbd-det",
        {
            "steps": 1500, "batch": 1, "micro_batch": 1, "flip_x_probability": 0.0, "flip_y_probability": 0.0,
            "rotation_degrees": 0.0, "scale": (1.0, 1.0), "points": 20_000,
            "seeds": 512, "proposals": 128,
        },
        8000,
        {"map25": 0.9, "map50": 0.7},
    ),
)  # fmt: skip


def stages(
    task: str, source: PreparedDataset, size: str = BUDGET, machine: Machine = ONE_THREAD
) -> tuple[PlannedStage, PlannedStage]:
    """Both stages of `bench run --method scratch --task TASK --budget SIZE`, by default with one thread."""
    budget = find(Budget, size)
    specs = CellSpecs(find(Method, "scratch"), find(Task, task), budget, find(Profile, budget.default_profile or size))
    cell = Cell(method="scratch", pretrain_dataset="none", task=task, budget=size, profile=specs.profile.name)
    first, last = stages_of(cell, specs, {specs.task.dataset: source}, machine)
    return first, last


def data_of(task: str, size: str = BUDGET) -> PreparedDataset:
    """The synthetic stand-in of a task's dataset, at the size of the budget's profile."""
    budget = find(Budget, size)
    profile = find(Profile, budget.default_profile or size)
    name = find(Dataset, find(Task, task).dataset).stand_in
    assert name is not None
    return DataSources(frame_stride=profile.frame_stride, world=profile.world).prepare(name, strict=True, say=print)


def scene_to_overfit(source: PreparedDataset, scenes: tuple[str, ...], most_voxels: int) -> tuple[str, float]:
    """The scene with the fewest points, or the first with at least three boxes, and the smallest voxel size that fits."""

    def voxels(scene: str, size: float) -> int:
        return len(quantise(to_cells(np.asarray(load_cloud(source.folder, scene).xyz), size)).coordinates)

    if "labels" not in source.dataset.provides:
        scene = next(s for s in scenes if len(load_boxes(source.folder, s)) >= LEAST_BOXES)
    else:
        scene = min(scenes, key=lambda s: len(load_cloud(source.folder, s).xyz))
    return scene, next(size for size in (0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2) if voxels(scene, size) <= most_voxels)


def make_weights(first: PlannedStage, root: Path) -> Path:
    """Run the stage that draws the initial weights in `root`; returns its artifacts."""
    lay_out(root, first, {}, None)
    set_up_torch(first.spec)
    init.run(StageContext.open(root))
    return root / "out/artifacts"


def run_stages(first: PlannedStage, last: PlannedStage) -> dict[str, float]:
    """Draw the weights and fine-tune them. Returns the stage's own metrics (undefined ones as 0) and `cpu_seconds`."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lay_out(root / "task", last, {first.spec.stage: make_weights(first, root / "init")}, None)
        set_up_torch(last.spec)
        metrics = RUN[last.spec.task_kind](StageContext.open(root / "task"))
    return {n: v or 0.0 for n, v in metrics.items()} | {"cpu_seconds": round(time.process_time() - began, 1)}


def overfit(what: Overfit) -> dict[str, float]:
    """Train on one scene, and score the same scene."""
    source = data_of(what.task)
    first, last = stages(what.task, source)
    assert last.spec.split is not None
    scene, size = scene_to_overfit(source, last.spec.split.train, what.most_voxels)
    changes = {**what.changes, "voxel_metres": size, "validate_every": what.changes["steps"]}
    recipe = task_recipe({**(last.spec.recipe or {}), **changes})
    limits = last.spec.limits.model_copy(update={"amount": float(recipe.steps), "loader_workers": 0})
    split = last.spec.split.model_copy(update={"train": (scene,), "selection": (), "test": (scene,)})
    spec = last.spec.model_copy(update={"recipe": recipe.model_dump(mode="json"), "limits": limits, "split": split})
    metrics = run_stages(first, last._replace(spec=spec))
    voxels = len(quantise(to_cells(np.asarray(load_cloud(source.folder, scene).xyz), size)).coordinates)
    found = {name: metrics[f"{name}_final"] for name in what.least}
    return {
        **found,
        "steps": metrics["steps"],
        "voxels": float(voxels),
        "voxel_metres": size,
        "cpu_seconds": metrics["cpu_seconds"],
    }


def against_constant(task: str) -> dict[str, float]:
    """Test score of the final weights of a `tiny` run from scratch, and of a constant prediction."""
    source = data_of(task)
    first, last = stages(task, source)
    metrics = run_stages(first, last)
    assert last.spec.split is not None
    scorer, name = scorer_for(last.spec, source.folder), last.spec.headline_metric
    constant = scorer.score({s: scorer.constant(s) for s in last.spec.split.test})
    found = {f"final {name}": metrics[f"{name}_final"], f"constant {name}": constant[name] or 0.0}
    if last.spec.task_kind == "detection":
        found |= {"final map25": metrics["map25_final"], "constant map25": constant["map25"] or 0.0}
    return {**found, "cpu_seconds": metrics["cpu_seconds"]}


def measure(job: tuple[str, str]) -> dict[str, float]:
    """One job: ("overfit" or "tiny", task). Measurements with equal code, data and settings are reused."""
    part, task = job
    what = next((w for w in OVERFITS if part == "overfit" and w.task == task), None)
    specs = [planned.spec.model_dump(mode="json") for planned in stages(task, data_of(task))]
    known = hashlib.sha256(json.dumps([what, specs], sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder() / "verify-tasks" / f"{part}-{task}-{known}.json"
    if not path.is_file():
        found = overfit(what) if what else against_constant(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def misses(results: dict[str, Any]) -> list[str]:
    """Missed bounds, as messages."""
    found = []
    for what in OVERFITS:
        for name, least in what.least.items():
            value = results["overfit"][what.task][name]
            if not value >= least:
                found.append(f"overfit {what.task}: {name} {value:.3f}, must be {least}")
    for task, scores in results["tiny"].items():
        for name in [n.removeprefix("final ") for n in scores if n.startswith("final ")]:
            if not scores[f"final {name}"] > scores[f"constant {name}"]:
                found.append(
                    f"tiny {task}: {name} {scores[f'final {name}']:.3f}, a constant predictor has {scores[f'constant {name}']:.3f}"
                )
    return found


def main() -> None:
    """Overfit, compare, and write docs/verification/tasks.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="tasks to look at, without a report")
    parser.add_argument("--part", choices=("overfit", "tiny", "both"), default="both")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    options = parser.parse_args()
    tasks = options.only or sorted(available(Task))
    jobs = [("overfit", what.task) for what in OVERFITS if what.task in tasks and options.part != "tiny"]
    jobs += [("tiny", task) for task in tasks if options.part != "overfit"]
    for name in dict.fromkeys(task for _, task in jobs):
        data_of(name)  # prepared once, on all cores
    results: dict[str, dict[str, Any]] = {"overfit": {}, "tiny": {}}
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for (part, task), found in zip(jobs, pool.map(measure, jobs), strict=True):
            results[part][task] = found
            print(part, task, json.dumps(found), flush=True)
    if options.only or options.part != "both":
        return
    short = misses(results)
    what_it_is = (
        "one scene overfitted by each kind of task, and every task from scratch at tiny against a constant predictor"
    )
    write_report("tasks", what_it_is, "failed" if short else "ok", results=results, misses=short)
    raise SystemExit(1 if short else 0)


if __name__ == "__main__":
    main()
