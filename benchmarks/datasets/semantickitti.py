"""Reader of the official SemanticKITTI layout (spec G.3).

    <root>/dataset/sequences/SS/  velodyne/NNNNNN.bin  labels/NNNNNN.label  calib.txt  poses.txt  image_2/NNNNNN.png

The root may also be `dataset` or `sequences`. A scene is one scan. Frame: x forward, y left, z up, metres.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import value_checks
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import read_bytes
from pretrain_bench.benchmarks.support.user_files import by_lower_name, elsewhere, list_folder, read_text

PATTERNS = ("sequences/*/velodyne",)
"""Patterns that match in a folder of this layout, also used to suggest the right folder near a wrong one."""

GROUND, ABOVE = (40, 44, 48, 49, 72), (50, 71, 80, 81)
"""Raw ids of ground classes, and of classes that stand above the ground: buildings, trunks, poles, signs. Hedges and trees are
excluded because they may lie below a road on a slope."""


class ScanPaths(NamedTuple):
    """The files of one scan, None if missing. `place` is its index in the poses of its sequence; `first` marks the sequence's
    first scan. `of_task`: its sequence trains or tests and other scans have labels, so this one should too."""

    points: Path
    labels: Path | None
    image: Path | None
    calibration: Path | None
    poses: Path | None
    place: int
    first: bool
    of_task: bool = False

    @property
    def label_path(self) -> Path:
        """The path where the labels are, or should be."""
        return self.points.parent.parent / "labels" / f"{self.points.stem}.label"


def find_scans(root: Path) -> dict[tuple[str, str], ScanPaths]:
    """Map (sequence, scan) to files. Raises DataError if there are none."""
    base = next(
        (p for p in (root / "dataset/sequences", root / "sequences", root) if p.is_dir() and _sequences(p)), root
    )
    scans = {}
    for sequence in _sequences(base):
        poses, calibration = sequence / "poses.txt", sequence / "calib.txt"
        all_labels, all_images = by_lower_name(sequence / "labels"), by_lower_name(sequence / "image_2")
        for number, points in enumerate(list_folder(sequence / "velodyne", ".bin")):
            if not re.fullmatch(r"\d{6}", points.stem):
                raise DataError(f"{points}: expected a name of six digits, such as 000000.bin")
            images = [all_images.get(f"{points.stem}.{ending}") for ending in ("png", "jpg", "jpeg")]
            scans[sequence.name, points.stem] = ScanPaths(
                points,
                all_labels.get(f"{points.stem}.label"),
                next((p for p in images if p is not None), None),
                calibration if calibration.is_file() else None,
                poses if poses.is_file() else None,
                int(points.stem),
                first=number == 0,
            )
    if not scans:
        raise DataError(
            f"{root}: no SemanticKITTI scan found; expected dataset/sequences/SS/velodyne/NNNNNN.bin below it"
            f"{elsewhere(root, *PATTERNS)}"
        )
    return scans


def _sequences(base: Path) -> list[Path]:
    return [p for p in list_folder(base) if re.fullmatch(r"\d{2}", p.name) and (p / "velodyne").is_dir()]


def read_points(path: Path, problems: list[Problem]) -> NDArray[np.float32]:
    """Read (N, 4) float32: x, y, z in metres, remission from 0 to 1."""
    content = read_bytes(path)
    if not content or len(content) % 16:
        raise DataError(f"{path}: {len(content)} bytes, not a whole number of points of 16 bytes; copy it again")
    points = np.frombuffer(content, "<f4").reshape(-1, 4)
    bad = ~np.isfinite(points).all(axis=1) | (np.abs(points[:, :3]) > 1e4).any(axis=1)
    if bad.any():
        raise DataError(f"{path}: point {int(bad.argmax())} is not finite or lies further than 10 km away")
    value_checks.check_extent(points[:, :3], "scan of a laser", str(path), problems)
    remission = value_checks.unit_remission(points[:, 3], str(path), problems)
    return np.column_stack([points[:, :3], remission])


def read_labels(path: Path, points: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Read the raw semantic ids (N,) and instance ids (N,) of a scan with `points` points."""
    content = read_bytes(path)
    if len(content) != 4 * points:
        raise DataError(f"{path}: {len(content)} bytes for {points} points of 4 bytes; it belongs to another scan")
    labels = np.frombuffer(content, "<u4")
    return (labels & 0xFFFF).astype(np.uint16), (labels >> 16).astype(np.int32)


def train_ids(
    raw: NDArray[np.uint16], learning_map: dict[int, int], path: Path, others_are_ignored: bool = False
) -> NDArray[np.uint8]:
    """Training ids (N,): the learning map minus one, 255 for unlabelled. An unknown id raises DataError, or is unlabelled with
    `others_are_ignored`."""
    table = np.full(65536, IGNORE if others_are_ignored else -1, np.int16)
    for source, target in learning_map.items():
        table[source] = IGNORE if target == 0 else target - 1
    ids = table[raw]
    if (ids < 0).any():
        unknown = sorted({int(v) for v in raw[ids < 0]})[:5]
        raise DataError(f"{path}: label ids {', '.join(map(str, unknown))} are not among SemanticKITTI's")
    return ids.astype(np.uint8)


def read_calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    """Map names (P0 to P3, Tr) to (3, 4) matrices."""
    matrices = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, colon, values = line.partition(":")
        if colon:
            matrices[name.strip()] = _matrix(values, path, number)
    if "Tr" not in matrices:
        raise DataError(f"{path}: no line Tr, the transform from the laser to camera 0")
    value_checks.rigid(matrices["Tr"], str(path), "Tr")
    return matrices


def read_pose(path: Path, place: int, tr: NDArray[np.float64], problems: list[Problem]) -> NDArray[np.float64]:
    """Pose (4, 4) of a scan, from its laser frame to that of the first scan: Tr^-1 P Tr. Raises DataError if the file lacks
    the line or the pose is not rigid."""
    lines = read_text(path).splitlines()
    if place >= len(lines):
        raise DataError(f"{path}: {len(lines)} poses, none for scan {place}; expected one line for each scan")
    camera, before, laser = np.eye(4), np.eye(4), np.eye(4)
    where = f"{path}, line {place + 1}"
    camera[:3], laser[:3] = value_checks.rigid(_matrix(lines[place], path, place + 1), where, "the pose"), tr
    if place:
        with contextlib.suppress(DataError):  # the previous scan's own problem, reported with that scan
            before[:3] = _matrix(lines[place - 1], path, place)
            value_checks.check_step(before, camera, where, problems)
    return np.linalg.inv(laser) @ camera @ laser


def split_projection(projection: NDArray[np.float64], path: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split a projection (3, 4) into intrinsics (3, 3) and the rigid transform (4, 4) from laser to camera frame. Raises
    DataError, naming `path`, for a matrix that is not such a product."""
    to_camera = np.eye(4)
    try:
        turned, inverse = np.linalg.qr(np.linalg.inv(projection[:, :3]))
        signs = np.sign(np.diag(inverse))
        intrinsic = np.asarray(np.linalg.inv(signs[:, None] * inverse), np.float64)
        to_camera[:3, 3] = np.linalg.solve(intrinsic, projection[:, 3])
    except np.linalg.LinAlgError:
        raise DataError(f"{path}: the product of P2 and Tr is not a projection") from None
    to_camera[:3, :3] = (turned * signs).T
    return intrinsic / intrinsic[2, 2], to_camera


def _matrix(text: str, path: Path, line: int) -> NDArray[np.float64]:
    try:
        values = np.array([float(v) for v in text.split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (12,) or not np.isfinite(values).all():
        raise DataError(f"{path}, line {line}: expected 12 numbers, a 3x4 matrix")
    return values.reshape(3, 4)
