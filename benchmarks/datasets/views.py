"""Load what a stage may read of a prepared dataset: clouds or frames, and labels only from the labelled view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED
from pretrain_bench.benchmarks.datasets.pairs import move, unproject
from pretrain_bench.benchmarks.datasets.semantickitti import split_projection
from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.support.errors import DataError


class Cloud(NamedTuple):
    """xyz (N, 3) float32 metres, z up; rgb (N, 3) uint8 or, from a laser, float32: its remission times 255 in all three
    channels, so that a network's first layer for colours accepts it (spec F.5)."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8] | NDArray[np.float32]


class Labels(NamedTuple):
    """semantic (N,) uint8 training ids, 255 for none; instance (N,) int32, all -1 if the data do not separate objects."""

    semantic: NDArray[np.uint8]
    instance: NDArray[np.int32]


UpRule = Literal["poses", "turned", "camera", "tilt", "laser"]
UP_RULES: dict[UpRule, str] = {
    "poses": "recorded poses",
    "turned": "recorded poses, in a world that was turned to z up",
    "camera": "the camera's axes, (x, y, z) to (x, z, -y)",
    "tilt": "the dataset's tilt matrix Rtilt after (x, z, -y)",
    "laser": "the laser's frame, whose z is up",
}
"""Rules that bring the points of a frame to a coordinate frame with z up."""
CAMERA_TO_UPRIGHT: NDArray[np.float64] = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""From a level camera (x right, y down, z forward) to x right, y forward, z up."""


class Frame(NamedTuple):
    """One picture and the points measured in it, by a depth camera or a laser.

    colour (H, W, 3) uint8 RGB; camera (N, 3) float64 metres in the camera frame: x right, y down, z forward; uv (N, 2) int64
    column and row of each point's pixel; pose (4, 4) from the camera frame to a frame with z up, by the rule `up`; intrinsic
    (3, 3) pixels, with (0, 0) at the centre of the first pixel.
    """

    colour: NDArray[np.uint8]
    camera: NDArray[np.float64]
    uv: NDArray[np.int64]
    pose: NDArray[np.float64]
    intrinsic: NDArray[np.float64]
    up: UpRule


class FramePoints(NamedTuple):
    """xyz (N, 3) float64 metres; rgb (N, 3) float64 in 0..255, from the pixel; uv (N, 2) int64 column and row of the pixel."""

    xyz: NDArray[np.float64]
    rgb: NDArray[np.float64]
    uv: NDArray[np.int64]


def upright_points(frame: Frame) -> FramePoints:
    """The points of a frame in metres, z up: in the recorded world if there are poses, else by the frame's rule `up`."""
    return _coloured(frame, move(frame.camera, frame.pose))


def camera_points(frame: Frame) -> FramePoints:
    """The points of a frame in the camera frame (x right, y down, z forward), without any pose or rule."""
    return _coloured(frame, frame.camera)


def _coloured(frame: Frame, xyz: NDArray[np.float64]) -> FramePoints:
    return FramePoints(xyz, frame.colour[frame.uv[:, 1], frame.uv[:, 0]].astype(np.float64), frame.uv)


def load_cloud(view: Path, scene: str) -> Cloud:
    """The points of a scene; `view` is the folder that holds `unlabelled/`."""
    folder = view / UNLABELLED / scene
    if (folder / "remission.npy").is_file():
        remission = np.clip(_load(folder / "remission.npy"), 0, 1).astype(np.float32) * np.float32(255)
        return Cloud(_load(folder / "xyz.npy"), np.repeat(remission[:, None], 3, axis=1))
    return Cloud(_load(folder / "xyz.npy"), _load(folder / "rgb.npy"))


def load_labels(view: Path, scene: str, label_ids: Sequence[int] = ()) -> Labels:
    """The labels of a scene. `label_ids` are the ids of a task's classes, mapped to 0, 1, ...; other ids become 255. Raises
    DataError in a stage that was not given the labelled view."""
    folder = view / LABELLED / scene
    semantic = _load(folder / "semantic.npy")
    known = has_instances(view, scene)
    labels = Labels(semantic, _load(folder / "instance.npy") if known else np.full(len(semantic), -1, np.int32))
    if not label_ids:
        return labels
    table = np.full(256, IGNORE, np.uint8)
    table[list(label_ids)] = np.arange(len(label_ids))
    return labels._replace(semantic=table[labels.semantic])


def load_boxes(view: Path, scene: str) -> NDArray[np.float32]:
    """Boxes (K, 8) of a scene's objects: centre, full size, heading and class, in metres and radians, along the axes that
    `load_alignment` maps to. Raises DataError as `load_labels`."""
    return _load(view / LABELLED / scene / "boxes.npy")


def load_alignment(view: Path, scene: str) -> NDArray[np.float64]:
    """Transform (4, 4) from the axes of the points to those of the boxes; the identity if the dataset uses the same axes."""
    path = view / LABELLED / scene / "alignment.npy"
    return np.asarray(_load(path)) if path.is_file() else np.eye(4)


def load_aligned_cloud(view: Path, scene: str) -> tuple[NDArray[np.float64], NDArray]:
    """The points (N, 3) of a scene along the axes of its boxes, and their colours. Raises DataError as `load_labels`."""
    cloud, alignment = load_cloud(view, scene), load_alignment(view, scene)
    xyz = np.asarray(cloud.xyz, np.float64) @ alignment[:3, :3].T + alignment[:3, 3]
    return xyz, np.asarray(cloud.rgb)


def has_instances(view: Path, scene: str) -> bool:
    """Whether the labels of a scene separate points of different objects."""
    return (view / LABELLED / scene / "instance.npy").is_file()


def list_frames(view: Path, scenes: tuple[str, ...]) -> list[tuple[str, int]]:
    """(scene, index) of every frame, in the order of `scenes`, skipping scenes without pictures. Raises DataError if no scene
    has a frame."""
    frames = [(s, i) for s in scenes for i in range(_frame_count(view / UNLABELLED / s))]
    if not frames:
        raise DataError(f"{view}: none of its {len(scenes)} scenes has a frame (a picture with points) to pre-train on")
    return frames


def up_rules(view: Path, frames: Iterable[tuple[str, int]]) -> dict[UpRule, int]:
    """Count the frames for each rule that gives them z up."""
    scenes = Counter(scene for scene, _ in frames)
    counts: Counter[UpRule] = Counter()
    for scene, number in scenes.items():
        counts[up_rule(view / UNLABELLED / scene)] += number
    return {rule: counts[rule] for rule in UP_RULES if counts[rule]}


def up_rules_text(counts: dict[UpRule, int]) -> str:
    """Format the result of `up_rules` for the notes of a run."""
    return "; ".join(f"{number} frames by {UP_RULES[rule]}" for rule, number in counts.items())


def up_rule(folder: Path) -> UpRule:
    """The rule that gives the frames of a prepared scene z up, determined from the scene's files."""
    if (folder / "frames").is_dir():
        if not (folder / "poses.npy").is_file():
            return "camera"
        return "turned" if (folder / "world_up.npy").is_file() else "poses"
    return "tilt" if (folder / "rotation.npy").is_file() else "laser"


def load_frame(view: Path, scene: str, index: int) -> Frame:
    """Load one frame, from any sensor. Raises DataError if one of its files is missing or damaged.

    Points behind the camera or outside the picture are omitted. Colour is resized (bilinear) to the depth image if their sizes
    differ.
    """
    folder = view / UNLABELLED / scene
    colour, rule = load_colour(view, scene, index), up_rule(folder)
    if rule in ("poses", "turned", "camera"):
        path = _depth_path(folder, index)
        millimetres = images.decode_depth(path, str(path))
        depth = np.where(millimetres == 65535, 0, millimetres).astype(np.float32) / np.float32(1000)
        pose = None if rule == "camera" else _load(folder / "poses.npy")[index]
        return depth_frame(colour, depth, pose, _load(folder / "intrinsic.npy"))._replace(up=rule)
    xyz = np.asarray(_load(folder / "xyz.npy"), np.float64)
    if rule == "tilt":
        intrinsic, to_camera = _load(folder / "intrinsic.npy"), np.eye(4)
        to_camera[:3, :3] = (_load(folder / "rotation.npy") @ CAMERA_TO_UPRIGHT[:3, :3]).T
    else:
        intrinsic, to_camera = split_projection(_load(path := folder / "projection.npy"), str(path))
    return point_frame(colour, xyz, to_camera, intrinsic, rule)


def load_colour(view: Path, scene: str, index: int) -> NDArray[np.uint8]:
    """Load only the picture of a frame, (H, W, 3) uint8. Raises DataError as `load_frame`."""
    from PIL import Image

    folder = view / UNLABELLED / scene
    depth_path = _depth_path(folder, index)
    stem = folder / "image" if up_rule(folder) in ("tilt", "laser") else depth_path.with_name(f"{index:06d}")
    path = next((p for p in (stem.with_suffix(".jpg"), stem.with_suffix(".png")) if p.is_file()), None)
    if path is None:
        raise DataError(f"{stem}.jpg: no such file; prepare the dataset again")
    pixels = images.decode_colour(path, str(path))
    if depth_path.is_file() and pixels.shape[1::-1] != (size := images.picture_size(depth_path, str(depth_path))):
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    return pixels


def depth_frame(
    colour: NDArray[np.uint8],
    depth: NDArray[np.floating],
    pose: NDArray[np.float64] | None,
    intrinsic: NDArray[np.float64],
) -> Frame:
    """Make a frame from a depth image (H, W) in metres (0 for none), pixel-aligned with `colour`: all pixels with depth, by row.

    `pose` (4, 4) is camera-to-world with z up, or None without recorded poses.
    """
    rows, columns = np.nonzero(depth > 0)
    uv = np.stack([columns, rows], axis=1).astype(np.int64)
    rule: UpRule = "camera" if pose is None else "poses"
    return Frame(colour, unproject(depth, intrinsic), uv, CAMERA_TO_UPRIGHT if pose is None else pose, intrinsic, rule)


def point_frame(
    colour: NDArray[np.uint8],
    xyz: NDArray[np.float64],
    to_camera: NDArray[np.float64],
    intrinsic: NDArray[np.float64],
    up: UpRule,
) -> Frame:
    """Make a frame from points (N, 3) with z up; the rigid `to_camera` (4, 4) maps them to the camera frame.

    Keeps the points in front of the camera and inside the picture, each with its pixel.
    """
    camera = move(xyz, to_camera)
    camera = camera[camera[:, 2] > 0]
    places = camera @ intrinsic.T
    uv = np.rint(places[:, :2] / places[:, 2:])
    height, width = colour.shape[:2]
    inside = ((uv >= 0) & (uv < (width, height))).all(axis=1)
    pose = np.asarray(np.linalg.inv(to_camera), np.float64)
    return Frame(colour, camera[inside], uv[inside].astype(np.int64), pose, intrinsic, up)


def _frame_count(folder: Path) -> int:
    if (folder / "frames").is_dir():
        return len(_load(folder / "frame_numbers.npy"))
    return int(any((folder / f"image{suffix}").is_file() for suffix in (".jpg", ".png")))


def _depth_path(folder: Path, index: int) -> Path:
    return folder / "frames" / f"{index:06d}.depth.png"


def _load(path: Path) -> NDArray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; this view of the dataset does not include it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a numpy array: {error}") from None
