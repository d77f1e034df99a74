"""Stages of real methods on very small procedural data, for tests."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.procedural.write import generate
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.recipes import stage_recipe
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage, pretrain_stages
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.methods.context import CANCEL, StageContext
from pretrain_bench.methods.stage import module_of, set_up_torch
from pretrain_bench.methods.training.loop import Cancelled, Training, train_and_save

SPECS = Path(__file__).parent.parent / "specs"
METHODS = ("ours", "pointcontrast", "csc", "depthcontrast", "msc", "supervised")


def small_recordings(cache: Path) -> PreparedDataset:
    """Three rooms with frames, clouds and labels, and one test room."""
    shipped = find(Dataset, "synth-scannet").sized("smoke")
    size = {"train_rooms": 3, "test_rooms": 1, "frames_per_room": 4, "width": 64, "height": 48,
            "points_per_square_metre": 60}  # fmt: skip
    dataset = shipped.model_copy(update={"world": {**(shipped.world or {}), **size}})
    return prepared(dataset, generate(dataset, cache, lambda names: names), cache)


SMALL_SCANS = {
    "synth-sunrgbd": {"train_views": 3, "test_views": 1},
    "synth-kitti": {"streets": 1, "train_scans": 3, "test_scans": 1},
}


def small_scans(name: str, cache: Path) -> PreparedDataset:
    """Three training scans and a test scan of `synth-sunrgbd` or `synth-kitti`, each with its image."""
    nano = find(Dataset, name).sized("nano")
    dataset = nano.model_copy(update={"world": {**(nano.world or {}), **SMALL_SCANS[name]}})
    return prepared(dataset, generate(dataset, cache, lambda names: names), cache)


def prepared(dataset: Dataset, root: Path, cache: Path, frame_stride: int = 1) -> PreparedDataset:
    """Prepare a dataset from its official layout."""
    folder = prepare(dataset, root, cache, frame_stride=frame_stride, strict=False, progress=lambda items: items)
    return PreparedDataset(dataset, folder, read_manifest(folder))


def nano_stages(method: str, source: PreparedDataset, /, seed: int = 0, **recipe: Any) -> list[PlannedStage]:
    """The pre-training stages of a method at nano size; `recipe` changes fields of the last stage's recipe."""
    budget, profile = find(Budget, str(SPECS / "nano-budget.yaml")), find(Profile, str(SPECS / "nano-profile.yaml"))
    specs = CellSpecs(find(Method, method), find(Task, "s3dis-sem"), budget, profile)
    planned = pretrain_stages(specs, source, seed, Machine(1, "torch", "cpu"))
    if recipe:
        last = planned[-1].spec
        changed = last.model_copy(update={"recipe": {**(last.recipe or {}), **recipe}})
        planned[-1] = planned[-1]._replace(spec=changed)
    return planned


def recipe_in(profile: str, method: str, stage: str) -> Any:
    """The recipe of a stage under a built-in profile."""
    known = find(Method, method)
    return stage_recipe(known, next(s for s in known.stages if s.name == stage), find(Profile, profile))


def open_stage(planned: PlannedStage, root: Path, parents: dict[str, Path]) -> StageContext:
    """Lay out the folders of a stage under `root`, as an executor does, and open them."""
    lay_out(root, planned, parents, None)
    return StageContext.open(root)


def training_of(context: StageContext) -> Training:
    set_up_torch(context.spec)
    module: Any = importlib.import_module(module_of(context.spec))
    return module.prepare(context)


def run_all(planned: list[PlannedStage], root: Path, stop_at: int | None = None) -> Path:
    """Run the stages of a method, and return the artifacts of the last. With `stop_at`, each stage is cancelled there and resumed."""
    parents: dict[str, Path] = {}
    for stage in planned:
        folder = root / stage.spec.stage
        if stop_at is not None:
            context = open_stage(stage, folder, parents)
            with pytest.raises(Cancelled):
                train_and_save(context, stopping(training_of(context), context, stop_at))
        context = open_stage(stage, folder, parents)
        train_and_save(context, training_of(context))
        parents[stage.spec.stage] = context.artifacts
    return context.artifacts


def stopping(training: Training, context: StageContext, step: int) -> Training:
    def run_step(number: int, batch: Any) -> Any:
        if number == step:
            context.stop = CANCEL
        return training.run_step(number, batch)

    return training._replace(run_step=run_step)
