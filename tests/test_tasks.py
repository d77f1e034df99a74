"""The tasks besides s3dis-sem, which the main job covers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.datasets.views import Cloud, load_cloud, load_labels
from benchmarks.metrics.predictions import read
from benchmarks.metrics.scorer import SemanticScorer
from benchmarks.specs import Profile, SemanticRecipe, Task
from benchmarks.transforms import evaluation_voxels, training_sample
from harness.catalog import available, find
from harness.data import prepared_with_manifest
from harness.store import Store
from tests.conftest import NANO, Bench


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
    scorer = SemanticScorer(folder, spec.split.test, spec.recipe.voxel_metres, 20)  # type: ignore[union-attr]
    assert 0 <= scorer.majority_class() < 20 and record["metrics"]["miou_voxel_final"] is not None
    said = bench(*cell, "--method", "supervised", code=2).stderr
    assert "pre-trains on the labels of 'synth-scannet', which task 'scannet-sem' fine-tunes on" in " ".join(
        said.split()
    )


def test_semantickitti_is_fine_tuned_on_remission_and_judged_on_points(bench: Bench, tmp_path: Path) -> None:
    done = json.loads(
        bench("run", "--task", "kitti-sem", *NANO, "--threads", "1", "--method", "scratch", "--json").stdout
    )
    record = done[-1]["record"]
    assert record["outcome"] == "ok" and record["dataset"] == "synth-kitti"
    spec = Store(tmp_path / "runs").spec("finetune", record["key"])
    assert spec.split is not None and spec.data is not None and spec.headline_metric == "miou_point"
    assert spec.split.test and all(s.startswith("08__") for s in spec.split.test)
    assert isinstance(spec.recipe, SemanticRecipe) and spec.recipe.within_metres == 50
    folder, _ = prepared_with_manifest("synth-kitti", spec.data.manifest_sha256)
    cloud, remission = (
        load_cloud(folder, spec.split.test[0]),
        np.load(folder / "unlabelled" / spec.split.test[0] / "remission.npy"),
    )
    assert cloud.rgb.dtype == np.float32 and cloud.rgb.shape == cloud.xyz.shape
    assert np.allclose(cloud.rgb / 255, remission[:, None], atol=1e-6), "the network sees remission - 0.5, three times"
    # Recomputed by hand: every labelled point has the class of its voxel, also beyond 50 m.
    artifacts = Store(tmp_path / "runs").folder("finetune", record["key"]) / "artifacts/predictions/final"
    counts = np.zeros((19, 19), np.int64)
    for scene in spec.split.test:
        xyz = np.asarray(load_cloud(folder, scene).xyz)
        assert np.abs(xyz[:, :2]).max() > 50
        labels = np.asarray(load_labels(folder, scene).semantic)
        cells = np.floor(xyz.astype(np.float64) / spec.recipe.voxel_metres).astype(int)
        voxels = evaluation_voxels(xyz, spec.recipe.voxel_metres)
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
    from benchmarks.suite import Suite

    assert set(find(Suite, "smoke-tasks").tasks) == set(available(Task))
