"""Reader of 7-Scenes as distributed (spec 3.3).

    <scene>/seq-XX/frame-NNNNNN.{color.png, depth.png, pose.txt}     <scene>/{TrainSplit,TestSplit}.txt: lines "sequence1"

The root is a scene, or a folder of scenes. The data include no intrinsics: depth takes those published by the dataset's authors
(f = 585, centre (320, 240), at 640 x 480), and colour the usual f = 525. Colour is resampled from its own camera; the sensors are
mounted side by side, so an offset of 10 to 15 pixels remains at close range. A `camera-intrinsics.txt` in the sequence or scene
replaces these intrinsics, and colour is then taken as registered.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.datasets import images, rgbd_folder
from pretrain_bench.benchmarks.datasets.frame_writer import Reading
from pretrain_bench.benchmarks.datasets.recordings import (
    Calibration,
    pinhole,
    resized,
    with_sensor,
    write_calibrated,
)
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder, read_text

PATTERNS = ("seq-*/frame-*.color.*", "*/seq-*/frame-*.color.*")
WIDTH, DEPTH_FOCAL, COLOUR_FOCAL, CENTRE = 640, 585.0, 525.0, (320.0, 240.0)
SPLITS = {"TrainSplit.txt": False, "TestSplit.txt": True}


class Sequence(NamedTuple):
    """A folder seq-XX, and whether the scene's lists mark it as a test sequence; None if they do not list it."""

    folder: Path
    test: bool | None


def find(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Sequences, named <scene>__seq-XX."""
    scenes = [root] if _sequences(root) else [p for p in list_folder(root) if p.is_dir() and _sequences(p)]
    sequences = {}
    for scene in scenes:
        part = {number: test for name, test in SPLITS.items() for number in _listed(scene / name)}
        for folder in _sequences(scene):
            number = int(folder.name.partition("-")[2])
            sequences[f"{scene.resolve().name}__{folder.name}"] = Sequence(folder, part.get(number))
    if not sequences:
        zipped = next(iter([*root.glob("seq-*.zip"), *root.glob("*/seq-*.zip")]), None)
        hint = f"; unpack {zipped}" if zipped is not None else ""
        raise DataError(f"{root}: no 7-Scenes sequence; expected <scene>/seq-XX/frame-NNNNNN.color.png{hint}")
    return sequences


def write(dataset: Dataset, sequence: Sequence, out: Path, how: Reading) -> dict[str, Any]:
    """Write the frames of one sequence."""
    recording = rgbd_folder.find_recordings(sequence.folder)[0]
    scene = sequence.folder.parent
    recording = recording._replace(name=f"{scene.resolve().name}__{sequence.folder.name}")
    calibration = with_sensor(_calibration(recording), dataset.sensor, dataset.name)
    return {**write_calibrated(recording, calibration, out, how), "test": sequence.test}


def _calibration(recording: rgbd_folder.Recording) -> Calibration:
    if recording.intrinsic.is_file():
        return Calibration(rgbd_folder.read_intrinsic(recording.intrinsic), str(recording.intrinsic))
    first = recording.frames[0]
    across, down = (images.picture_size(p, str(p))[0] / WIDTH for p in (first.depth, first.colour))
    return Calibration(
        resized(pinhole(DEPTH_FOCAL, DEPTH_FOCAL, *CENTRE), across),
        f"{first.depth.parent}, the published intrinsics",
        resized(pinhole(COLOUR_FOCAL, COLOUR_FOCAL, *CENTRE), down),
        assumed=(
            f"intrinsics: the published f = {DEPTH_FOCAL:g}, centre {CENTRE[0]:g} {CENTRE[1]:g} for depth, "
            f"f = {COLOUR_FOCAL:g} for colour, at {WIDTH} pixels across",
            "registration: approximate; the offset between the two sensors is not known",
        ),
    )


def _sequences(scene: Path) -> list[Path]:
    return [p for p in list_folder(scene) if p.is_dir() and re.fullmatch(r"seq-\d+", p.name)]


def _listed(path: Path) -> list[int]:
    if not path.is_file():
        return []
    words = read_text(path).split()
    matches = [re.fullmatch(r"sequence(\d+)", word) for word in words]
    if not all(matches):
        raise DataError(f"{path}: expected lines such as sequence1, not {words[matches.index(None)]!r}")
    return [int(match[1]) for match in matches if match]
