"""Convert one scene of an official layout to its prepared folder, with a pair of functions for each layout.

`find_X(dataset, root)` maps scene names to sources; `write_X` writes one of them (shapes: layout.py) and returns the content of
its manifest entry. All of them can be called in another process.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import (
    images,
    rgbd_folder,
    s3dis,
    scannet,
    semantickitti,
    sens,
    sunrgbd,
    value_checks,
)
from pretrain_bench.benchmarks.datasets.frame_writer import FrameSource, Reading, SceneFrame, write_frames
from pretrain_bench.benchmarks.datasets.layout import LABELLED, UNLABELLED, scenes_by_name
from pretrain_bench.benchmarks.datasets.parts import SceneParts, holding_depth
from pretrain_bench.benchmarks.datasets.recordings import (
    Calibration,
    to_millimetres,
    usable_frames,
    with_camera_checked,
    with_sensor,
    write_calibrated,
)
from pretrain_bench.benchmarks.datasets.splits import listed_scenes, usable_scenes
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

MAX_VIEW_POINTS = 50_000
"""Points kept of a SUN RGB-D view, drawn with its number as seed: as many as in VoteNet's own dumps."""


def find_s3dis(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find rooms."""
    return scenes_by_name(s3dis.find_rooms(root, dataset.split_file is None).items())


def write_s3dis(dataset: Dataset, folder: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write a room, reduced to one point per 1 cm cell."""
    room = s3dis.read_room(folder, dataset.raw_classes, dataset.classes, how.strict)
    save_arrays(out / UNLABELLED, xyz=room.xyz, rgb=room.rgb)
    save_arrays(out / LABELLED, semantic=room.semantic, instance=room.instance)
    return {"points": len(room.xyz), "problems": room.problems}


def find_recordings(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find recordings of any origin."""
    return {r.name: r for r in rgbd_folder.find_recordings(root)}


def write_recording(dataset: Dataset, recording: rgbd_folder.Recording, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of a folder."""
    if dataset.sensor.camera is not None:
        intrinsic = np.eye(3)  # replaced by the dataset file's camera
    else:
        intrinsic = rgbd_folder.read_intrinsic(recording.intrinsic)
    calibration = with_sensor(Calibration(intrinsic, str(recording.intrinsic)), dataset.sensor, dataset.name)
    return write_calibrated(recording, calibration, out, how, dataset.layout == "scannet")


def find_scannet(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find scenes; reads the label map if a scene has a mesh."""
    scenes = scannet.find_scenes(root)
    meshes = any((f / f"{n}_vh_clean_2.ply").is_file() for n, f in scenes.items())
    label_map = None
    if meshes and dataset.class_ids:
        label_map = scannet.read_label_map(scannet.find_label_map(root))
    elif meshes:  # the classes of a user's dataset are the categories of the annotation
        label_map = {name: place for place, name in enumerate(dataset.classes, start=1)}
    listed = listed_scenes(dataset)
    return {n: scannet.SceneSource(f, label_map, not listed or n in listed) for n, f in scenes.items()}


def write_scannet(dataset: Dataset, source: scannet.SceneSource, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of the stream (or exported folder) and the labelled mesh, each if present and readable."""
    folder = source.folder
    name = folder.name
    parts = SceneParts(name, how.strict)

    def drop_frames() -> None:
        shutil.rmtree(out / UNLABELLED / "frames", ignore_errors=True)

    if (folder / f"{name}.sens").is_file():
        parts.add("recording", lambda: _write_stream(folder / f"{name}.sens", out, how), drop_frames)
    elif (folder / "color").is_dir():
        parts.add("recording", lambda: write_recording(dataset, _only(folder), out, how), drop_frames)
    if (folder / f"{name}_vh_clean_2.ply").is_file():
        parts.add("mesh", lambda: _write_mesh(dataset, source, out))
    elif (
        source.label_map is not None and source.of_task
    ):  # other scenes have one; data without any mesh are for pre-training only
        parts.problem(f"{folder / f'{name}_vh_clean_2.ply'}: no such file; scene {name} is left out of tasks")
    return parts.result(f"{folder}: neither {name}.sens nor exported frames nor {name}_vh_clean_2.ply in it")


def _write_stream(stream: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of a ScanNet stream."""
    problems: list[Problem] = []
    header = sens.read_header(stream)
    intrinsic = value_checks.intrinsic(header.intrinsic_depth, f"{stream}, depth camera")
    frames = with_camera_checked(_stream_frames(stream, header, how, problems), intrinsic, str(stream), problems)
    held = write_frames(FrameSource(stream.stem, intrinsic, frames, True), out, how)
    return {**held, "problems": problems + held["problems"]}


def _write_mesh(dataset: Dataset, source: scannet.SceneSource, out: Path) -> dict[str, Any]:
    """Write the vertices of a ScanNet mesh with their labels and boxes."""
    scan = scannet.read_scan(source)
    held: dict[str, Any] = {"points": len(scan.xyz), "problems": scan.problems}
    labels: dict[str, NDArray] = {}
    if scan.annotated:
        ids = dataset.class_ids or tuple(range(1, len(dataset.classes) + 1))
        labels = {"semantic": scannet.train_ids(scan.nyu40, ids), "instance": scan.instance}
    if scan.annotated and scan.alignment is not None:
        boxes = scannet.instance_boxes(scan, dataset.box_class_ids)
        labels |= {"boxes": boxes, "alignment": scan.alignment}
        held["boxes"] = len(boxes)
    save_arrays(out / UNLABELLED, xyz=scan.xyz, rgb=scan.rgb)
    if labels:
        save_arrays(out / LABELLED, **labels)
    return held


def find_semantickitti(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find scans, named SS__NNNNNN."""
    scans = scenes_by_name(semantickitti.find_scans(root).items())
    labelled = set(usable_scenes(scans, dataset)) if any(s.labels is not None for s in scans.values()) else set()
    return {name: scan._replace(of_task=name in labelled) for name, scan in scans.items()}


def write_semantickitti(dataset: Dataset, scan: semantickitti.ScanPaths, out: Path, how: Reading) -> dict[str, Any]:
    """Write a scan with remission, and its pose and forward picture with projection, where available."""
    parts = SceneParts(scan.points.stem, how.strict)
    points = semantickitti.read_points(scan.points, parts.problems)
    arrays: dict[str, NDArray] = {"xyz": points[:, :3].copy(), "remission": points[:, 3].copy()}
    held: dict[str, Any] = {"points": len(points)}
    if scan.calibration is not None:
        calibration = semantickitti.read_calibration(scan.calibration)
        value_checks.check_laser_axes(calibration["Tr"], str(scan.calibration), parts.problems)
        if scan.poses is not None:
            arrays["pose"] = semantickitti.read_pose(scan.poses, scan.place, calibration["Tr"], parts.problems)
        if scan.image is not None and "P2" in calibration:
            colour = images.decode_colour(scan.image, str(scan.image))
            value_checks.check_picture(colour, images.colour_bits(scan.image), str(scan.image), parts.problems)
            k = value_checks.intrinsic(calibration["P2"][:, :3], where := f"{scan.calibration}, P2")
            value_checks.check_camera(k, (colour.shape[1], colour.shape[0]), where, parts.problems)
            arrays["projection"] = calibration["P2"] @ np.vstack([calibration["Tr"], [0, 0, 0, 1]])
            semantickitti.split_projection(arrays["projection"], str(scan.calibration))
            _picture(out / UNLABELLED, "image", (scan.image.read_bytes(), scan.image.suffix))
            held["frames"] = 1
    elif scan.first and (scan.poses is not None or scan.image is not None):
        path = scan.points.parent.parent / "calib.txt"
        parts.problem(f"{path}: no such file; the poses and pictures of its sequence are not used")
    save_arrays(out / UNLABELLED, **arrays)
    if scan.labels is not None:
        raw, instance = semantickitti.read_labels(scan.labels, len(points))
        own_ids = bool(dataset.class_ids)
        semantic = semantickitti.train_ids(raw, dataset.learning_map, scan.labels, own_ids)
        save_arrays(out / LABELLED, semantic=semantic, instance=instance)
        value_checks.check_labelled(raw > 0, str(scan.labels), parts.problems)
        if not own_ids:
            high, ground = (np.isin(raw, ids) for ids in (semantickitti.ABOVE, semantickitti.GROUND))
            what = f"{scan.points}: buildings, trunks, poles and signs above the road"
            value_checks.check_above(points[:, 2], high, ground, what, parts.problems)
    elif scan.of_task:
        parts.problem(f"{scan.label_path}: no such file; the scan is left out of tasks")
    return {**held, "problems": parts.problems}


def find_sunrgbd(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find views, named by their six digits."""
    return dict(sunrgbd.find_views(root))


def write_sunrgbd(dataset: Dataset, source: Any, out: Path, how: Reading) -> dict[str, Any]:
    """Write a view: at most MAX_VIEW_POINTS points, its picture, its boxes."""
    view = sunrgbd.read_view(source, dataset.classes)
    rows = np.arange(len(view.xyz))
    if len(rows) > MAX_VIEW_POINTS:
        rows = np.sort(np.random.default_rng(int(source.number)).permutation(len(rows))[:MAX_VIEW_POINTS])
    save_arrays(
        out / UNLABELLED, xyz=view.xyz[rows], rgb=view.rgb[rows], rotation=view.rotation, intrinsic=view.intrinsic
    )
    _picture(out / UNLABELLED, "image", view.image)
    save_arrays(out / LABELLED, boxes=view.boxes)
    return {"points": len(rows), "frames": 1, "boxes": len(view.boxes), "test": source.test, "problems": view.problems}


def _only(folder: Path) -> rgbd_folder.Recording:
    return rgbd_folder.find_recordings(folder)[0]


def _stream_frames(path: Path, header: sens.SensHeader, how: Reading, problems: list[Problem]) -> Iterable[SceneFrame]:
    suffix = {"jpeg": ".jpg"}.get(header.colour_compression, ".png")

    def decode(frame: sens.SensFrame) -> SceneFrame:
        name = f"{path}, frame {frame.number}"
        pose = rgbd_folder.sound_pose(frame.pose, name)
        if pose is None:
            raise DataError(f"{name}: the pose is not finite (tracking was lost)")
        depth = holding_depth(sens.frame_depth(header, frame, name), name)
        colour = sens.frame_colour(header, frame, name)
        value_checks.check_picture(colour, images.colour_bits(frame.colour), name, problems)
        stored = frame.colour if header.colour_compression != "raw" else images.encode_colour(colour)
        return SceneFrame(frame.number, pose, (stored, suffix), to_millimetres(depth, header.depth_shift))

    return usable_frames(path.stem, sens.read_frames(path, how.frame_stride), decode, how, problems)


def _picture(folder: Path, stem: str, picture: tuple[bytes, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}{picture[1]}").write_bytes(picture[0])


def save_arrays(folder: Path, **arrays: NDArray) -> None:
    """Save arrays of the prepared form, each under the name of its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
