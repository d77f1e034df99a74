"""Tiny inputs in the official layouts, created in milliseconds, for tests of missing files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from plyfile import PlyData, PlyElement

from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset, read_manifest

TURNED = np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TRAIN, TEST = ("scene0000_00", "scene0001_00"), ("scene0011_00", "scene0015_00")


def prepared(name: str, root: Path, cache: Path, strict: bool = False) -> PreparedDataset:
    """Prepare the tiny data at `root`."""
    dataset = find(Dataset, name)
    folder = prepare(dataset, root, cache, frame_stride=1, strict=strict, progress=lambda names: names)
    return PreparedDataset(dataset, folder, read_manifest(folder))


def files_of_tasks(scenes: Iterable[str]) -> dict[str, dict[str, object]]:
    """`files` of a handmade manifest whose scenes have all files that any kind of task needs."""
    names = ("unlabelled/{}/xyz.npy", "labelled/{}/semantic.npy", "labelled/{}/instance.npy", "labelled/{}/boxes.npy")
    return {name.format(scene): {"bytes": 0, "sha256": "0" * 64} for scene in scenes for name in names}


def write_scannet(root: Path, scenes: tuple[str, ...] = (*TRAIN, *TEST), frames: bool = False) -> Path:
    """Write ScanNet scenes: a bed on a floor, with a rotating alignment; `scene0011_00` and `scene0015_00` are test scenes."""
    rng = np.random.default_rng(0)
    for name in scenes:
        folder = root / "scans" / name
        folder.mkdir(parents=True)
        bed = rng.uniform(-0.5, 0.5, (60, 3)) * [2, 1, 1]
        floor = np.c_[rng.uniform(-3, 3, (90, 2)), np.full(90, -0.5)]
        vertices = np.zeros(150, [(k, "f4") for k in "xyz"] + [(k, "u1") for k in ("red", "green", "blue")])
        vertices["x"], vertices["y"], vertices["z"] = (np.r_[bed, floor] @ TURNED[:3, :3]).T
        vertices["red"] = 120
        PlyData([PlyElement.describe(vertices, "vertex")]).write(str(folder / f"{name}_vh_clean_2.ply"))
        segments = {"segIndices": [0] * 60 + [1] * 90}
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
        groups = [{"label": "bed", "segments": [0]}, {"label": "floor", "segments": [1]}]
        (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
        (folder / f"{name}.txt").write_text(f"axisAlignment = {' '.join(map(str, TURNED.ravel()))}\n")
        if frames:
            write_frames(folder)
    (root / "scannetv2-labels.combined.tsv").write_text("raw_category\tnyu40id\nbed\t4\nfloor\t2\n")
    return root


def write_frames(folder: Path, frames: int = 2, depth: int = 1500) -> None:
    """Write exported frames of a wall `depth` millimetres away; 0 means no depth."""
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    for i in range(frames):
        Image.fromarray(np.full((12, 16, 3), 90 + i, np.uint8)).save(folder / f"color/{i}.jpg")
        Image.fromarray(np.full((12, 16), depth, np.uint16)).save(folder / f"depth/{i}.png")
        np.savetxt(folder / f"pose/{i}.txt", np.eye(4))
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", np.diag([14.0, 14, 1, 1]) + np.eye(4, k=2) * [0, 0, 8, 0])


def write_kitti(root: Path, scans: tuple[str, ...] = ("00/000000", "00/000001", "08/000000")) -> Path:
    """Write SemanticKITTI scans of road and car, without pictures and poses."""
    rng = np.random.default_rng(0)
    for scan in scans:
        folder, number = root / "dataset/sequences" / scan[:2], scan[3:]
        for part in ("velodyne", "labels"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        points = np.c_[rng.uniform(-9, 9, (50, 2)), rng.uniform(-2, 1, 50), rng.uniform(0, 1, 50)]
        points.astype("<f4").tofile(folder / f"velodyne/{number}.bin")
        np.repeat([10, 40], 25).astype("<u4").tofile(folder / f"labels/{number}.label")
        (folder / "calib.txt").write_text("P2: 7 0 8 0 0 7 6 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    return root
