"""Compute the overlapping pairs of a long recording in all worker processes at once, after its frames are written.

A short recording is one job of one process, including its pairs. One of more than `LONG_FRAMES` frames leaves its pairs to
`finish_pairs`, which resumes where it was stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.layout import UNLABELLED, file_entry
from pretrain_bench.benchmarks.datasets.overlaps import MIN_OVERLAP, Clouds, gather, pairs_of, shares_near
from pretrain_bench.benchmarks.datasets.pairs import voxel_means, world_points
from pretrain_bench.benchmarks.support.processes import process_pool

Progress = Callable[[Iterable[str]], Iterable[str]]
BarFor = Callable[[str], Progress]

LONG_FRAMES = 100
PENDING = "recorded_poses.npy"
"""File beside the views of a scene whose pairs are pending: its poses (F, 4, 4) in the world as recorded."""
_CLOUDS = "clouds"
_FRAMES_PER_JOB = 8

Row = tuple[int, NDArray[np.int64], NDArray[np.float64]]


def frame_cloud(
    depth: NDArray[np.uint16], pose: NDArray[np.float64], intrinsic: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Voxel means (M, 3) of a depth image (H, W), in the world of `pose`. Depth is in millimetres; 0 and 65535 mean none."""
    return voxel_means(world_points(np.where(depth == 65535, 0, depth) / 1000, pose, intrinsic))


def finish_pairs(scenes: Iterable[Path], workers: int, bar_for: BarFor) -> None:
    """Compute and write the pending pairs of written scenes. `bar_for` makes a progress bar from a title.

    Raises EnvironmentCannot if a worker process is killed, and OSError if a file cannot be written.
    """
    waiting = sorted(scene for scene in scenes if (scene / PENDING).is_file())
    if not waiting:
        return
    with process_pool(workers) as pool:
        for scene in waiting:
            try:
                _finish_scene(scene, pool, bar_for)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _finish_scene(scene: Path, pool: Executor, bar_for: BarFor) -> None:
    info: dict[str, Any] = json.loads((scene / "scene.json").read_text())
    if "pairs" not in info:  # else it was interrupted between the last two lines
        frames = len(np.load(scene / PENDING, allow_pickle=False))
        _write_clouds(scene, frames, pool, bar_for(f"points of {scene.name}"))
        path = scene / UNLABELLED / "pairs.npy"
        np.save(path, _pairs(scene, frames, pool, bar_for(f"pairs of {scene.name}")))
        info["pairs"] = len(np.load(path, allow_pickle=False))
        info["files"] = sorted(
            [*info["files"], [UNLABELLED, path.name, file_entry(path).model_dump()]], key=lambda f: f[:2]
        )
        (scene / "scene.json.new").write_text(json.dumps(info))
        os.replace(scene / "scene.json.new", scene / "scene.json")
    shutil.rmtree(scene / _CLOUDS, ignore_errors=True)
    (scene / PENDING).unlink()


def _write_clouds(scene: Path, frames: int, pool: Executor, progress: Progress) -> None:
    """Write the voxel means and coarse cells of all frames as files that every worker maps."""
    folder = scene / _CLOUDS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    jobs = [pool.submit(_clouds_of, scene, chunk) for chunk in _chunks(frames)]
    bar, starts = iter(progress([f"frame {i}" for i in range(frames)])), [0]
    with (folder / "points.raw").open("wb") as file:
        for job in jobs:
            for cloud in job.result():
                file.write(cloud.tobytes())
                starts.append(starts[-1] + len(cloud))
                next(bar, None)
    next(bar, None)
    # An empty file cannot be mapped.
    points = (
        np.memmap(folder / "points.raw", np.float64, "r", shape=(starts[-1], 3)) if starts[-1] else np.zeros((0, 3))
    )
    for name, array in gather(points, np.array(starts))._asdict().items():
        if name != "points":
            np.save(folder / f"{name}.npy", array)


def _pairs(scene: Path, frames: int, pool: Executor, progress: Progress) -> NDArray[np.float64]:
    """(P, 3) rows i, j, overlap; the bar counts all pairs of frames."""
    total = frames * (frames - 1) // 2
    bar, shown, done = iter(progress(["pair"] * total)), 0, 0
    rows: list[Row] = []
    for job in as_completed([pool.submit(_rows_of, scene / _CLOUDS, chunk) for chunk in _chunks(frames)]):
        rows += job.result()
        done = len(rows)
        for _ in range(shown, total * done // frames):
            next(bar, None)
        shown = total * done // frames
    next(bar, None)
    return pairs_of(sorted(rows, key=lambda row: row[0]), frames, MIN_OVERLAP)


def _chunks(frames: int) -> Iterator[range]:
    for first in range(0, frames, _FRAMES_PER_JOB):
        yield range(first, min(first + _FRAMES_PER_JOB, frames))


def _clouds_of(scene: Path, numbers: range) -> list[NDArray[np.float64]]:
    view = scene / UNLABELLED
    poses, intrinsic = (np.load(p, allow_pickle=False) for p in (scene / PENDING, view / "intrinsic.npy"))
    paths = [view / "frames" / f"{number:06d}.depth.png" for number in numbers]
    return [
        frame_cloud(images.decode_depth(p, str(p)), poses[n], intrinsic) for n, p in zip(numbers, paths, strict=True)
    ]


def _rows_of(folder: Path, numbers: range) -> list[Row]:
    clouds = _open_clouds(folder)
    return [(number, *shares_near(clouds, number, MIN_OVERLAP)) for number in numbers]


@lru_cache(maxsize=1)
def _open_clouds(folder: Path) -> Clouds:
    held = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in Clouds._fields if name != "points"}
    rows = int(held["starts"][-1])
    points = np.memmap(folder / "points.raw", np.float64, "r", shape=(rows, 3)) if rows else np.zeros((0, 3))
    return Clouds(points=points, **held)
