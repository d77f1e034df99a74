"""Tiny valid inputs in every supported layout: two scenes each, of a box-shaped room or a street. They vary with `seed`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.ply import write_ply
from pretrain_bench.benchmarks.datasets.sens import SensFrame, SensHeader, write_sens

POINTS = 60
WIDTH, HEIGHT, FOCAL = 40, 30, 35.0
ROOM = np.array([4.0, 3.0, 2.5])
K = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
FRAMES = 3


def room_parts(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Maps classes to points (N, 6) with colours in 0..255: floor, ceiling, a wall and a chair."""
    flat = rng.uniform(0, 1, (4, POINTS, 2))
    zeros = np.zeros(POINTS)
    places = {
        "floor": np.column_stack([flat[0] * ROOM[:2], zeros]),
        "ceiling": np.column_stack([flat[1] * ROOM[:2], zeros + ROOM[2]]),
        "wall": np.column_stack([flat[2, :, 0] * ROOM[0], zeros, flat[2, :, 1] * ROOM[2]]),
        "chair": np.column_stack([1 + flat[3] / 2, rng.uniform(0, 0.9, POINTS)]),
    }
    return {name: np.column_stack([xyz, rng.integers(20, 236, (POINTS, 3))]) for name, xyz in places.items()}


def write_s3dis(root: Path, seed: int) -> None:
    """Two rooms."""
    rng = np.random.default_rng(seed)
    for room in ("Area_1/office_1", "Area_5/office_1"):
        folder = root / room / "Annotations"
        folder.mkdir(parents=True)
        for name, points in room_parts(rng).items():
            np.savetxt(folder / f"{name}_1.txt", points, fmt="%.3f %.3f %.3f %d %d %d")


def camera_pose(number: int, seed: int) -> NDArray[np.float64]:
    """Camera-to-world pose of a level camera that turns slightly from frame to frame."""
    angle = 0.4 + 0.15 * number + 0.01 * (seed % 100)
    forward, down = np.array([np.cos(angle), np.sin(angle), 0]), np.array([0, 0, -1.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = np.cross(down, forward), down, forward
    pose[:3, 3] = (1 + 0.1 * number, 1, 1.3)
    return pose


def seen(pose: NDArray[np.float64]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(H, W) depth in millimetres and (H, W, 3) colour of the empty room from inside."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - K[0, 2]) / FOCAL, (v - K[1, 2]) / FOCAL, np.ones((HEIGHT, WIDTH))], axis=2) @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = np.where(rays > 0, (ROOM - pose[:3, 3]) / rays, np.where(rays < 0, -pose[:3, 3] / rays, np.inf))
    depth = hits.min(axis=2)
    points = pose[:3, 3] + rays * depth[..., None]
    return np.round(depth * 1000).astype(np.uint16), (127 + 100 * np.sin(points * 3)).astype(np.uint8)


def write_recordings(root: Path, seed: int) -> None:
    """Two recordings in the ScanNet export."""
    for scene in ("room_a", "room_b"):
        for part in ("color", "depth", "pose", "intrinsic"):
            (root / scene / part).mkdir(parents=True)
        for number in range(FRAMES):
            depth, colour = seen(camera_pose(number, seed))
            Image.fromarray(colour).save(root / scene / f"color/{number}.png")
            (root / scene / f"depth/{number}.png").write_bytes(images.encode_depth(depth))
            np.savetxt(root / scene / f"pose/{number}.txt", camera_pose(number, seed), fmt="%.6f")
        matrix = np.eye(4)
        matrix[:3, :3] = K
        np.savetxt(root / scene / "intrinsic/intrinsic_depth.txt", matrix, fmt="%.6f")


def write_scannet(root: Path, seed: int) -> None:
    """Two scenes with mesh, annotation and stream."""
    rng, ids = np.random.default_rng(seed), {"floor": 2, "ceiling": 22, "wall": 1, "chair": 5}
    rows = "".join(f"{i}\t{name}\t{name}\t1\t{nyu}\t{name}\n" for i, (name, nyu) in enumerate(ids.items(), start=1))
    (root / "scans").mkdir(parents=True)
    header = "id\traw_category\tcategory\tcount\tnyu40id\tnyu40class\n"
    (root / "scannetv2-labels.combined.tsv").write_text(header + rows)
    matrix = np.eye(4)
    matrix[:3, :3] = K
    for name in ("scene0000_00", "scene0001_00"):
        folder = root / "scans" / name
        folder.mkdir()
        parts = room_parts(rng)
        points = np.concatenate(list(parts.values()))
        write_ply(folder / f"{name}_vh_clean_2.ply", points[:, :3], points[:, 3:].astype(np.uint8))
        segments = np.repeat(np.arange(len(parts)), POINTS).tolist()
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments}))
        groups = [{"objectId": i, "segments": [i], "label": label} for i, label in enumerate(parts)]
        (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
        (folder / f"{name}.txt").write_text("axisAlignment = 0.8 0.6 0 1 -0.6 0.8 0 2 0 0 1 0.1 0 0 0 1\n")
        sizes = ((WIDTH, HEIGHT), (WIDTH, HEIGHT), 1000.0, FRAMES)
        head = SensHeader("tiny", matrix, np.eye(4), matrix, np.eye(4), "png", "raw", *sizes)
        write_sens(folder / f"{name}.sens", head, (stream_frame(n, seed) for n in range(FRAMES)))


def stream_frame(number: int, seed: int) -> SensFrame:
    """A frame of a stream."""
    depth, colour = seen(camera_pose(number, seed))
    return SensFrame(number, camera_pose(number, seed), number, number, images.encode_colour(colour), depth.tobytes())


def write_kitti(root: Path, seed: int) -> None:
    """Two scans of one sequence with pictures."""
    rng, folder = np.random.default_rng(seed), root / "dataset/sequences/00"
    for part in ("velodyne", "labels", "image_2"):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        plane = rng.uniform(-20, 20, (2 * POINTS, 2))
        height = np.repeat([-1.7, 0.5], POINTS) + rng.normal(0, 0.05, 2 * POINTS)
        np.column_stack([plane, height, rng.uniform(0, 1, 2 * POINTS)]).astype("<f4").tofile(
            folder / f"velodyne/{number:06d}.bin"
        )
        np.repeat([40, 50], POINTS).astype("<u4").tofile(folder / f"labels/{number:06d}.label")
        colour = rng.integers(0, 256, (12, 40, 3), np.uint8)
        Image.fromarray(colour).save(folder / f"image_2/{number:06d}.png")
    line = "23 0 19.5 {} 0 23 5.5 0 0 0 1 0"
    lines = [f"P{camera}: {line.format(offset)}\n" for camera, offset in enumerate((0, -12.4, 1.5, -10.9))]
    tr = "Tr: 0.01 -0.99995 0 0.02 0 0 -1 -0.06 0.99995 0.01 0 -0.33\n"
    (folder / "calib.txt").write_text("".join(lines) + tr)
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n0.8 0 0.6 0.1 0 1 0 0.02 -0.6 0 0.8 0.9\n")


def write_sunrgbd(root: Path, seed: int) -> None:
    """Two views in VoteNet's layout."""
    rng, folder = np.random.default_rng(seed), root / "sunrgbd_trainval"
    for part in ("depth", "image", "calib", "label_v1"):
        (folder / part).mkdir(parents=True)
    for number in (1, 2):
        points = np.column_stack(
            [rng.uniform(-1.5, 1.5, 200), rng.uniform(1, 4, 200), rng.uniform(-1, 1, 200), rng.uniform(0, 1, (200, 3))]
        )
        savemat(folder / f"depth/{number:06d}.mat", {"instance": points})
        colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(colour).save(folder / f"image/{number:06d}.jpg")
        tilt = "1 0 0 0 0.96 0.28 0 -0.28 0.96"
        (folder / f"calib/{number:06d}.txt").write_text(f"{tilt}\n{FOCAL} 0 0 0 {FOCAL} 0 20.5 15.5 1\n")
        boxes = ("chair 10 10 20 20 0.1 2.0 -0.5 0.3 0.3 0.5 0 1", "bed 5 5 30 30 -0.5 3.0 -0.4 1.0 0.8 0.4 0.6 0.8")
        (folder / f"label_v1/{number:06d}.txt").write_text("\n".join(boxes) + "\n")
    (folder / "train_data_idx.txt").write_text("1\n")
    (folder / "val_data_idx.txt").write_text("2\n")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "s3dis": write_s3dis,
    "rgbd-folder": write_recordings,
    "scannet": write_scannet,
    "semantickitti": write_kitti,
    "sunrgbd": write_sunrgbd,
}
