"""Reader of Replica as rendered for iMAP and NICE-SLAM (spec 3.7).

    <scene>/results/{frameNNNNNN.jpg, depthNNNNNN.png}     <scene>/traj.txt: 16 numbers a line, camera to world, row by row

1200 x 680 pixels, f = 600, centre (599.5, 339.5), depth in 1/6553.5 m. The camera looks along z; y points down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.layouts.posed_frames import folders_with, numbered_files, rows_of_numbers
from pretrain_bench.benchmarks.datasets.recordings import Calibration, pinhole, resized, with_sensor, write_calibrated
from pretrain_bench.benchmarks.datasets.rgbd_folder import FramePaths, Recording
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError

PATTERNS = ("traj.txt", "*/traj.txt")
WIDTH, FOCAL, CENTRE, DEPTH_PER_METRE = 1200, 600.0, (599.5, 339.5), 6553.5


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find scenes: folders with results/ and traj.txt."""
    return folders_with(
        root,
        lambda p: (p / "results").is_dir() and (p / "traj.txt").is_file(),
        "rendered Replica scene",
        "<scene>/results/ and <scene>/traj.txt",
    )


def write(dataset: Dataset, folder: Path, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of one scene. Raises DataError if the trajectory has another number of poses."""
    colours = numbered_files(folder / "results", r"frame(\d+)\.(?:jpe?g|png)")
    poses = rows_of_numbers(folder / "traj.txt", 16).reshape(-1, 4, 4)
    name = folder.resolve().name
    if not colours or max(colours) >= len(poses):
        raise DataError(
            f"{folder / 'traj.txt'}: {len(poses)} poses, but results/ has {len(colours)} pictures, the last one numbered "
            f"{max(colours, default=-1)}"
        )
    frames = [FramePaths(n, p, p.with_name(f"depth{p.stem[5:]}.png"), poses[n]) for n, p in colours.items()]
    scale = images.picture_size(frames[0].colour, str(frames[0].colour))[0] / WIDTH
    calibration = Calibration(
        resized(pinhole(FOCAL, FOCAL, *CENTRE), scale),
        f"{name}, the camera that Replica is rendered with",
        depth_per_metre=DEPTH_PER_METRE,
        assumed=(f"intrinsics: f = {FOCAL:g}, centre {CENTRE[0]:g} {CENTRE[1]:g} at {WIDTH} pixels across",),
    )
    calibration = with_sensor(calibration, dataset.sensor, dataset.name)
    return write_calibrated(Recording(name, frames, folder / "traj.txt"), calibration, out, how)
