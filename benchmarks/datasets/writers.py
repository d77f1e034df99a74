"""From one scene of an official layout to its prepared folder: one pair of functions for each layout.

`find_X(dataset, root)` gives scene names and where they come from; `write_X` writes one of them (shapes: layout.py) and
returns what it holds. Everything here can be called in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images, rgbd_folder, s3dis, scannet, semantickitti, sens, sunrgbd
from pretrain_bench.benchmarks.datasets.frame_writer import FrameSource, Reading, SceneFrame, write_frames
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, scene_folder_name
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

MAX_VIEW_POINTS = 50_000
"""Points kept of a SUN RGB-D view, drawn with a seed from its number: as many as VoteNet's own dumps hold."""


def find_s3dis(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Rooms."""
    return {scene_folder_name(key): folder for key, folder in s3dis.find_rooms(root).items()}


def write_s3dis(dataset: Dataset, folder: Path, out: Path, how: Reading) -> dict[str, Any]:
    """A room after the 1 cm quantisation."""
    room = s3dis.read_room(folder, dataset.raw_classes, dataset.classes, how.strict)
    _save(out / UNLABELLED, xyz=room.xyz, rgb=room.rgb)
    _save(out / LABELLED, semantic=room.semantic, instance=room.instance)
    return {"points": len(room.xyz), "problems": room.problems}


def find_recordings(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Recordings of any origin."""
    return {r.name: r for r in rgbd_folder.find_recordings(root)}


def write_recording(dataset: Dataset, recording: rgbd_folder.Recording, out: Path, how: Reading) -> dict[str, Any]:
    """Frames of a folder."""
    problems: list[str] = []
    intrinsic = rgbd_folder.read_intrinsic(recording.intrinsic)
    frames = _folder_frames(recording, how, problems)
    held = write_frames(FrameSource(recording.name, intrinsic, frames, dataset.layout == "scannet"), out, how)
    return {**held, "problems": problems + held["problems"]}


def find_scannet(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Scenes; the label map comes along, where there is one."""
    scenes = scannet.find_scenes(root)
    meshes = any((f / f"{n}_vh_clean_2.ply").is_file() for n, f in scenes.items())
    label_map = scannet.read_label_map(scannet.find_label_map(root)) if meshes else None
    return {name: (folder, label_map) for name, folder in scenes.items()}


def write_scannet(
    dataset: Dataset, source: tuple[Path, dict[str, int] | None], out: Path, how: Reading
) -> dict[str, Any]:
    """Frames of the stream (or of the exported folder) and the labelled mesh, whichever of the two there is."""
    folder, label_map = source
    name = folder.name
    problems: list[str] = []
    held: dict[str, Any] = {}
    stream = folder / f"{name}.sens"
    if stream.is_file():
        header = sens.read_header(stream)
        frames = _stream_frames(stream, header, how, problems)
        intrinsic = rgbd_folder.sound_intrinsic(header.intrinsic_depth[:3, :3], str(stream))
        held |= write_frames(FrameSource(name, intrinsic, frames, True), out, how)
        problems += held.pop("problems")
    elif (folder / "color").is_dir():
        exported = write_recording(dataset, _only(folder), out, how)
        problems += exported.pop("problems")
        held |= exported
    if (folder / f"{name}_vh_clean_2.ply").is_file():
        scan = scannet.read_scan(folder, label_map)
        if scan.problems and how.strict:
            raise DataError(scan.problems[0])
        problems += scan.problems
        _save(out / UNLABELLED, xyz=scan.xyz, rgb=scan.rgb)
        boxes = scannet.instance_boxes(scan, dataset.box_class_ids)
        labels = scannet.train_ids(scan.nyu40, dataset.class_ids)
        _save(out / LABELLED, semantic=labels, instance=scan.instance, boxes=boxes, alignment=scan.alignment)
        held |= {"points": len(scan.xyz), "boxes": len(boxes)}
    if not held:
        raise DataError(f"{folder}: neither {name}.sens nor exported frames nor {name}_vh_clean_2.ply in it")
    return {**held, "problems": problems}


def find_semantickitti(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Scans, named SS__NNNNNN."""
    return {scene_folder_name(key): paths for key, paths in semantickitti.find_scans(root).items()}


def write_semantickitti(dataset: Dataset, scan: semantickitti.ScanPaths, out: Path, how: Reading) -> dict[str, Any]:
    """A scan with remission; its pose, and the forward picture with its projection, where there are any."""
    points = semantickitti.read_points(scan.points)
    calibration = semantickitti.read_calibration(scan.calibration)
    arrays: dict[str, NDArray] = {"xyz": points[:, :3].copy(), "remission": points[:, 3].copy()}
    if scan.poses is not None:
        arrays["pose"] = semantickitti.read_pose(scan.poses, scan.place, calibration["Tr"])
    held: dict[str, Any] = {"points": len(points)}
    if scan.image is not None and "P2" in calibration:
        images.decode_colour(scan.image, str(scan.image))
        arrays["projection"] = calibration["P2"] @ np.vstack([calibration["Tr"], [0, 0, 0, 1]])
        semantickitti.split_projection(arrays["projection"], str(scan.calibration))
        _picture(out / UNLABELLED, "image", (scan.image.read_bytes(), scan.image.suffix))
        held["frames"] = 1
    _save(out / UNLABELLED, **arrays)
    if scan.labels is not None:
        raw, instance = semantickitti.read_labels(scan.labels, len(points))
        semantic = semantickitti.train_ids(raw, dataset.learning_map, scan.labels)
        _save(out / LABELLED, semantic=semantic, instance=instance)
    return {**held, "problems": []}


def find_sunrgbd(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Views, named by their six digits."""
    return dict(sunrgbd.find_views(root))


def write_sunrgbd(dataset: Dataset, source: Any, out: Path, how: Reading) -> dict[str, Any]:
    """A view: at most MAX_VIEW_POINTS points, its picture, its boxes."""
    view = sunrgbd.read_view(source, dataset.classes)
    if view.problems and how.strict:
        raise DataError(view.problems[0])
    rows = np.arange(len(view.xyz))
    if len(rows) > MAX_VIEW_POINTS:
        rows = np.sort(np.random.default_rng(int(source.number)).permutation(len(rows))[:MAX_VIEW_POINTS])
    _save(out / UNLABELLED, xyz=view.xyz[rows], rgb=view.rgb[rows], rotation=view.rotation, intrinsic=view.intrinsic)
    _picture(out / UNLABELLED, "image", view.image)
    _save(out / LABELLED, boxes=view.boxes)
    return {"points": len(rows), "frames": 1, "boxes": len(view.boxes), "test": source.test, "problems": view.problems}


FINDERS: dict[str, Callable[[Dataset, Path], dict[str, Any]]] = {
    "s3dis": find_s3dis,
    "rgbd-folder": find_recordings,
    "scannet": find_scannet,
    "semantickitti": find_semantickitti,
    "sunrgbd": find_sunrgbd,
}
WRITERS: dict[str, Callable[[Dataset, Any, Path, Reading], dict[str, Any]]] = {
    "s3dis": write_s3dis,
    "rgbd-folder": write_recording,
    "scannet": write_scannet,
    "semantickitti": write_semantickitti,
    "sunrgbd": write_sunrgbd,
}


def _only(folder: Path) -> rgbd_folder.Recording:
    return rgbd_folder.find_recordings(folder)[0]


def _folder_frames(recording: rgbd_folder.Recording, how: Reading, problems: list[str]) -> Iterable[SceneFrame]:
    size: tuple[int, int] | None = None
    frames = [f for f in recording.frames if f.number % how.frame_stride == 0]
    posed = _has_poses(recording.name, frames, how, problems)
    for frame in frames:
        try:
            if not frame.depth.is_file():
                raise DataError(f"{frame.depth}: no such file")
            pose = rgbd_folder.read_pose(frame.pose) if posed else None
            if posed and pose is None:
                raise DataError(f"{frame.pose}: the pose is not finite (tracking was lost)")
            depth = images.decode_depth(frame.depth, str(frame.depth), size)
            images.decode_colour(frame.colour, str(frame.colour))
        except DataError as error:
            _note(str(error), how, problems)
            continue
        size = size or (depth.shape[1], depth.shape[0])
        suffix = frame.colour.suffix.replace("jpeg", "jpg")
        yield SceneFrame(frame.number, pose, (frame.colour.read_bytes(), suffix), depth)


def _has_poses(name: str, frames: list[rgbd_folder.FramePaths], how: Reading, problems: list[str]) -> bool:
    """Whether the poses of a recording are used: only where every frame that is read has a pose file, or frames of one
    recording would lie in different worlds."""
    posed = sum(f.pose.is_file() for f in frames)
    if 0 < posed < len(frames):
        problem = f"{name}: {posed} of the {len(frames)} frames that are read have a pose file"
        if how.strict:
            missing = next(f.pose for f in frames if not f.pose.is_file())
            raise DataError(f"{problem}; {missing}: no such file")
        problems.append(f"{problem}; no pose of this recording is used")
    return posed == len(frames)


def _stream_frames(path: Path, header: sens.SensHeader, how: Reading, problems: list[str]) -> Iterable[SceneFrame]:
    suffix = {"jpeg": ".jpg"}.get(header.colour_compression, ".png")
    for frame in sens.read_frames(path, how.frame_stride):
        name = f"{path}, frame {frame.number}"
        try:
            pose = rgbd_folder.sound_pose(frame.pose, name)
            if pose is None:
                raise DataError(f"{name}: the pose is not finite (tracking was lost)")
            depth = sens.frame_depth(header, frame, name)
            colour = sens.frame_colour(header, frame, name)
        except DataError as error:
            _note(str(error), how, problems)
            continue
        stored = frame.colour if header.colour_compression != "raw" else images.encode_colour(colour)
        if header.depth_shift != 1000:
            scaled = np.round(depth * (1000 / header.depth_shift))
            depth = np.where((depth == 65535) | (scaled > 65534), 0, scaled).astype(np.uint16)
        yield SceneFrame(frame.number, pose, (stored, suffix), depth)


def _note(problem: str, how: Reading, problems: list[str]) -> None:
    if how.strict:
        raise DataError(problem)
    problems.append(f"{problem}; the frame is left out")


def _picture(folder: Path, stem: str, picture: tuple[bytes, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}{picture[1]}").write_bytes(picture[0])


def _save(folder: Path, **arrays: NDArray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
