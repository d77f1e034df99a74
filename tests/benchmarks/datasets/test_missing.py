"""Missing is not empty: a missing file is reported as a problem, and its scene is left out of uses that need the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pretrain_bench as pb
from pretrain_bench.benchmarks.datasets.holdings import scenes_for_task
from pretrain_bench.benchmarks.metrics.scorer import DetectionScorer
from pretrain_bench.benchmarks.support.errors import DataError
from tests.tiny_data import TEST, TRAIN, prepared, write_kitti, write_scannet

MESH, SEGMENTS = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json"


@pytest.mark.parametrize("suffix", [".aggregation.json", SEGMENTS])
def test_a_mesh_without_annotation_is_no_mesh_without_objects(suffix: str, tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s")
    (root / "scans" / TEST[1] / f"{TEST[1]}{suffix}").unlink()
    data = prepared("scannet", root, tmp_path)
    (problem,) = data.manifest.problems
    assert problem.startswith(f"scans/{TEST[1]}/{TEST[1]}{suffix}: no such file; scene {TEST[1]} has no labels")
    for kind in ("semantic", "instance", "detection"):
        assert scenes_for_task(data.manifest, data.scenes, kind) == (*TRAIN, TEST[0])
    assert not list((data.folder / "labelled").glob(f"{TEST[1]}/*")), "nothing that could be read as labels"
    with pytest.raises(DataError, match=f"{TEST[1]}{suffix}: no such file"):
        prepared("scannet", root, tmp_path, strict=True)


def test_a_scene_of_no_official_list_needs_no_labels(tmp_path: Path) -> None:
    """ScanNet's hidden test scenes have no annotation and no alignment."""
    hidden = "scene0707_00"
    root = write_scannet(tmp_path / "s", (TRAIN[0], TEST[0], hidden))
    for name in (f"{hidden}.aggregation.json", f"{hidden}{SEGMENTS}", f"{hidden}.txt"):
        (root / "scans" / hidden / name).unlink()
    data = prepared("scannet", root, tmp_path, strict=True)
    assert data.manifest.problems == ()
    assert hidden in data.scenes and scenes_for_task(data.manifest, data.scenes, "semantic") == (TRAIN[0], TEST[0])


def test_perfect_boxes_score_1_whatever_else_is_not_annotated(tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s")
    (root / "scans" / TEST[1] / f"{TEST[1]}.aggregation.json").unlink()
    data = prepared("scannet", root, tmp_path)
    scored = [s for s in scenes_for_task(data.manifest, data.scenes, "detection") if s in TEST]
    boxes = np.load(data.folder / "labelled" / TEST[0] / "boxes.npy")
    perfect = {
        "boxes": boxes[:, :7],
        "objectness": np.full(len(boxes), 0.8, np.float32),
        "probabilities": np.eye(18, dtype=np.float32)[boxes[:, 7].astype(int)],
    }
    metrics = DetectionScorer(data.folder, scored, 18).score(dict.fromkeys(scored, perfect))
    assert scored == [TEST[0]] and metrics["map50"] == 1.0


@pytest.mark.parametrize("how", ["file", "line"])
def test_a_scene_without_its_alignment_has_no_boxes(how: str, tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s")
    path = root / "scans" / TEST[1] / f"{TEST[1]}.txt"
    path.unlink() if how == "file" else path.write_text("numDepthFrames = 3\n")
    data = prepared("scannet", root, tmp_path)
    assert data.manifest.problems == (
        f"scans/{TEST[1]}/{TEST[1]}.txt: no such file, or no line axisAlignment in it; scene {TEST[1]} is left out of detection",
    )
    assert TEST[1] not in scenes_for_task(data.manifest, data.scenes, "detection")
    assert TEST[1] in scenes_for_task(data.manifest, data.scenes, "semantic")
    aligned = np.load(data.folder / "labelled" / TEST[0] / "boxes.npy")
    assert np.allclose(np.sort(aligned[0, 3:6]), [1, 1, 2], atol=0.1), "the bed's size along its own axes"
    with pytest.raises(DataError, match="no line axisAlignment in it$"):
        prepared("scannet", root, tmp_path, strict=True)


def test_a_task_without_any_scene_that_it_needs_is_refused(tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", TRAIN)
    for scene in TRAIN:
        (root / "scans" / scene / f"{scene}.txt").unlink()
    data = prepared("scannet", root, tmp_path)
    with pytest.raises(
        DataError,
        match="none of the 2 scenes has the files that tasks of kind 'detection' need: points with annotated boxes",
    ):
        scenes_for_task(data.manifest, data.scenes, "detection")


def test_a_scan_without_labels_is_named_at_preparation(tmp_path: Path) -> None:
    root = write_kitti(tmp_path / "k", ("00/000000", "00/000001", "08/000000", "11/000000"))
    labels = root / "dataset/sequences"
    (labels / "00/labels/000001.label").unlink()
    (labels / "11/labels/000000.label").unlink()  # a sequence without public labels
    data = prepared("semantickitti", root, tmp_path)
    assert data.manifest.problems == (
        "dataset/sequences/00/labels/000001.label: no such file; the scan is left out of tasks",
    )
    assert scenes_for_task(data.manifest, data.scenes, "semantic") == ("00__000000", "08__000000")
    with pytest.raises(DataError, match="000001.label: no such file"):
        prepared("semantickitti", root, tmp_path, strict=True)
    for path in labels.glob("*/labels/*"):
        path.unlink()
    assert prepared("semantickitti", root, tmp_path).manifest.problems == (), "scans alone are to pre-train on"


def test_a_scene_without_mesh_is_named_at_preparation(tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", (TRAIN[0], TEST[0]), frames=True)
    (root / "scans" / TRAIN[0] / f"{TRAIN[0]}{MESH}").unlink()
    data = prepared("scannet", root, tmp_path)
    path = f"scans/{TRAIN[0]}/{TRAIN[0]}{MESH}"
    assert data.manifest.problems == (f"{path}: no such file; scene {TRAIN[0]} is left out of tasks",)
    assert scenes_for_task(data.manifest, data.scenes, "semantic") == (TEST[0],)
    for mesh in root.glob(f"scans/*/*{MESH}"):
        mesh.unlink()
    assert prepared("scannet", root, tmp_path).manifest.problems == (), "recordings alone are to pre-train on"


def test_a_calibration_is_needed_for_poses_and_pictures_alone(tmp_path: Path) -> None:
    root = write_kitti(tmp_path / "k")
    sequence = root / "dataset/sequences/00"
    (sequence / "calib.txt").unlink()
    data = prepared("semantickitti", root, tmp_path, strict=True)
    assert data.manifest.problems == () and len(data.scenes) == 3
    (sequence / "image_2").mkdir()
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(sequence / "image_2/000000.png")
    (sequence / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 2)
    data = prepared("semantickitti", root, tmp_path)
    assert set(data.manifest.problems) == {
        "dataset/sequences/00/calib.txt: no such file; the poses and pictures of its sequence are not used",
        "2 of 3 scans have no picture in image_2, first 00__000001; pre-training skips them",
    }
    assert not any(path.endswith(("pose.npy", "image.png")) for path in data.manifest.files)
    with pytest.raises(DataError, match="calib.txt: no such file"):
        prepared("semantickitti", root, tmp_path, strict=True)


def test_points_without_labels_are_counted(tmp_path: Path) -> None:
    root = write_kitti(tmp_path / "k")
    labels = root / "dataset/sequences/00/labels"
    (labels / "000000.label").unlink()
    np.r_[np.zeros(20), np.full(30, 10)].astype("<u4").tofile(labels / "000001.label")
    counts = pb.count_data(prepared("semantickitti", root, tmp_path))
    assert (counts.points, counts.without_class, counts.problems) == (150, 50 + 20, 1)
    assert counts.classes["car"] == 30 + 25 and sum(counts.classes.values()) == 80


def test_a_room_without_annotations_is_named(s3dis_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "s3dis"
    for room in ("Area_1/office_0", "Area_5/office_1"):
        shutil.copytree(s3dis_root / room, root / room)
    (root / "Area_5/office_2").mkdir()
    (root / "Area_5/office_2/office_2.txt").write_text("1 1 1 1 1 1\n")
    (root / "Area_5/notes").mkdir()
    data = prepared("s3dis", root, tmp_path)
    assert data.manifest.problems == (
        "scene Area_5__office_2 is left out: Area_5/office_2/Annotations: no annotation file (<class>_<n>.txt) in it",
    )
    assert [s.name for s in data.manifest.left_out] == ["Area_5__office_2"]
