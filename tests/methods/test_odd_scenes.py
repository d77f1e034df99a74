"""Fine-tuning on degenerate scenes: empty, one point, one class, no objects, no labels; and stopped runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.layout import Manifest
from pretrain_bench.benchmarks.datasets.splits import Split
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.harness.running.scoring import score_finetune
from pretrain_bench.methods.context import CANCEL, StageContext
from pretrain_bench.methods.finetune import core, detection, instance, semantic, steps
from pretrain_bench.methods.scratch import init
from pretrain_bench.methods.training.loop import Cancelled
from tests.methods.stages import SPECS
from tests.tiny_data import files_of_tasks

TASKS = {"scannet-sem": semantic, "scannet-inst": instance, "scannet-det": detection}
KEEPS = {"clip_metres": None, "dropout_probability": 0.0}


class Scene(NamedTuple):
    """Points, class ids, instance ids and boxes."""

    xyz: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    boxes: np.ndarray


def room(seed: int = 0, points: int = 900) -> Scene:
    """A floor (class 1) with two chairs (class 4, boxes of class 2)."""
    rng = np.random.default_rng(seed)
    floor = rng.uniform(0, 3, (points, 3)) * [1, 1, 0]
    chairs = [rng.uniform(0, 0.6, (points // 3, 3)) + np.array([0.4 + 1.5 * i, 0.5 + i, 0]) for i in range(2)]
    xyz = np.concatenate([floor, *chairs])
    instance = np.repeat([0, 1, 2], [points, points // 3, points // 3])
    extents = [(c.min(0), c.max(0)) for c in chairs]
    boxes = [[*((low + high) / 2), *(high - low), 0, 2] for low, high in extents]
    return Scene(xyz, np.where(instance > 0, 4, 1), instance, np.array(boxes))


def odd_scenes() -> dict[str, Scene]:
    usual, nothing = room(), np.zeros((0, 8))
    return {
        "empty": Scene(np.zeros((0, 3)), np.zeros(0), np.zeros(0), nothing),
        "one-point": Scene(np.ones((1, 3)), np.array([4]), np.array([1]), nothing),
        "one-class": usual._replace(semantic=np.full(len(usual.xyz), 4)),
        "no-objects": usual._replace(
            semantic=np.ones(len(usual.xyz)), instance=np.zeros(len(usual.xyz)), boxes=nothing
        ),
        "not-labelled": usual._replace(semantic=np.full(len(usual.xyz), 255), boxes=nothing),
    }


def write_view(folder: Path, scenes: dict[str, Scene]) -> None:
    rng = np.random.default_rng(5)
    for name, scene in scenes.items():
        for view, arrays in {
            "unlabelled": {
                "xyz": scene.xyz.astype(np.float32),
                "rgb": rng.integers(0, 256, scene.xyz.shape).astype(np.uint8),
            },
            "labelled": {
                "semantic": scene.semantic.astype(np.uint8),
                "instance": scene.instance.astype(np.int32),
                "boxes": scene.boxes.astype(np.float32),
                "alignment": np.eye(4),
            },
        }.items():
            (folder / view / name).mkdir(parents=True)
            for field, array in arrays.items():
                np.save(folder / view / name / f"{field}.npy", array)


def open_task(
    task: str, folder: Path, scenes: dict[str, Scene], train: tuple[str, ...], test: tuple[str, ...], **recipe: Any
) -> tuple[PlannedStage, StageContext]:
    """A nano fine-tuning from scratch on these scenes."""
    data = folder / "data"
    if not data.is_dir():
        write_view(data, scenes)
    entries = [{"name": n} for n in ("scene0000_00", "scene0001_00", "scene0100_00")]
    files = files_of_tasks(entry["name"] for entry in entries)
    manifest = Manifest.model_validate(
        {"dataset": "synth-scannet", "synthetic": True, "scenes": entries, "files": files}
    )
    source = PreparedDataset(find(Dataset, "synth-scannet").sized("smoke"), data, manifest)
    budget, profile = find(Budget, str(SPECS / "nano-budget.yaml")), find(Profile, str(SPECS / "nano-profile.yaml"))
    specs = CellSpecs(find(Method, "scratch"), find(Task, task), budget, profile)
    cell = Cell(method="scratch", pretrain_dataset="none", task=task, budget="nano", profile="nano")
    first, last = stages_of(cell, specs, {specs.task.dataset: source}, Machine(1, "torch", "cpu"))
    weights = folder / "init"
    if not weights.is_dir():
        lay_out(weights, first, {}, None)
        init.run(StageContext.open(weights))
    split = Split(version=1, train=train, selection=(), test=test, sha256="0" * 64)
    changed = {**(last.spec.recipe or {}), **recipe}
    planned = last._replace(spec=last.spec.model_copy(update={"split": split, "recipe": changed}))
    root = folder / f"root-{len(list(folder.iterdir()))}"
    lay_out(root, planned, {first.spec.stage: weights / "out/artifacts"}, None)
    return planned, StageContext.open(root)


def combinations(names: Sequence[str], fast: Mapping[str, str]) -> list[Any]:
    """(name, task) pairs: in the fast set each name once, with the task for which it is degenerate, in the slow set all others."""
    return [
        pytest.param(name, task, marks=() if fast[name] == task else pytest.mark.slow)
        for name in names
        for task in TASKS
    ]


ODD_FOR = {
    "empty": "scannet-inst", "one-point": "scannet-det", "one-class": "scannet-sem", "no-objects": "scannet-det",
    "not-labelled": "scannet-inst",
}  # fmt: skip


@pytest.mark.parametrize(("name", "task"), combinations(list(odd_scenes()), ODD_FOR))
def test_odd_test_scenes_are_predicted_and_scored(task: str, name: str, tmp_path: Path) -> None:
    scenes = {"usual": room(), **odd_scenes()}
    planned, context = open_task(task, tmp_path, scenes, ("usual",), (name,))
    metrics = TASKS[task].run(context)
    assert planned.data is not None
    scored = score_finetune(planned.spec, context.artifacts, planned.data.folder).metrics
    assert {n: metrics[n] for n in scored} == scored
    if name in ("empty", "not-labelled"):
        assert scored[f"{planned.spec.headline_metric}_final"] is None, "nothing there: not defined, which is not zero"


@pytest.mark.parametrize(
    ("name", "task"),
    combinations(
        ["one-class", "no-objects", "not-labelled"],
        {**ODD_FOR, "not-labelled": "scannet-sem", "one-class": "scannet-inst"},
    ),
)
def test_odd_training_scenes_are_learnt_from(task: str, name: str, tmp_path: Path) -> None:
    _, context = open_task(task, tmp_path, {"usual": room(), **odd_scenes()}, (name,), ("usual",))
    metrics = TASKS[task].run(context)
    assert metrics["steps"] == 4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["empty", "one-point"])
def test_useless_training_scenes_are_refused_with_a_message(task: str, name: str, tmp_path: Path) -> None:
    """Next to other scenes they are tolerated; alone, batch norm has nothing to normalise."""
    scenes = {"usual": room(), **odd_scenes()}
    _, context = open_task(task, tmp_path, scenes, (name,), ("usual",))
    with pytest.raises(DataError, match="20 training scenes in a row have fewer than two voxels"):
        TASKS[task].run(context)


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        pytest.param("scannet-sem", {}, marks=pytest.mark.slow),
        pytest.param("scannet-det", {}, marks=pytest.mark.slow),
        pytest.param("scannet-inst", {}, marks=pytest.mark.slow),
        ("scannet-inst", {"method": "pointgroup"}),
    ],
)
@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_stopped_fine_tuning_resumes_to_the_same_bits(
    stop_at: int, task: str, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = {"usual": room(), "other": room(1), "third": room(2)}
    made = []
    for stop in (None, stop_at):
        _, context = open_task(task, tmp_path, scenes, ("usual", "other"), ("third",), **recipe)
        if stop is not None:
            real = core.train

            def stopping(context: StageContext, training: Any, real: Any = real, stop: int = stop) -> Any:
                def run_step(number: int, batch: Any) -> Any:
                    context.stop = CANCEL if number == stop else None
                    return training.run_step(number, batch)

                return real(context, training._replace(run_step=run_step))

            monkeypatch.setattr(core, "train", stopping)
            with pytest.raises(Cancelled):
                TASKS[task].run(context)
            monkeypatch.setattr(core, "train", real)
            context = StageContext.open(context.root)
        metrics = TASKS[task].run(context)
        files = sorted((context.artifacts / "predictions").rglob("*.npz"))
        arrays = [dict(np.load(f)) for f in files]
        state = torch.load(context.out / "checkpoint.pt", weights_only=True)["modules"]["network"]
        made.append((metrics, arrays, state))
    for metrics, arrays, state in made[1:]:
        assert metrics == made[0][0]
        assert all(torch.equal(state[n], made[0][2][n]) for n in state)
        for one, two in zip(arrays, made[0][1], strict=True):
            assert all(np.array_equal(one[n], two[n]) for n in one)


@pytest.mark.parametrize("task", ["scannet-sem", "scannet-inst"])
def test_a_scene_too_large_for_one_pass_is_named(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_VOXELS", 50)
    _, context = open_task(task, tmp_path, {"usual": room()}, ("usual",), ("usual",))
    with pytest.raises(DataError, match=r"scene usual: \d+ voxels of 0.2 m exceed the 50 .* larger voxel_metres"):
        TASKS[task].run(context)
