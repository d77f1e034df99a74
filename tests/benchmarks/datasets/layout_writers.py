"""Writers of procedural rooms in third-party layouts, one per layout, implemented from the specification and not from the readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrain_bench.benchmarks.datasets.recordings import pinhole, resized
from pretrain_bench.benchmarks.procedural import rooms, sensors
from pretrain_bench.benchmarks.procedural.write import S3DIS_KINDS, SCANNET_KINDS, TO_S3DIS

S3DIS_ORDER = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board", "clutter",
)  # fmt: skip
SCANNET_ORDER = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk",
    "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "otherfurniture",
)  # fmt: skip


class Shot(NamedTuple):
    """A rendered frame: colour (H, W, 3) uint8, depth (H, W) uint16 millimetres, camera-to-world pose (4, 4)."""

    colour: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    pose: NDArray[np.float64]


class Recorded(NamedTuple):
    """Frames of one room from a camera with `intrinsic` (3, 3)."""

    intrinsic: NDArray[np.float64]
    shots: list[Shot]


class Points(NamedTuple):
    """The cloud of a room: xyz (N, 3) float32, rgb (N, 3) uint8, class names (N,) and instance numbers (N,) from 0."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    names: NDArray[np.str_]
    instance: NDArray[np.int64]


def record(intrinsic: NDArray[np.float64], size: tuple[int, int], frames: int = 3, seed: int = 3) -> Recorded:
    """A walk through a procedural room."""
    rng = np.random.default_rng(seed)
    world = rooms.build_room(rng, SCANNET_KINDS)
    shots = []
    for pose in sensors.walk(world, rng, frames):
        seen = sensors.render(world, pose, intrinsic, size, rng)
        shots.append(Shot(seen.colour, seen.depth, pose))
    return Recorded(intrinsic, shots)


def cloud(seed: int, names: tuple[str, ...], kinds: tuple[str, ...] = S3DIS_KINDS, density: int = 60) -> Points:
    """Points of a procedural room with the classes of a dataset; other objects have its last class."""
    rng = np.random.default_rng(seed)
    world = rooms.build_room(rng, kinds)
    sampled = sensors.sample_surfaces(world, rng, density)
    labels = [TO_S3DIS.get(i.label, i.label) if "bookcase" in names else i.label for i in world.instances]
    known = np.array([label if label in names else names[-1] for label in labels])
    return Points(
        sampled.xyz.astype(np.float32), sampled.rgb, known[sampled.instance], sampled.instance.astype(np.int64)
    )


def save_png(path: Path, picture: NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def units(depth: NDArray[np.uint16], per_metre: float) -> NDArray[np.uint16]:
    """Convert depth from millimetres to another unit."""
    return np.round(depth * (per_metre / 1000)).astype(np.uint16)


def seven_scenes(root: Path) -> Recorded:
    """A scene with two sequences, the second for testing. Depth and colour are rendered from the depth camera."""
    recorded = record(resized(pinhole(585, 585, 320, 240), 0.25), (160, 120))
    for sequence in ("seq-01", "seq-02"):
        for number, shot in enumerate(recorded.shots):
            stem = root / "redkitchen" / sequence / f"frame-{number:06d}"
            save_png(stem.with_name(f"{stem.name}.color.png"), shot.colour)
            none = np.where(shot.depth == 0, 65535, shot.depth).astype(np.uint16)
            save_png(stem.with_name(f"{stem.name}.depth.png"), none)
            np.savetxt(stem.with_name(f"{stem.name}.pose.txt"), shot.pose)
    (root / "redkitchen/TrainSplit.txt").write_text("sequence1\n")
    (root / "redkitchen/TestSplit.txt").write_text("sequence2\n")
    return recorded


def tum(root: Path, name: str = "rgbd_dataset_freiburg3_room") -> Recorded:
    """A recording of the camera freiburg3, whose three streams have separate timestamps."""
    recorded = record(resized(pinhole(535.4, 539.2, 320.1, 247.6), 0.25), (160, 120))
    folder = root / name
    lists: dict[str, list[str]] = {"rgb": ["# color images"], "depth": ["# depth maps"], "truth": ["# ground truth"]}
    for number, shot in enumerate(recorded.shots):
        time = 1305031102.0 + number / 30
        save_png(folder / f"rgb/{time:.6f}.png", shot.colour)
        save_png(folder / f"depth/{time + 0.011:.6f}.png", units(shot.depth, 5000))
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{time + 0.011:.6f} depth/{time + 0.011:.6f}.png")
        lists["truth"].append(" ".join(f"{v:.9f}" for v in (time - 0.004, *shot.pose[:3, 3], *quaternion(shot.pose))))
    for file, key in (("rgb.txt", "rgb"), ("depth.txt", "depth"), ("groundtruth.txt", "truth")):
        (folder / file).write_text("\n".join(lists[key]) + "\n")
    return recorded


def quaternion(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternion x y z w of a rotation, from its eigenvector."""
    r = pose[:3, :3]
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


def replica(root: Path) -> Recorded:
    """A rendered scene."""
    recorded = record(resized(pinhole(600, 600, 599.5, 339.5), 0.125), (150, 85))
    for number, shot in enumerate(recorded.shots):
        save_png(root / f"office0/results/frame{number:06d}.png", shot.colour)
        save_png(root / f"office0/results/depth{number:06d}.png", units(shot.depth, 6553.5))
    rows = [" ".join(f"{v:.12e}" for v in shot.pose.reshape(-1)) for shot in recorded.shots]
    (root / "office0/traj.txt").write_text("\n".join(rows) + "\n")
    return recorded


def open3d(root: Path) -> Recorded:
    """A recording with a trajectory."""
    recorded = record(pinhole(150, 151, 79.5, 59.5), (160, 120))
    folder = root / "realsense"
    (folder / "scene").mkdir(parents=True)
    column_by_column = recorded.intrinsic.T.reshape(-1).tolist()
    content = {"width": 160, "height": 120, "intrinsic_matrix": column_by_column}
    (folder / "camera_intrinsic.json").write_text(json.dumps(content))
    blocks = []
    for number, shot in enumerate(recorded.shots):
        save_png(folder / f"color/{number:06d}.png", shot.colour)
        save_png(folder / f"depth/{number:06d}.png", shot.depth)
        rows = [" ".join(f"{v:.8f}" for v in row) for row in shot.pose]
        blocks.append("\n".join([f"{number} {number} {number + 1}", *rows]))
    (folder / "scene/trajectory.log").write_text("\n".join(blocks) + "\n")
    return recorded


def frames_25k(root: Path) -> Recorded:
    """A scene whose colour images have the size of the depth images, but intrinsics for a width of 1296 pixels."""
    recorded = record(resized(pinhole(577.87, 577.87, 319.5, 239.5), 0.25), (160, 120))
    folder = root / "scene0000_00"
    for number, shot in enumerate(recorded.shots):
        save_png(folder / f"color/{100 * number:06d}.png", shot.colour)
        save_png(folder / f"depth/{100 * number:06d}.png", shot.depth)
        (folder / "pose").mkdir(exist_ok=True)
        np.savetxt(folder / f"pose/{100 * number:06d}.txt", shot.pose)
    for name, scale in (("depth", 1.0), ("color", 1296 / 160)):
        full = np.eye(4)
        full[:3, :3] = resized(recorded.intrinsic, scale)
        np.savetxt(folder / f"intrinsics_{name}.txt", full)
    return recorded


def arkitscenes(root: Path) -> Recorded:
    """A video with one camera; the timestamps of intrinsics are off by a millisecond, and every tenth depth column has low confidence."""
    recorded = record(pinhole(104, 105, 63.5, 47.5), (128, 96))
    folder = root / "3dod/Training/41069021/41069021_frames"
    lines = []
    for number, shot in enumerate(recorded.shots):
        time = 307.123 + number / 10
        confidence = np.full(shot.depth.shape, 2, np.uint8)
        confidence[:, ::10] = 0
        pictures = (("lowres_wide", shot.colour), ("lowres_depth", shot.depth), ("confidence", confidence))
        for part, picture in pictures:
            save_png(folder / part / f"41069021_{time:.3f}.png", picture)
        fx, fy, cx, cy = (recorded.intrinsic[i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        camera = folder / f"lowres_wide_intrinsics/41069021_{time + 0.001:.3f}.pincam"
        camera.parent.mkdir(exist_ok=True)
        camera.write_text(f"128 96 {fx} {fy} {cx} {cy}")
        to_camera = np.linalg.inv(shot.pose)
        lines.append(" ".join(f"{v:.10f}" for v in (time - 0.002, *axis_angle(to_camera), *to_camera[:3, 3])))
    (folder / "lowres_wide.traj").write_text("\n".join(lines) + "\n")
    unsure = [
        shot._replace(depth=np.where(np.arange(128) % 10 == 0, 0, shot.depth).astype(np.uint16))
        for shot in recorded.shots
    ]
    return recorded._replace(shots=unsure)


def axis_angle(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axis of a rotation times its angle in radians."""
    r = pose[:3, :3]
    axis = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    return np.arctan2(np.linalg.norm(axis), np.trace(r) - 1) * axis / np.linalg.norm(axis)


RECORDINGS = {
    "arkitscenes": arkitscenes,
    "7-scenes": seven_scenes,
    "tum": tum,
    "replica": replica,
    "open3d": open3d,
    "scannet-frames-25k": frames_25k,
}


def pointcept_s3dis(root: Path) -> dict[str, Points]:
    """Rooms of three areas; labels have shape (N, 1)."""
    written = {}
    for seed, name in enumerate(("Area_1/office_1", "Area_2/office_1", "Area_5/office_1")):
        points = cloud(seed, S3DIS_ORDER)
        _arrays(root / name, points, {"segment": ids(points.names, S3DIS_ORDER).astype(np.int16)[:, None]}, np.int16)
        written[name.replace("/", "__")] = points
    return written


def pointcept_scannet(root: Path) -> dict[str, Points]:
    """Two training scenes, one validation scene, one without labels. A tenth of the points is unlabelled."""
    written = {}
    parts = (
        ("train", "scene0000_00"), ("train", "scene0001_00"), ("val", "scene0011_00"), ("test", "scene0707_00"),
    )  # fmt: skip
    for seed, (part, name) in enumerate(parts):
        points = cloud(seed, SCANNET_ORDER, SCANNET_KINDS)
        points.names[::10] = ""
        labels = {"segment20": ids(points.names, SCANNET_ORDER)} if part != "test" else {}
        _arrays(root / part / name, points, labels, np.int64)
        written[name] = points
    return written


def indoor3d(root: Path) -> dict[str, Points]:
    """Rooms of two areas, moved to the origin."""
    written = {}
    for seed, name in enumerate(("Area_1_office_1", "Area_5_hallway_12")):
        points = cloud(seed, S3DIS_ORDER)
        points = points._replace(xyz=points.xyz - points.xyz.min(axis=0))
        table = np.c_[points.xyz.astype(np.float64), points.rgb, ids(points.names, S3DIS_ORDER)]
        root.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", table)
        written[f"{name[:6]}__{name[7:]}"] = points
    return written


NYU40 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
TURNED = np.array([[0.8, 0.6, 0, 1], [-0.6, 0.8, 0, 2], [0, 0, 1, 0.1], [0, 0, 0, 1.0]])
BOXES = np.array([[1, 2, 0.5, 1, 1.5, 0.8, 5], [2, 1, 0.4, 2, 0.9, 0.7, 7]], np.float64)
"""Centre, full size and nyu40 id: a chair and a table."""


def scannet_dump(root: Path, kind: str) -> dict[str, Points]:
    """Scans as dumped by VoteNet (aligned) or MMDetection3D (with the alignment)."""
    written = {}
    folder = root / {"votenet": "scannet_train_detection_data", "mmdetection3d": "scannet_instance_data"}[kind]
    folder.mkdir(parents=True)
    for seed, name in enumerate(("scene0000_00", "scene0011_00")):
        points = cloud(seed, SCANNET_ORDER, SCANNET_KINDS)
        points.names[::10] = ""
        place = ids(points.names, SCANNET_ORDER)
        nyu40 = np.where(place < 0, 0, np.array(NYU40)[place]).astype(np.uint32)
        np.save(folder / f"{name}_vert.npy", np.c_[points.xyz, points.rgb].astype(np.float32))
        np.save(folder / f"{name}_sem_label.npy", nyu40)
        np.save(folder / f"{name}_ins_label.npy", (points.instance + 1).astype(np.uint32))
        np.save(folder / f"{name}_{'aligned_' if kind == 'mmdetection3d' else ''}bbox.npy", BOXES)
        if kind == "mmdetection3d":
            np.save(folder / f"{name}_unaligned_bbox.npy", BOXES + 1)
            np.save(folder / f"{name}_axis_align_matrix.npy", TURNED)
        written[name] = points
    return written


def mmdetection3d_s3dis(root: Path) -> dict[str, Points]:
    """Rooms moved to the origin; instances from 1."""
    written = {}
    (root / "s3dis_data").mkdir(parents=True)
    for seed, name in enumerate(("Area_1_office_1", "Area_5_hallway_2")):
        points = cloud(seed, S3DIS_ORDER)
        points = points._replace(xyz=points.xyz - points.xyz.min(axis=0), instance=points.instance + 1)
        stem = root / "s3dis_data" / name
        np.save(f"{stem}_point.npy", np.c_[points.xyz, points.rgb].astype(np.float32))
        np.save(f"{stem}_sem_label.npy", ids(points.names, S3DIS_ORDER))
        np.save(f"{stem}_ins_label.npy", points.instance)
        written[f"{name[:6]}__{name[7:]}"] = points
    return written


def votenet_sunrgbd(root: Path) -> dict[str, NDArray[np.float64]]:
    """A training and a validation view; returns number to table (N, 6), colours in 0..1. Each has a bed and a desk, stored with half sizes."""
    written = {}
    for number, part in (("005051", "train"), ("000001", "val")):
        points = cloud(int(number), SCANNET_ORDER, SCANNET_KINDS)
        folder = root / f"sunrgbd_pc_bbox_votes_50k_v1_{part}"
        folder.mkdir(parents=True)
        table = np.c_[points.xyz.astype(np.float64), points.rgb / 255]
        np.savez_compressed(folder / f"{number}_pc.npz", pc=table)
        np.save(folder / f"{number}_bbox.npy", [[1, 2, 0.4, 1, 0.8, 0.4, 0.3, 0], [2, 1, 0.3, 0.5, 0.3, 0.4, -1, 5]])
        written[number] = table
    return written


def ids(names: NDArray[np.str_], order: tuple[str, ...]) -> NDArray[np.int64]:
    """(N,) the index of each name, -1 for unknown ones."""
    place = {name: number for number, name in enumerate(order)}
    return np.array([place.get(name, -1) for name in names.tolist()])


def _arrays(folder: Path, points: Points, labels: dict[str, NDArray], kind: type) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", points.xyz)
    np.save(folder / "color.npy", points.rgb)
    for name, values in labels.items():
        np.save(folder / f"{name}.npy", values)
        numbers = points.instance.astype(kind)
        np.save(folder / "instance.npy", numbers.reshape(values.shape))
