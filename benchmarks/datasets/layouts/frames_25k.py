"""Reader of scannet_frames_25k (spec 3.2).

    sceneXXXX_YY/{color/NNNNNN.jpg, depth/NNNNNN.png, pose/NNNNNN.txt}     sceneXXXX_YY/intrinsics_{color,depth}.txt

Depth is in millimetres; poses map the camera to a world with z up. Colour and depth have separate intrinsics; those of colour
refer to 1296 or 640 pixels across, whatever the size of the pictures. `label/` and `instance/` label pixels, which no task uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images, rgbd_folder, scannet
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.recordings import Calibration, resized, with_sensor, write_calibrated
from pretrain_bench.benchmarks.datasets.rgbd_folder import Recording
from pretrain_bench.benchmarks.specs.dataset import Dataset

DEPTH_INTRINSIC, COLOUR_INTRINSIC = "intrinsics_depth.txt", "intrinsics_color.txt"
PATTERNS = (f"scene*/{DEPTH_INTRINSIC}", f"scannet_frames_25k/scene*/{DEPTH_INTRINSIC}")
COLOUR_WIDTHS = (1296, 640)


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Find scenes at the root, or in its folder scannet_frames_25k."""
    inner = root / "scannet_frames_25k"
    scenes = scannet.find_scenes(inner if inner.is_dir() else root)
    return {
        name: rgbd_folder.find_recordings(folder)[0]._replace(intrinsic=folder / DEPTH_INTRINSIC)
        for name, folder in scenes.items()
    }


def write(dataset: Dataset, recording: Recording, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of one scene."""
    calibration = Calibration(rgbd_folder.read_intrinsic(recording.intrinsic), str(recording.intrinsic))
    colour = recording.intrinsic.with_name(COLOUR_INTRINSIC)
    if colour.is_file():
        first = recording.frames[0].colour
        camera = colour_camera(rgbd_folder.read_intrinsic(colour), images.picture_size(first, str(first))[0])
        calibration = calibration._replace(colour_intrinsic=camera)
    calibration = with_sensor(calibration, dataset.sensor, dataset.name)
    return write_calibrated(recording, calibration, out, how, z_is_up=True)


def colour_camera(intrinsic: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Rescale colour intrinsics (3, 3) to pictures of `width`. Their own width is the candidate closest to twice the principal
    point."""
    calibrated = min((*COLOUR_WIDTHS, width), key=lambda w: abs(2 * intrinsic[0, 2] + 1 - w))
    return resized(intrinsic, width / calibrated)
