"""Write procedural worlds in the official layouts, once for each seed and version of this generator."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.sens import SensFrame, SensHeader, write_sens
from pretrain_bench.benchmarks.procedural import rooms, sensors, streets
from pretrain_bench.benchmarks.procedural.worlds import World
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import cannot_write
from pretrain_bench.benchmarks.support.files import copy_tree, link_or_copy, whole_folder
from pretrain_bench.benchmarks.support.locks import exclusive
from pretrain_bench.benchmarks.support.process_limits import usable_cpus
from pretrain_bench.benchmarks.support.processes import process_pool

Progress = Callable[[Iterable[str]], Iterable[str]]

# Different datasets show different kinds of rooms, so that transfer between them is not trivial.
S3DIS_KINDS = ("office", "office", "conferenceRoom", "hallway", "lounge", "library")
SCANNET_KINDS = ("bedroom", "bathroom", "kitchen", "lounge", "office", "library")
SUNRGBD_KINDS = ("bedroom", "bedroom", "bathroom", "lounge", "office")
TO_S3DIS = {"bookshelf": "bookcase", "desk": "table"}
S3DIS_CLASSES = (
    "beam",
    "board",
    "bookcase",
    "ceiling",
    "chair",
    "column",
    "door",
    "floor",
    "sofa",
    "table",
    "wall",
    "window",
)
# Raw category and nyu40 id in ScanNet's terms.
NYU40 = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9, "bookshelf": 10,
    "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "dresser": 17, "ceiling": 22, "refrigerator": 24,
    "shower curtain": 28, "board": 30, "night_stand": 32, "toilet": 33, "sink": 34, "bathtub": 36, "rack": 39, "beam": 40,
    "column": 40, "clutter": 40,
}  # fmt: skip
KITTI_IDS = {
    "car": 10, "bicycle": 11, "truck": 18, "person": 30, "road": 40, "parking": 44, "sidewalk": 48, "building": 50, "fence": 51,
    "vegetation": 70, "trunk": 71, "terrain": 72, "pole": 80, "traffic-sign": 81,
}  # fmt: skip
KITTI_THINGS = ("car", "bicycle", "truck", "person")
# From the laser (x forward, y left, z up) to a camera that looks forward (x right, y down, z forward), 27 cm ahead of it.
KITTI_TR = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])
VISIBLE_PIXELS = 60


def generate(dataset: Dataset, cache: Path, progress: Progress) -> Path:
    """Write the world of a synthetic dataset below `cache`, unless it exists; returns its root in the official layout.

    Equal seed and generator code give equal bytes. Scenes written before an interruption are kept for the next call. Raises
    EnvironmentCannot if the disk is full or not writable.
    """
    target = cache / "worlds" / f"{dataset.name}-{_fingerprint(dataset)}"
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.partial")
    try:
        with exclusive(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                _write_scenes(dataset, partial, progress)
                _put_together(dataset, partial, target)
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise cannot_write(target, error, f"generating {dataset.name}") from error
    return target


def _write_scenes(dataset: Dataset, partial: Path, progress: Progress) -> None:
    """Write missing scenes in parallel, each in its own folder below `partial/scenes`."""
    (partial / "scenes").mkdir(parents=True, exist_ok=True)
    names = scene_names(dataset)
    missing = [i for i in range(len(names)) if not (partial / "scenes" / str(i)).is_dir()]
    with process_pool(min(usable_cpus(), 16)) as pool:
        jobs = {names[i]: pool.submit(_write_scene, dataset, i, names[i], partial) for i in missing}
        for name in progress(names):  # all names, so that the bar starts where an interrupted one stopped
            if name in jobs:
                jobs[name].result()


def _write_scene(dataset: Dataset, index: int, name: str, partial: Path) -> None:
    """Write one scene, and rename its folder into place when it is complete."""
    with whole_folder(partial / "scenes" / str(index), partial / "unfinished") as unfinished:
        _WRITERS[dataset.layout][0](dataset, index, name, unfinished)


def _put_together(dataset: Dataset, partial: Path, target: Path) -> None:
    """Combine all scenes into one root, made visible by one rename."""
    whole = partial / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    for index in range(len(scene_names(dataset))):
        copy_tree(partial / "scenes" / str(index), whole, link_or_copy)
    _WRITERS[dataset.layout][1](dataset, whole)
    os.replace(whole, target)


def generated_already(dataset: Dataset, cache: Path) -> Path | None:
    """The folder that `generate` would return at once; None if the world has not been written."""
    target = cache / "worlds" / f"{dataset.name}-{_fingerprint(dataset)}"
    return target if target.is_dir() else None


def scene_names(dataset: Dataset) -> list[str]:
    """Names of the units that are written one by one: rooms, recordings, views, or whole sequences of scans."""
    world = dataset.world or {}
    if dataset.layout == "s3dis":
        train = [f"Area_{(1, 2, 3, 4, 6)[i % 5]}/room_{i + 1}" for i in range(world["train_rooms"])]
        return train + [f"Area_5/room_{i + 1}" for i in range(world["test_rooms"])]
    if dataset.layout == "scannet":
        return [f"scene{i:04d}_00" for i in range(world["train_rooms"])] + [
            f"scene{100 + i:04d}_00" for i in range(world["test_rooms"])
        ]
    if dataset.layout == "sunrgbd":
        return [f"{i + 1:06d}" for i in range(world["train_views"] + world["test_views"])]
    if dataset.layout == "semantickitti":
        training = [f"{i:02d}" for i in range(world["streets"] + 1) if i != 8]
        return [*training[: world["streets"]], "08"]
    return [f"room{i:04d}_00" for i in range(world["rooms"])]


def _rng(dataset: Dataset, index: int) -> Generator:
    assert dataset.world is not None
    return np.random.default_rng([dataset.world["seed"], index])


def _settings(dataset: Dataset) -> dict[str, int]:
    assert dataset.world is not None
    return dataset.world


def write_s3dis_room(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One room as annotation files and the room-level file, in the S3DIS text layout."""
    rng = _rng(dataset, index)
    world = rooms.build_room(rng, S3DIS_KINDS)
    cloud = sensors.sample_surfaces(world, rng, _settings(dataset)["points_per_square_metre"])
    offset = np.round(rng.uniform(-20, 20, 3) * [1, 1, 0.1], 1)
    folder = root / name / "Annotations"
    folder.mkdir(parents=True)
    counts: dict[str, int] = {}
    with (folder.parent / f"{folder.parent.name}.txt").open("w") as whole:
        for number, one in enumerate(world.instances):
            here = cloud.instance == number
            if not here.any():
                continue
            label = TO_S3DIS.get(one.label, one.label)
            label = label if label in S3DIS_CLASSES else "clutter"
            counts[label] = counts.get(label, 0) + 1
            rows = zip((cloud.xyz[here] + offset).tolist(), cloud.rgb[here].tolist(), strict=True)
            text = "".join(f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n" for (x, y, z), (r, g, b) in rows)
            (folder / f"{label}_{counts[label]}.txt").write_text(text)
            whole.write(text)


def write_scannet_scene(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One room as a stream of frames and a labelled cloud, in the ScanNet layout: rotated and shifted like a reconstruction."""
    from plyfile import PlyData, PlyElement

    settings, rng = _settings(dataset), _rng(dataset, index)
    world = rooms.build_room(rng, SCANNET_KINDS)
    folder = root / "scans" / name
    folder.mkdir(parents=True)
    moved = _placement(rng)
    size = (settings["width"], settings["height"])
    intrinsic = camera_matrix(size)
    frames = []
    for number, pose in enumerate(sensors.walk(world, rng, settings["frames_per_room"])):
        frame = sensors.render(world, pose, intrinsic, size, rng)
        depth = zlib.compress(frame.depth.tobytes(), 4)
        colour = images.encode_colour(frame.colour, 92)
        frames.append(SensFrame(number, moved @ pose, 33_000 * number, 33_000 * number, colour, depth))
    full = np.eye(4)
    full[:3, :3] = intrinsic
    header = SensHeader(
        "procedural", full, np.eye(4), full, np.eye(4), "jpeg", "zlib", size, size, 1000.0, len(frames)
    )  # fmt: skip
    write_sens(folder / f"{name}.sens", header, frames)
    cloud = sensors.sample_surfaces(world, rng, settings["points_per_square_metre"], noise_metres=0.004)
    xyz = cloud.xyz @ moved[:3, :3].T + moved[:3, 3]
    vertices = np.empty(len(xyz), [(c, "f4") for c in "xyz"] + [(c, "u1") for c in ("red", "green", "blue", "alpha")])
    for axis, name_of in enumerate("xyz"):
        vertices[name_of] = xyz[:, axis]
    for channel, name_of in enumerate(("red", "green", "blue")):
        vertices[name_of] = cloud.rgb[:, channel]
    vertices["alpha"] = 255
    faces = np.empty(0, [("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]).write(
        str(folder / f"{name}_vh_clean_2.ply")
    )
    # Over-segmentation: patches of 25 cm within each object.
    patches = np.floor(cloud.xyz / 0.25).astype(np.int64)
    keys = (((cloud.instance * 64 + patches[:, 0] + 2) * 64) + patches[:, 1] + 2) * 64 + patches[:, 2] + 2
    _, first, segments = np.unique(keys, return_index=True, return_inverse=True)
    owner = cloud.instance[first]
    groups = [
        {"id": n, "objectId": n, "segments": np.flatnonzero(owner == i).tolist(), "label": world.instances[i].label}
        for n, i in enumerate(np.unique(owner).tolist())
    ]
    _json(
        folder / f"{name}_vh_clean_2.0.010000.segs.json", {"sceneId": name, "segIndices": segments.reshape(-1).tolist()}
    )
    _json(folder / f"{name}.aggregation.json", {"sceneId": f"scannet.{name}", "segGroups": groups})
    alignment = " ".join(f"{v:.9f}" for v in np.linalg.inv(moved).reshape(-1))
    (folder / f"{name}.txt").write_text(f"axisAlignment = {alignment} \nnumDepthFrames = {len(frames)}\n")


def _finish_scannet(dataset: Dataset, root: Path) -> None:
    rows = [f"{n + 1}\t{c}\t{c}\t0\t{i}\t0" for n, (c, i) in enumerate(NYU40.items())]
    header = "id\traw_category\tcategory\tcount\tnyu40id\teigen13id"
    (root / "scannetv2-labels.combined.tsv").write_text("\n".join([header, *rows]) + "\n")


def write_sunrgbd_view(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One RGB-D view of a room with the boxes of visible objects, in VoteNet's prepared layout."""
    from scipy.io import savemat

    settings, rng = _settings(dataset), _rng(dataset, index)
    size = (settings["width"], settings["height"])
    intrinsic = camera_matrix(size)
    for _ in range(20):
        world = rooms.build_room(rng, SUNRGBD_KINDS)
        pose = _look_at_furniture(world, rng, dataset.classes)
        frame = sensors.render(world, pose, intrinsic, size, rng)
        seen = np.bincount(frame.instance[frame.instance >= 0], minlength=len(world.instances)) >= VISIBLE_PIXELS
        if any(seen[i] and one.label in dataset.classes for i, one in enumerate(world.instances)):
            break
    # Upright depth: the camera at the origin, x right, y forward and level, z up.
    heading = math.atan2(pose[1, 2], pose[0, 2])
    level = np.array([[math.sin(heading), -math.cos(heading), 0], [math.cos(heading), math.sin(heading), 0], [0, 0, 1]])
    valid = frame.depth > 0
    v, u = np.nonzero(valid)
    d = frame.depth[valid] / 1000.0
    ray = [(u - intrinsic[0, 2]) * d / intrinsic[0, 0], d, -(v - intrinsic[1, 2]) * d / intrinsic[1, 1]]
    to_depth = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    tilt = level @ pose[:3, :3] @ to_depth.T
    points = np.concatenate([np.stack(ray, axis=1) @ tilt.T, frame.colour[valid] / 255.0], axis=1)
    folder = root / "sunrgbd_trainval"
    for part in ("depth", "image", "calib", "label_v1"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    savemat(folder / "depth" / f"{name}.mat", {"instance": points.astype(np.float32)}, do_compression=True)
    (folder / "image" / f"{name}.jpg").write_bytes(images.encode_colour(frame.colour, 92))
    counted_from_1 = intrinsic.copy()
    counted_from_1[:2, 2] += 1
    rows = [" ".join(f"{x:.6f}" for x in matrix.T.reshape(-1)) for matrix in (tilt, counted_from_1)]
    (folder / "calib" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    lines = []
    for number in np.flatnonzero(seen):
        one = world.instances[number]
        rows_of, columns = np.nonzero(frame.instance == number)
        centre = level @ (one.centre - pose[:3, 3])
        # The heading is the direction of the front: along y of the object, so its length is its depth.
        front = level @ np.array([-math.sin(one.yaw), math.cos(one.yaw), 0])
        across, along, height = one.size / 2
        numbers = [
            columns.min(), rows_of.min(), np.ptp(columns) + 1, np.ptp(rows_of) + 1, *centre, across, along, height, *front[:2],
        ]  # fmt: skip
        lines.append(f"{one.label.replace(' ', '_')} " + " ".join(f"{x:.6f}" for x in numbers))
    (folder / "label_v1" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _finish_sunrgbd(dataset: Dataset, root: Path) -> None:
    names, train = scene_names(dataset), _settings(dataset)["train_views"]
    for file, part in (("train_data_idx.txt", names[:train]), ("val_data_idx.txt", names[train:])):
        (root / "sunrgbd_trainval" / file).write_text("".join(f"{int(n)}\n" for n in part))


def write_kitti_sequence(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """A drive through one street: scans, labels, calibration, poses and the forward camera, in the SemanticKITTI layout."""
    settings, rng = _settings(dataset), _rng(dataset, index)
    world = streets.build_street(rng)
    folder = root / "dataset/sequences" / name
    for part in ("velodyne", "labels", "image_2"):
        (folder / part).mkdir(parents=True)
    size = (settings["width"], settings["height"])
    intrinsic = camera_matrix(size, 0.58)
    camera = np.eye(4)
    camera[:3] = KITTI_TR
    scans = settings["test_scans"] if name == "08" else -(-settings["train_scans"] // settings["streets"])
    poses = streets.drive(rng, scans)
    raw = np.array([KITTI_IDS[i.label] for i in world.instances], np.uint32)
    thing = np.array([i.label in KITTI_THINGS for i in world.instances])
    numbers = np.where(thing, np.cumsum(thing), 0).astype(np.uint32)
    lines = []
    for number, pose in enumerate(poses):
        points, instance = sensors.sweep(world, pose, streets.ELEVATIONS, settings["azimuths"], rng)
        points.astype("<f4").tofile(folder / "velodyne" / f"{number:06d}.bin")
        ((numbers[instance] << 16) | raw[instance]).astype("<u4").tofile(folder / "labels" / f"{number:06d}.label")
        view = sensors.render(world, pose @ np.linalg.inv(camera), intrinsic, size, rng)
        (folder / "image_2" / f"{number:06d}.png").write_bytes(images.encode_colour(view.colour))
        moved = camera @ np.linalg.inv(poses[0]) @ pose @ np.linalg.inv(camera)
        lines.append(" ".join(f"{v:.9e}" for v in moved[:3].reshape(-1)))
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    projection = np.concatenate([intrinsic, np.zeros((3, 1))], axis=1)
    matrices = {**{f"P{i}": projection for i in range(4)}, "Tr": KITTI_TR}
    text = "".join(f"{k}: " + " ".join(f"{v:.12e}" for v in m.reshape(-1)) + "\n" for k, m in matrices.items())
    (folder / "calib.txt").write_text(text)
    (folder / "times.txt").write_text("".join(f"{0.1 * n:.6e}\n" for n in range(scans)))


def write_recording(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One room as RGB-D frames, in the ScanNet export layout."""
    settings, rng = _settings(dataset), _rng(dataset, index)
    world = rooms.build_room(rng, SCANNET_KINDS)
    size = (settings["width"], settings["height"])
    intrinsic = camera_matrix(size)
    folder = root / name
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    full = np.eye(4)
    full[:3, :3] = intrinsic
    for camera in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{camera}.txt", full, fmt="%.6f")
    for number, pose in enumerate(sensors.walk(world, rng, settings["frames_per_room"])):
        frame = sensors.render(world, pose, intrinsic, size, rng)
        (folder / "color" / f"{number}.jpg").write_bytes(images.encode_colour(frame.colour, 92))
        (folder / "depth" / f"{number}.png").write_bytes(images.encode_depth(frame.depth))
        np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%.9f")


def _look_at_furniture(world: World, rng: Generator, classes: tuple[str, ...]) -> NDArray[np.float64]:
    """A pose from a free spot towards an object of one of `classes`, like a person who photographs it."""
    eye = sensors.walk(world, rng, 1)[0][:3, 3]
    wanted = [one for one in world.instances if one.label in classes] or world.instances
    aim = wanted[int(rng.integers(len(wanted)))].centre - eye
    pitch = math.atan2(aim[2], max(0.5, math.hypot(aim[0], aim[1]))) / 2
    return sensors.look(eye, math.atan2(aim[1], aim[0]) + rng.normal(0, 0.25), pitch + rng.normal(0, 0.08))


def camera_matrix(size: tuple[int, int], focal: float = 0.8) -> NDArray[np.float64]:
    """(3, 3) pinhole intrinsics; `focal` in picture widths."""
    return np.array(
        [[focal * size[0], 0, size[0] / 2 - 0.5], [0, focal * size[0], size[1] / 2 - 0.5], [0, 0, 1]], dtype=np.float64
    )


def _placement(rng: Generator) -> NDArray[np.float64]:
    """A rotation about z and a shift: reconstructions start at the camera's first pose."""
    yaw = rng.uniform(-math.pi, math.pi)
    moved = np.eye(4)
    moved[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    moved[:3, 3] = rng.uniform(-3, 3, 3) * [1, 1, 0.02]
    return moved


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _nothing(dataset: Dataset, root: Path) -> None:
    pass


_WRITERS: dict[str, tuple[Callable[[Dataset, int, str, Path], None], Callable[[Dataset, Path], None]]] = {
    "s3dis": (write_s3dis_room, _nothing),
    "scannet": (write_scannet_scene, _finish_scannet),
    "sunrgbd": (write_sunrgbd_view, _finish_sunrgbd),
    "semantickitti": (write_kitti_sequence, _nothing),
    "rgbd-folder": (write_recording, _nothing),
}


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256(dataset.model_dump_json().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for name in ("pretrain_bench.benchmarks.datasets.sens", "pretrain_bench.benchmarks.datasets.images"):
        digest.update(Path(importlib.import_module(name).__file__ or "").read_bytes())
    return digest.hexdigest()[:16]
