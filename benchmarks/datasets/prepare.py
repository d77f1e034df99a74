"""From an official layout to the prepared form, once, scene by scene.

A scene is written beside its place and renamed into it when whole, and so is the dataset: whoever looks sees all of it
or nothing, and a preparation that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import voxelize
from benchmarks.datasets import layout, rgbd_folder, s3dis
from benchmarks.datasets.layout import (
    LABELLED,
    MANIFEST,
    UNLABELLED,
    Manifest,
    SceneEntry,
    hash_files,
    read_manifest,
    scene_folder_name,
)
from benchmarks.errors import DataError, cannot_write
from benchmarks.files import link_or_copy
from benchmarks.locks import exclusive
from benchmarks.specs import Dataset

Progress = Callable[[Iterable[str]], Iterable[str]]


def prepare(dataset: Dataset, root: Path, cache: Path, *, frame_stride: int, strict: bool, progress: Progress) -> Path:
    """Prepare `dataset` from its official layout at `root`; returns the prepared folder below `cache`.

    A folder that is prepared already (it has a manifest) is returned as it is. `frame_stride` applies to frame numbers
    of recordings. Raises DataError naming the file, EnvironmentCannot when the disk is full or not writable.
    """
    if not root.is_dir():
        raise DataError(
            f"{dataset.name}: data root {root} is not a folder; give the one that holds the official layout"
        )
    if (root / MANIFEST).is_file():
        manifest = read_manifest(root)
        if manifest.dataset != dataset.name:
            raise DataError(f"{root}: prepared as {manifest.dataset!r}, but asked for as {dataset.name!r}")
        return root
    target = cache / "prepared" / f"{dataset.name}-{_source_fingerprint(dataset, root, frame_stride, strict)}"
    if (target / MANIFEST).is_file():
        return target
    try:
        with exclusive(target.with_name(target.name + ".lock")):
            if (target / MANIFEST).is_file():
                return target
            return _prepare_into(target, dataset, root, frame_stride, strict, progress)
    except OSError as error:
        raise cannot_write(target, error, f"preparing {dataset.name}") from error


def _prepare_into(
    target: Path, dataset: Dataset, root: Path, frame_stride: int, strict: bool, progress: Progress
) -> Path:
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if dataset.layout == "s3dis":
        rooms = {scene_folder_name(key): folder for key, folder in s3dis.find_rooms(root).items()}
        write = {n: lambda out, f=f: _write_room(f, out, dataset, strict) for n, f in rooms.items()}
    else:
        recordings = {r.name: r for r in rgbd_folder.find_recordings(root)}
        write = {n: lambda out, r=r: _write_recording(r, out, frame_stride, strict) for n, r in recordings.items()}
    scenes, problems = [], []
    for name in progress(sorted(write)):
        done = partial / "scenes" / name
        if not (done / "scene.json").is_file():
            unfinished = partial / "unfinished" / name
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            info = write[name](unfinished)
            (unfinished / "scene.json").write_text(json.dumps(info))
            done.parent.mkdir(exist_ok=True)
            os.replace(unfinished, done)
        info = json.loads((done / "scene.json").read_text())
        problems += info.pop("problems")
        scenes.append(SceneEntry(name=name, **info))
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    for name in sorted(write):
        for view in (UNLABELLED, LABELLED):
            source = partial / "scenes" / name / view
            if source.is_dir():
                shutil.copytree(source, final / view / name, copy_function=link_or_copy)
    manifest = Manifest(
        dataset=dataset.name,
        synthetic=dataset.synthetic,
        scenes=tuple(scenes),
        files=hash_files(final),
        problems=tuple(problems),
    )
    (final / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    os.replace(final, target)
    shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_room(folder: Path, out: Path, dataset: Dataset, strict: bool) -> dict[str, object]:
    room = s3dis.read_room(folder, dataset.raw_classes, dataset.classes, strict)
    views: dict[str, dict[str, NDArray]] = {
        UNLABELLED: {"xyz": room.xyz, "rgb": room.rgb},
        LABELLED: {"semantic": room.semantic, "instance": room.instance},
    }
    for view, arrays in views.items():
        (out / view).mkdir()
        for name, array in arrays.items():
            np.save(out / view / f"{name}.npy", array)
    return {"points": len(room.xyz), "problems": room.problems}


def _write_recording(recording: rgbd_folder.Recording, out: Path, frame_stride: int, strict: bool) -> dict[str, object]:
    intrinsic = rgbd_folder.read_intrinsic(recording.intrinsic)
    folder = out / UNLABELLED / "frames"
    folder.mkdir(parents=True)
    size: tuple[int, int] | None = None
    poses: list[NDArray[np.float64]] = []
    problems: list[str] = []
    for frame in (f for f in recording.frames if f.number % frame_stride == 0):
        pose = rgbd_folder.read_pose(frame.pose)
        if pose is None:
            if strict:
                raise DataError(f"{frame.pose}: the pose is not finite (tracking was lost)")
            problems.append(f"{recording.name}/{frame.pose.name}: the pose is not finite; the frame is left out")
            continue
        size = rgbd_folder.check_depth(frame.depth, size)
        rgbd_folder.check_colour(frame.colour)
        stem = folder / f"{len(poses):06d}"
        shutil.copyfile(frame.colour, stem.with_suffix(frame.colour.suffix.replace("jpeg", "jpg")))
        shutil.copyfile(frame.depth, stem.with_suffix(".depth.png"))
        poses.append(pose)
    if not poses:
        raise DataError(f"{recording.name}: no frame with a finite pose at a stride of {frame_stride}")
    np.save(out / UNLABELLED / "poses.npy", np.stack(poses))
    np.save(out / UNLABELLED / "intrinsic.npy", intrinsic)
    return {"frames": len(poses), "problems": problems}


def _source_fingerprint(dataset: Dataset, root: Path, frame_stride: int, strict: bool) -> str:
    """Names the prepared folder: what the source looks like from outside, and how it is read."""
    digest = hashlib.sha256(f"{dataset.model_dump_json()} {frame_stride} {strict}".encode())
    for module in (layout, rgbd_folder, s3dis, voxelize):
        digest.update(Path(module.__file__ or "").read_bytes())
    digest.update(Path(__file__).read_bytes())
    for path in sorted(root.rglob("*")):
        if path.is_file():
            stat = path.stat()
            digest.update(f"{path.relative_to(root).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
