"""Data that allow no learning or no score are refused before a stage starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import NANO, Bench
from tests.tiny_data import TEST, TRAIN, write_frames, write_kitti, write_scannet


def refused(bench: Bench, task: str, data: str, *more: str, method: str = "scratch") -> str:
    """The message of a refused run, which must not have started a stage."""
    arguments = ("--method", method, "--task", task, *NANO, "--data", data, *more)
    text = bench("run", *arguments, "--threads", "1", "--runs", "runs", code=2).stderr
    return text.splitlines()[-1]


@pytest.mark.parametrize(("sequence", "part"), [("00", "training"), ("08", "test")])
def test_labels_that_are_all_ignored(sequence: str, part: str, bench: Bench, tmp_path: Path) -> None:
    root = write_kitti(tmp_path / "k")
    for path in root.glob(f"dataset/sequences/{sequence}/labels/*"):
        np.zeros(50, "<u4").tofile(path)
    line = refused(bench, "kitti-sem", f"semantickitti={root}")
    number = 2 if part == "training" else 1
    assert f"none of the {number} {part} scenes has a labelled point; check that not all labels are ignored" in line
    assert not list(tmp_path.glob("runs/*/*/record.json"))


@pytest.mark.parametrize(("task", "what"), [("scannet-inst", "labelled point of a class with"), ("scannet-det", "box")])
def test_none_of_the_classes_of_a_task(task: str, what: str, bench: Bench, tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", (TRAIN[0], TEST[0]))
    for path in root.glob("scans/*/*.aggregation.json"):
        path.write_text(json.dumps({"segGroups": [{"label": "floor", "segments": [0, 1]}]}))
    assert f"none of the 1 training scenes has a {what}" in refused(bench, task, f"scannet={root}")


def test_supervised_needs_labels_of_its_classes(bench: Bench, tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", (TRAIN[0], TEST[0]))
    for path in root.glob("scans/*/*.aggregation.json"):
        path.write_text(json.dumps({"segGroups": []}))
    more = ("--pretrain-data", f"scannet={root}")
    line = refused(bench, "kitti-sem", f"semantickitti={write_kitti(tmp_path / 'k')}", *more, method="supervised")
    assert "none of the 1 pre-training scenes has a labelled point" in line


def test_a_recording_without_any_depth(bench: Bench, tmp_path: Path) -> None:
    write_frames(tmp_path / "r/room", depth=0)
    more = ("--pretrain-data", f"rgbd-folder={tmp_path / 'r'}")
    line = refused(bench, "kitti-sem", f"semantickitti={write_kitti(tmp_path / 'k')}", *more, method="ours")
    assert line.startswith("error: ") and "room" in line
    write_frames(tmp_path / "two/room")
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(tmp_path / "two/room/depth/1.png")
    text = bench("data", "prepare", "rgbd-folder", "--root", str(tmp_path / "two"), "--frame-stride", "1")
    assert "depth/1.png: no pixel has a depth" in text.stderr and "1 scenes, 0 points, 1 frames" in text.stdout


def test_meshes_alone_are_no_source_of_frames(bench: Bench, tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "s", (TRAIN[0], TEST[0]))
    more = ("--pretrain-data", f"scannet={root}")
    for method in ("ours", "csc"):
        line = refused(bench, "kitti-sem", f"semantickitti={write_kitti(tmp_path / method)}", *more, method=method)
        assert f"method '{method}' needs frames, images" in line and "which none of the 1 scenes of 'scannet'" in line
