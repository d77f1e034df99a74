"""All tasks but s3dis-sem, which the main workflow covers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets.views import Cloud, load_cloud, load_labels
from pretrain_bench.benchmarks.input.transforms import evaluation_voxels, training_sample
from pretrain_bench.benchmarks.metrics import predictions
from pretrain_bench.benchmarks.metrics.predictions import read
from pretrain_bench.benchmarks.metrics.scorer import SemanticScorer, metrics_of_counts
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import size_and_sha256
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.prepared_data import DataSources, prepared_with_manifest
from pretrain_bench.harness.running.scoring import scorer_for
from pretrain_bench.harness.store.store import Store
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune import detection, instance, semantic, steps
from pretrain_bench.methods.stage import set_up_torch
from tests.conftest import NANO, Bench, run_here, unboxed


@pytest.mark.slow
def test_scannet_is_fine_tuned_on_its_official_split(bench: Bench, tmp_path) -> None:
    cell = ("run", "--task", "scannet-sem", *NANO, "--threads", "1")
    done = json.loads(bench(*cell, "--method", "scratch", "--json").stdout)
    record = done[-1]["record"]
    assert record["outcome"] == "ok" and record["dataset"] == "synth-scannet"
    spec = Store(tmp_path / "runs").spec("finetune", record["key"])
    assert spec.split is not None and spec.data is not None and len(spec.data.classes) == 20
    assert all(s.startswith("scene01") for s in spec.split.test)
    assert not any(s.startswith("scene01") for s in (*spec.split.train, *spec.split.selection))
    folder, _ = prepared_with_manifest("synth-scannet", spec.data.manifest_sha256)
    scorer = SemanticScorer(folder, spec.split.test, spec.task_recipe.voxel_metres, 20)
    assert 0 <= scorer.majority_class() < 20 and record["metrics"]["miou_voxel_final"] is not None


@pytest.mark.slow
def test_supervised_does_not_pretrain_on_the_labels_of_its_own_task(bench: Bench) -> None:
    cell = ("run", "--task", "scannet-sem", *NANO, "--method", "supervised")
    said = bench(*cell, code=2).stderr
    assert "pre-trains on the labels of 'synth-scannet', which task 'scannet-sem' fine-tunes on" in " ".join(
        said.split()
    )


@pytest.mark.slow
def test_semantickitti_is_fine_tuned_on_remission_and_judged_on_points(bench: Bench, tmp_path: Path) -> None:
    done = json.loads(
        bench("run", "--task", "kitti-sem", *NANO, "--threads", "1", "--method", "scratch", "--json").stdout
    )
    record = done[-1]["record"]
    assert record["outcome"] == "ok" and record["dataset"] == "synth-kitti"
    spec = Store(tmp_path / "runs").spec("finetune", record["key"])
    assert spec.split is not None and spec.data is not None and spec.headline_metric == "miou_point"
    assert spec.split.test and all(s.startswith("08__") for s in spec.split.test)
    assert isinstance(spec.task_recipe, SemanticRecipe) and spec.task_recipe.within_metres == 50
    folder, _ = prepared_with_manifest("synth-kitti", spec.data.manifest_sha256)
    cloud, remission = (
        load_cloud(folder, spec.split.test[0]),
        np.load(folder / "unlabelled" / spec.split.test[0] / "remission.npy"),
    )
    assert cloud.rgb.dtype == np.float32 and cloud.rgb.shape == cloud.xyz.shape
    assert np.allclose(cloud.rgb / 255, remission[:, None], atol=1e-6), "the network sees remission - 0.5, three times"
    # Recomputed by hand: each labelled point is predicted as its voxel, also beyond 50 m.
    artifacts = Store(tmp_path / "runs").folder("finetune", record["key"]) / "artifacts/predictions/final"
    counts = np.zeros((19, 19), np.int64)
    for scene in spec.split.test:
        xyz = np.asarray(load_cloud(folder, scene).xyz)
        assert np.abs(xyz[:, :2]).max() > 50
        labels = np.asarray(load_labels(folder, scene).semantic)
        cells = np.floor(xyz.astype(np.float64) / spec.task_recipe.voxel_metres).astype(int)
        voxels = evaluation_voxels(xyz, spec.task_recipe.voxel_metres)
        assert (voxels.coordinates[voxels.inverse] == cells - cells.min(0)).all(), "each point lies in its voxel"
        predicted = read(artifacts, scene, "semantic", {"V": len(voxels.coordinates)})["classes"]
        known = labels != 255
        np.add.at(counts, (labels[known], predicted[voxels.inverse][known]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    by_hand = float((counts.diagonal()[union > 0] / union[union > 0]).mean())
    assert abs(record["metrics"]["miou_point_final"] - by_hand) < 1e-9
    bench("report", "--runs", "runs", "--out", "out", "--no-page")
    table = (tmp_path / "out/table.md").read_text()
    assert f"{100 * record['metrics']['miou_point_selected']:.1f}" in table
    assert "mIoU on points" in bench("show", record["key"], "--runs", "runs").stdout


def test_training_scans_are_cut_about_the_sensor() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-90, 90, (4000, 3)).astype(np.float32)
    recipe = (
        find(Profile, "headline")
        .tasks["kitti-sem"]
        .model_copy(
            update={
                "rotation_degrees": (0.0, 0.0, 0.0),
                "scale": (1.0, 1.0),
                "flip_probability": 0.0,
                "offset_voxels": 0,
            }
        )
    )
    cloud = Cloud(xyz, np.repeat(np.linspace(0, 255, 4000, dtype=np.float32)[:, None], 3, axis=1))
    sample = training_sample(cloud, np.zeros(4000, np.uint8), recipe, np.random.default_rng(1))
    near = (np.abs(xyz[:, :2]) <= 50).all(axis=1)
    assert len(sample.coordinates) == near.sum() and np.ptp(sample.coordinates[:, 0]) * 0.05 < 100
    assert np.isin(np.round(sample.rgb[:, 0], 3), np.round(cloud.rgb[near][:, 0], 3)).all(), (
        "remission is not augmented"
    )


def test_the_suite_of_all_tasks_names_all_tasks() -> None:
    from pretrain_bench.benchmarks.specs.suite import Suite

    assert set(find(Suite, "smoke-tasks").tasks) == set(available(Task))


KINDS = {
    "s3dis-sem": semantic,
    "s3dis-inst": instance,
    "scannet-inst": instance,
    "scannet-det": detection,
    "sunrgbd-det": detection,
}


QUICK = ("s3dis-inst", "sunrgbd-det")
"""A task of each kind but segmentation, which the main job covers; the others are of the slow tests."""


def nano_runs(folder: Path, tasks: Sequence[str]) -> Path:
    """A nano run of each task from scratch, in one store."""
    for task in tasks:
        done = run_here(["run", "--method", "scratch", "--task", task, *NANO, "--threads", "1"], folder)
        assert done.returncode == 0, done.stderr
    return folder / "runs"


def run_of(store: Path, task: str) -> tuple[Path, StageSpec]:
    for path in (store / "finetune").glob("*/spec.json"):
        spec = StageSpec.model_validate_json(path.read_bytes())
        if spec.task == task:
            return path.parent, spec
    raise AssertionError(task)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "tasks",
    [pytest.param(QUICK, id="instances and boxes"), pytest.param(tuple(KINDS), id="all", marks=pytest.mark.slow)],
)
def test_tasks_are_trained_scored_drawn_and_reported(
    tasks: Sequence[str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of each task in one store; each function below checks one aspect."""
    store = nano_runs(tmp_path, tasks)
    for task in tasks:
        the_number_that_counts_is_computed_from_what_was_saved(task, store)
        with monkeypatch.context() as patch:
            training_reads_the_labels_of_training_scenes_alone(task, store, tmp_path / task, patch)
        predictions_of_another_task_are_refused(task, store)
        a_scene_is_drawn(task, store, bench, tmp_path)
        a_task_has_a_cost_before_it_ran(task, store)
    all_kinds_are_shown_audited_and_reported(tasks, store, bench, tmp_path)


def the_number_that_counts_is_computed_from_what_was_saved(task: str, store: Path) -> None:
    folder, spec = run_of(store, task)
    record = json.loads((folder / "record.json").read_text())
    assert record["outcome"] == "ok" and spec.data is not None and spec.split is not None
    data, _ = prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)
    scorer = scorer_for(spec, data)
    said = {s: scorer.read(folder / "artifacts/predictions/final", s) for s in spec.split.test}
    own = scorer.score(said)
    assert own and all(record["metrics"][f"{name}_final"] == value for name, value in own.items())
    assert spec.headline_metric in own
    constant = scorer.score({s: scorer.constant(s) for s in spec.split.test})
    assert constant.keys() == own.keys() and (constant[spec.headline_metric] or 0) < 1
    counts = {s: scorer.counts(s, p) for s, p in said.items()}
    assert metrics_of_counts(list(json.loads(json.dumps(counts)).values())) == own, "counts say all, also as JSON"
    with pytest.raises(ValueError, match="no prediction for scene"):
        scorer.score({})


def training_reads_the_labels_of_training_scenes_alone(
    task: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spec = run_of(store, task)
    assert spec.data is not None and spec.split is not None
    data, _ = prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)
    for name in ("in", "data", "parents"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root/in/stage.json").write_text(spec.model_dump_json())
    (tmp_path / "root/data" / spec.data.dataset).symlink_to(data)
    ((stage, key),) = spec.parents.items()
    (tmp_path / "root/parents" / stage).symlink_to(store / "pretrain" / key / "artifacts")
    read: set[str] = set()

    def watched(original):
        return lambda view, scene, *more: read.add(scene) or original(view, scene, *more)

    monkeypatch.setattr(steps, "load_labels", watched(steps.load_labels))
    for name in ("load_labels", "load_boxes"):
        monkeypatch.setattr(detection, name, watched(getattr(detection, name)))
    before, threads = json.loads((folder / "record.json").read_text())["stage_metrics"], torch.get_num_threads()
    set_up_torch(spec)
    try:
        assert KINDS[task].run(StageContext.open(tmp_path / "root")) == before, "the same numbers in another process"
    finally:
        torch.set_num_threads(threads)
    assert read == set(spec.split.train)
    public = [n for n in vars(scorer_for(spec, data)) if not n.startswith("_")]
    assert set(public) <= {"classes", "counted", "least_voxels"}, "a scorer shows nothing of the labels"


def predictions_of_another_task_are_refused(task: str, store: Path) -> None:
    _, spec = run_of(store, task)
    assert spec.data is not None and spec.split is not None
    scorer = scorer_for(spec, prepared_with_manifest(spec.data.dataset, spec.data.manifest_sha256)[0])
    for other in QUICK:
        foreign, theirs = run_of(store, other)
        if theirs.task_kind == spec.task_kind:
            continue
        assert theirs.split is not None
        path = foreign / "artifacts/predictions/final"
        with pytest.raises(DataError, match=rf"predictions of kind {spec.task_kind} hold"):
            predictions.read(path, theirs.split.test[0], spec.task_kind, {"V": 10**6, "C": 30})
    with pytest.raises(DataError, match="no predictions for scene"):
        scorer.read(store, spec.split.test[0])


def a_scene_is_drawn(task: str, store: Path, bench: Bench, tmp_path: Path) -> None:
    from PIL import Image
    from plyfile import PlyData

    folder, spec = run_of(store, task)
    assert spec.split is not None
    scene = spec.split.test[0]
    assert scene in bench("show", folder.name, "--runs", str(store), "--scene", "list").stdout.split()
    made = json.loads(bench("show", folder.name, "--runs", str(store), "--scene", scene, "--out", "p", "--json").stdout)
    with Image.open(tmp_path / made[0]) as picture:
        assert picture.width == 960 and len(set(picture.convert("RGB").getdata())) > 30
    vertices = PlyData.read(str(tmp_path / made[1]))["vertex"]
    assert len(vertices) > 50 and {"red", "green", "blue", "prediction"} <= set(vertices.data.dtype.names)
    said = bench("show", folder.name, "--runs", str(store), "--scene", "nowhere", code=2).stderr
    assert "list all with --scene list" in said
    assert "not a test scene of this run" in said
    said = bench("show", folder.name, "--runs", str(store), "--scene", scene, "--checkpoint", "last", code=2).stderr
    assert "'last' is not one of 'final', 'selected', 'best'" in unboxed(said)


def all_kinds_are_shown_audited_and_reported(tasks: Sequence[str], store: Path, bench: Bench, tmp_path: Path) -> None:
    for task, words in (("s3dis-inst", "AP50 of instances"), ("sunrgbd-det", "mAP50 of boxes")):
        assert words in bench("show", run_of(store, task)[0].name, "--runs", str(store)).stdout
    assert "ap50" in bench("show", "--runs", str(store)).stdout
    bench("audit", "--runs", str(store))
    bench("audit", "--runs", str(store), "--bundle", "b.tar.zst")
    assert "metrics recomputed from counts" in bench("audit", "b.tar.zst").stdout
    bench("report", "--runs", str(store), "--out", "out")
    table = (tmp_path / "out/table.md").read_text()
    assert all(task in table for task in tasks)


@pytest.mark.parametrize(
    ("task", "ratio", "words"),
    [
        ("s3dis-inst", "2boxes", "has no boxes; give per cent or points"),
        ("scannet-det", "20points", "the labels of task 'scannet-det' are boxes"),
    ],
)
def test_few_labels_of_the_wrong_kind_are_refused(task: str, ratio: str, words: str, bench: Bench) -> None:
    said = bench("run", "--method", "scratch", "--task", task, "--label-ratio", ratio, *NANO, code=2).stderr
    assert words in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "ratio"),
    [("s3dis-inst", "20points"), ("sunrgbd-det", "1box"), ("scannet-det", "2boxes")],
)
def test_few_labels_of_a_scene(task: str, ratio: str, bench: Bench) -> None:
    command = ("run", "--method", "scratch", "--task", task, "--label-ratio", ratio, *NANO, "--threads", "1", "--json")
    record = json.loads(bench(*command).stdout)[-1]["record"]
    assert record["outcome"] == "ok"
    # 4 steps of 2 scenes; counts labelled voxels, or boxes
    assert 0 < record["ledger"]["labels"] <= 8 * int("".join(c for c in ratio if c.isdigit()))


@pytest.mark.slow
def test_listed_points_and_boxes_train_and_evaluation_keeps_all_labels(bench: Bench, tmp_path: Path) -> None:
    """Uses files in the format of the ScanNet benchmark, for the rooms of the procedural world."""
    world = DataSources(world="nano").prepare("synth-scannet").manifest
    rooms = [s for s in world.scenes if not s.name.startswith("scene01")]
    torch.save({s.name: np.arange(20) * (s.points // 20) for s in rooms}, tmp_path / "points20")
    torch.save({s.name: (np.arange(2), np.arange(2)) for s in rooms}, tmp_path / "boxes2")
    command = ("run", "--method", "scratch", *NANO, "--threads", "1", "--json")

    def run(task: str, *labels: str) -> dict:
        record = json.loads(bench(*command, "--task", task, *labels).stdout)[-1]["record"]
        assert record["outcome"] == "ok" and record["contamination"]["flag"] == "none"
        return record

    few = run("scannet-sem", "--label-ratio", "la20", "--label-split", "la20=points20")
    sha256 = size_and_sha256(tmp_path / "points20")[1]
    assert few["cell"]["label_ratio"] == {**PLAIN, "points": 20, "official": "scannet-la20", "sha256": sha256}
    assert 0 < few["ledger"]["labels"] <= 8 * 20
    counted = [
        np.sum(json.loads((tmp_path / f"runs/finetune/{key}/confusion.json").read_text())["final"]["voxel"])
        for key in (few["key"], run("scannet-sem")["key"])
    ]
    assert counted[0] == counted[1] > 1000, "all labels of the test scenes count"
    boxes = run("scannet-det", "--label-ratio", "lb2", "--label-split", "lb2=boxes2")
    assert 0 < boxes["ledger"]["labels"] <= 8 * 2


PLAIN = {"percent": 100.0, "points": None, "boxes": None}


def a_task_has_a_cost_before_it_ran(task: str, store: Path) -> None:
    from pretrain_bench.harness.planning.estimate import rough_flops

    spec = run_of(store, task)[1]
    assert rough_flops(SimpleNamespace(spec=spec, recipe=spec.task_recipe)) > 0  # type: ignore[arg-type]
