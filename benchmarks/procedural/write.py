"""Writes procedural worlds in the official layouts, once for each seed and version of this generator."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.errors import cannot_write
from benchmarks.procedural import parts, rooms, sensors
from benchmarks.specs import Dataset

Progress = Callable[[Iterable[str]], Iterable[str]]


def generate(dataset: Dataset, cache: Path, progress: Progress) -> Path:
    """Write the world of a synthetic dataset below `cache` (or find it there); returns its root in the official layout.

    Equal seed and generator code give equal bytes. Raises EnvironmentCannot when the disk is full or not writable.
    """
    target = cache / "worlds" / f"{dataset.name}-{_fingerprint(dataset)}"
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write = write_s3dis_room if dataset.layout == "s3dis" else write_recording
        names = room_names(dataset)
        with ProcessPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
            jobs = {name: pool.submit(write, dataset, i, name, partial) for i, name in enumerate(names)}
            for name in progress(names):
                jobs[name].result()
        os.replace(partial, target)
    except OSError as error:
        if target.is_dir():
            return target
        raise cannot_write(target, error, f"generating {dataset.name}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def room_names(dataset: Dataset) -> list[str]:
    """Scene paths of a synthetic dataset, relative to its root."""
    world = dataset.world or {}
    if dataset.layout == "s3dis":
        train = [f"Area_{(1, 2, 3, 4, 6)[i % 5]}/room_{i + 1}" for i in range(world["train_rooms"])]
        return train + [f"Area_5/room_{i + 1}" for i in range(world["test_rooms"])]
    return [f"room{i:04d}_00" for i in range(world["rooms"])]


def _room_rng(dataset: Dataset, index: int) -> np.random.Generator:
    assert dataset.world is not None
    return np.random.default_rng([dataset.world["seed"], index])


def write_s3dis_room(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One room as annotation files and the room-level file, in the S3DIS text layout."""
    assert dataset.world is not None
    rng = _room_rng(dataset, index)
    world = rooms.build_room(rng)
    cloud = sensors.sample_surfaces(world, rng, dataset.world["points_per_square_metre"])
    offset = np.round(rng.uniform(-20, 20, 3) * [1, 1, 0.1], 1)
    folder = root / name / "Annotations"
    folder.mkdir(parents=True)
    table = np.concatenate([cloud.xyz + offset, cloud.rgb], axis=1)
    instance = world.instances[cloud.box]
    counts: dict[str, int] = {}
    room_file = folder.parent / f"{folder.parent.name}.txt"
    with room_file.open("w") as whole:
        for number in range(world.instances.max() + 1):
            rows = table[instance == number]
            label = world.labels[int(np.argmax(world.instances == number))]
            if len(rows) == 0:
                continue
            counts[label] = counts.get(label, 0) + 1
            np.savetxt(folder / f"{label}_{counts[label]}.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
            np.savetxt(whole, rows, fmt="%.3f %.3f %.3f %d %d %d")


def write_recording(dataset: Dataset, index: int, name: str, root: Path) -> None:
    """One room as RGB-D frames, in the ScanNet export layout."""
    from PIL import Image

    assert dataset.world is not None
    settings = dataset.world
    rng = _room_rng(dataset, index)
    world = rooms.build_room(rng)
    size = (settings["width"], settings["height"])
    focal = 0.9 * size[0]
    intrinsic = np.array(
        [[focal, 0, size[0] / 2 - 0.5, 0], [0, focal, size[1] / 2 - 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    folder = root / name
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    for camera in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{camera}.txt", intrinsic, fmt="%.6f")
    for number, pose in enumerate(sensors.walk(world, rng, settings["frames_per_room"])):
        frame = sensors.render(world, pose, intrinsic, size, rng)
        Image.fromarray(frame.colour).save(folder / "color" / f"{number}.jpg", quality=92)
        Image.fromarray(frame.depth).save(folder / "depth" / f"{number}.png")
        np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%.9f")


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256(dataset.model_dump_json().encode())
    for module in (parts, rooms, sensors):
        digest.update(Path(module.__file__ or "").read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]
