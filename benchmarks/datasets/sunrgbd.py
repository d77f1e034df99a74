"""Reader of SUN RGB-D in two layouts (spec G.4).

VoteNet's prepared one:  <root>/sunrgbd_trainval/{depth/NNNNNN.mat, image/NNNNNN.jpg, calib/NNNNNN.txt, label_v1/NNNNNN.txt,
                         train_data_idx.txt, val_data_idx.txt}
The raw one:             <root>/SUNRGBD/..., <root>/SUNRGBDtoolbox/{Metadata/SUNRGBDMeta.mat, traintestSUNRGBD/allsplit.mat}

All results are in the upright-depth frame: x right, y forward, z up, metres. Boxes are (K, 8): centre, full size (l, w, h) along
the heading, across it and up, heading in radians (negative is counter-clockwise seen from above, as in VoteNet), class.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images, value_checks
from pretrain_bench.benchmarks.datasets.parts import holding_depth
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import read_bytes
from pretrain_bench.benchmarks.support.user_files import elsewhere, list_folder, read_text

MAX_DEPTH_METRES = 8.0
MOST_MAT_BYTES = 512 << 20
"""Limit of an unpacked file: the points of a view of 730 x 530 pixels take 18 MiB."""
_COMPRESSED = 15
"""Type number of a compressed element of a MATLAB 5 file."""
_VERSION_5 = b"\x00\x01IM"
"""The end of a MATLAB 5 header in little-endian order."""
PATTERNS = ("sunrgbd_trainval/depth", "SUNRGBDtoolbox/Metadata")
"""Patterns that match in a folder of this layout, also used to suggest the right folder near a wrong one."""
MIN_TILT_COSINE = 0.1
"""Least cosine between a view's vertical axis before and after Rtilt: cameras look between level and steeply down."""


class View(NamedTuple):
    """One RGB-D view: xyz (N, 3) float32 upright-depth metres, rgb (N, 3) uint8, boxes (K, 8) float32, rotation (3, 3) Rtilt,
    intrinsic (3, 3) of the colour camera with (0, 0) at the centre of the first pixel, image: the encoded picture and its
    suffix."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    rotation: NDArray[np.float64]
    intrinsic: NDArray[np.float64]
    image: tuple[bytes, str]
    problems: list[Problem]


class Prepared(NamedTuple):
    """A view in VoteNet's layout; `labels` is its label file, version 1 if available."""

    folder: Path
    number: str
    labels: Path
    test: bool


class Raw(NamedTuple):
    """A view in the raw layout; `entry` is its row in the metadata."""

    root: Path
    entry: Any
    number: str
    test: bool


def find_views(root: Path) -> dict[str, Prepared | Raw]:
    """Map view numbers, six digits, to sources. Raises DataError if there are none."""
    folder = root / "sunrgbd_trainval" if (root / "sunrgbd_trainval").is_dir() else root
    if (folder / "depth").is_dir():
        return _find_prepared(folder)
    metadata = root / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
    if metadata.is_file():
        return _find_raw(root, metadata)
    raise DataError(
        f"{root}: no SUN RGB-D found; expected sunrgbd_trainval/depth/ or SUNRGBDtoolbox/Metadata/ below it"
        f"{elsewhere(root, *PATTERNS)}"
    )


def _find_prepared(folder: Path) -> dict[str, Prepared | Raw]:
    kind = next((k for k in ("label_v1", "label") if (folder / k).is_dir()), None)
    if kind is None:
        raise DataError(f"{folder / 'label_v1'}: no such folder; the boxes of the views are missing")
    part = {}
    for name, test in (("train_data_idx.txt", False), ("val_data_idx.txt", True)):
        if (folder / name).is_file():
            try:
                part.update({int(word): test for word in read_text(folder / name).split()})
            except ValueError as error:
                raise DataError(f"{folder / name}: expected whole numbers: {error}") from None
    views: dict[str, Prepared | Raw] = {}
    for depth in list_folder(folder / "depth", ".mat"):
        if not re.fullmatch(r"[0-9]{1,9}", depth.stem) or int(depth.stem) not in part:
            raise DataError(f"{depth}: its number is listed neither in train_data_idx.txt nor in val_data_idx.txt")
        views[depth.stem] = Prepared(folder, depth.stem, folder / kind / f"{depth.stem}.txt", part[int(depth.stem)])
    if not views:
        raise DataError(f"{folder / 'depth'}: no NNNNNN.mat in it")
    return views


def _find_raw(root: Path, metadata: Path) -> dict[str, Prepared | Raw]:
    entries = np.atleast_1d(load_mat(metadata, "SUNRGBDMeta", structs=True))
    split = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    test = {_relative(str(p)) for p in np.atleast_1d(load_mat(split, "alltest", structs=True))}
    train = {_relative(str(p)) for p in np.atleast_1d(load_mat(split, "alltrain", structs=True))}
    views: dict[str, Prepared | Raw] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            folder = str(Path(_relative(str(entry.depthpath))).parent.parent)
        except AttributeError:
            raise DataError(
                f"{metadata}: entry {number} has no depthpath; is this SUNRGBDMeta.mat of version 1?"
            ) from None
        if folder not in test and folder not in train:
            raise DataError(
                f"{metadata}: entry {number}, {folder}, is listed neither in alltrain nor in alltest of {split}"
            )
        if (root / folder).is_dir():
            views[f"{number:06d}"] = Raw(root, entry, f"{number:06d}", folder in test)
    if not views:
        raise DataError(f"{root}: none of the {len(entries)} views listed in {metadata.name} exists below it")
    return views


def read_view(view: Prepared | Raw, classes: tuple[str, ...]) -> View:
    """Read one view, without boxes of other classes. Raises DataError if a file is missing or damaged."""
    read = _read_prepared(view, classes) if isinstance(view, Prepared) else _read_raw(view, classes)
    name, problems = f"view {view.number}", read.problems
    value_checks.check_extent(read.xyz, "view", name, problems)
    value_checks.check_colour_spread(read.rgb, name, problems)
    value_checks.check_in_front(read.xyz[:, 1], name, problems)
    value_checks.check_boxes(read.boxes, read.xyz, name, problems)
    return read


def _check_camera(rotation: NDArray[np.float64], k: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Return the intrinsics. Raises DataError if they are invalid, or if Rtilt is not a rotation that keeps z up."""
    value_checks.rigid(rotation, where, "Rtilt")
    if rotation[2, 2] < MIN_TILT_COSINE:
        raise DataError(f"{where}: Rtilt does not keep z up, its last entry is {rotation[2, 2]:.3g}; expected about 1")
    return value_checks.intrinsic(k, where).copy()


def _read_prepared(view: Prepared, classes: tuple[str, ...]) -> View:
    path = view.folder / "depth" / f"{view.number}.mat"
    points = load_mat(path, "instance")
    if points.ndim != 2 or points.shape[1] != 6 or points.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected (N, 6) points, x y z r g b, found {points.shape}")
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        raise DataError(f"{path}: no finite point in it")
    points = points[finite]
    calibration = view.folder / "calib" / f"{view.number}.txt"
    try:
        rows = [[float(v) for v in line.split()] for line in read_text(calibration).splitlines() if line.strip()]
        rotation, intrinsic = (np.array(r).reshape(3, 3).T for r in rows)
    except ValueError as error:
        raise DataError(f"{calibration}: expected two lines of nine numbers, Rtilt and K: {error}") from None
    if not (np.isfinite([rotation, intrinsic]).all() and intrinsic[0, 0] > 0 and intrinsic[1, 1] > 0):
        raise DataError(f"{calibration}: Rtilt and K must be finite, with positive focal lengths in K")
    intrinsic = _check_camera(rotation, intrinsic, str(calibration))
    intrinsic[:2, 2] -= 1  # VoteNet's points were made with pixels counted from 1
    boxes, problems = read_boxes(view.labels, classes)
    pictures = [view.folder / "image" / f"{view.number}.{ending}" for ending in ("jpg", "JPG", "jpeg", "JPEG")]
    picture = next((p for p in pictures if p.is_file()), pictures[0])
    image, _ = _picture(picture, intrinsic, problems)
    problems += [f"{view.number}: {int((~finite).sum())} points that are not finite are left out"] * (not finite.all())
    if view.labels.parent.name != "label_v1":
        problems.append(f"{view.number}: boxes are of {view.labels.parent.name}/, not of label_v1/")
    return View(
        points[:, :3].astype(np.float32),
        value_checks.byte_colours([points[:, 3:]], [str(path)], problems, usual=1),
        boxes,
        rotation,
        intrinsic,
        image,
        problems,
    )


def read_boxes(path: Path, classes: tuple[str, ...]) -> tuple[NDArray[np.float32], list[Problem]]:
    """Read the boxes of a label file with columns class, 2D box (4), centroid (3), half sizes w l h, orientation (2)."""
    boxes, problems = [], list[Problem]()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, *fields = line.split() or [""]
        if not name:
            continue
        try:
            values = [float(f) for f in fields]
        except ValueError:
            values = []
        if len(values) != 12 or not np.isfinite(values).all():
            raise DataError(f"{path}, line {number}: expected a class and 12 numbers")
        if name in classes:
            width, length, height = np.abs(values[7:10])
            value_checks.check_direction(np.array(values[10:12]), f"{path}, line {number}", problems)
            heading = -math.atan2(values[11], values[10])
            boxes.append([*values[4:7], 2 * length, 2 * width, 2 * height, heading, classes.index(name)])
    return np.asarray(boxes, np.float32).reshape(-1, 8), problems


def _read_raw(view: Raw, classes: tuple[str, ...]) -> View:
    entry, name = view.entry, f"view {view.number}"
    try:
        depth_path = view.root / _relative(str(entry.depthpath))
        image_path = view.root / _relative(str(entry.rgbpath))
        rotation = np.asarray(entry.Rtilt, float).reshape(3, 3)
        intrinsic = np.asarray(entry.K, float).reshape(3, 3)
        if not (
            np.isfinite(rotation).all() and np.isfinite(intrinsic).all() and intrinsic[0, 0] > 0 and intrinsic[1, 1] > 0
        ):
            raise ValueError("Rtilt or K is not usable")
        truth = np.atleast_1d(entry.groundtruth3DBB)
    except (AttributeError, ValueError, TypeError) as error:
        raise DataError(f"SUNRGBDMeta.mat, {name}: a field is missing or of another shape: {error}") from None
    intrinsic, problems = _check_camera(rotation, intrinsic, f"SUNRGBDMeta.mat, {name}"), list[Problem]()
    image, colour = _picture(image_path, intrinsic, problems)
    size = (colour.shape[1], colour.shape[0])
    stored = holding_depth(images.decode_depth(depth_path, str(depth_path), size), str(depth_path))
    xyz, valid = unproject(stored, rotation, intrinsic)
    boxes = []
    for box in truth:
        try:
            kind, centre = str(box.classname), np.asarray(box.centroid, float).reshape(3)
            half, facing = (
                np.abs(np.asarray(box.coeffs, float).reshape(3)),
                np.asarray(box.orientation, float).reshape(-1)[:2],
            )
            if len(facing) < 2 or not np.isfinite([*centre, *half, *facing]).all():
                raise ValueError("its numbers are not finite")
        except (AttributeError, ValueError, TypeError) as error:
            raise DataError(f"SUNRGBDMeta.mat, {name}: a box lacks a field or has another shape: {error}") from None
        if kind in classes:
            width, length, height = half
            value_checks.check_direction(facing, f"SUNRGBDMeta.mat, {name}", problems)
            heading = -math.atan2(facing[1], facing[0])
            boxes.append([*centre, 2 * length, 2 * width, 2 * height, heading, classes.index(kind)])
    return View(
        xyz.astype(np.float32),
        colour[valid],
        np.asarray(boxes, np.float32).reshape(-1, 8),
        rotation,
        intrinsic,
        image,
        problems,
    )


def unproject(
    stored: NDArray[np.uint16], rotation: NDArray[np.float64], intrinsic: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unproject a depth picture in SUN RGB-D's encoding (low three bits rotated to the top, millimetres, cut at 8 m).

    Returns the (N, 3) upright-depth points in metres and the (H, W) mask of their pixels.
    """
    wide = stored.astype(np.uint32)
    depth = np.minimum(((wide >> 3) | (wide << 13)) & 0xFFFF, 1000 * MAX_DEPTH_METRES) / 1000
    valid = stored > 0
    v, u = np.nonzero(valid)
    d = depth[valid]
    x = (u - intrinsic[0, 2]) * d / intrinsic[0, 0]
    y = (v - intrinsic[1, 2]) * d / intrinsic[1, 1]
    return np.stack([x, d, -y], axis=1) @ rotation.T, valid


def load_mat(path: Path, name: str, structs: bool = False) -> Any:
    """Load one variable of a .mat file; `structs` converts MATLAB structs to objects and squeezes. Raises DataError."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    unpacked = io.BytesIO(_unpacked(path))
    try:
        content = loadmat(unpacked, variable_names=[name], struct_as_record=not structs, squeeze_me=structs)
    except NotImplementedError:
        raise DataError(f"{path}: a MATLAB 7.3 file; save it with -v7 to be read here") from None
    except Exception as error:  # scipy's parser raises almost any exception on damaged input
        kind = "damaged" if isinstance(error, MatReadError) else f"damaged ({type(error).__name__})"
        raise DataError(f"{path}: not a MATLAB file, or {kind}: {error}") from None
    if name not in content:
        raise DataError(f"{path}: it has no variable {name!r}")
    return content[name]


def _unpacked(path: Path) -> bytes:
    """Decompress the variables of a MATLAB 5 file. Other files and damaged files are returned unchanged.

    Raises DataError if the result exceeds MOST_MAT_BYTES.
    """
    content = read_bytes(path)
    if content[124:128] != _VERSION_5:
        return content
    parts, at, total = [content[:128]], 128, 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, at)
        part = content[at : at + 8 + size]
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            try:
                part = unpack.decompress(part[8:], MOST_MAT_BYTES - total + 1)
            except zlib.error:
                return content  # scipy reports the damage
            total += len(part)
            if total > MOST_MAT_BYTES:
                raise DataError(f"{path}: unpacks to more than {MOST_MAT_BYTES >> 20} MiB")
            if not unpack.eof:
                return content
        parts.append(part)
        at += 8 + size
    return b"".join([*parts, content[at:]])


def _picture(
    path: Path, intrinsic: NDArray[np.float64], problems: list[Problem]
) -> tuple[tuple[bytes, str], NDArray[np.uint8]]:
    """The encoded picture with its suffix, and decoded (H, W, 3) uint8, after checking it against the intrinsics."""
    content, name = read_bytes(path), str(path)
    colour = images.decode_colour(content, name)
    value_checks.check_picture(colour, images.colour_bits(content), name, problems)
    value_checks.check_camera(intrinsic, (colour.shape[1], colour.shape[0]), name, problems)
    return (content, path.suffix.lower().replace("jpeg", "jpg")), colour


def _relative(path: str) -> str:
    """A stored path relative to the root: /n/fs/sun3d/data/SUNRGBD/... and /data1/SUNRGBD/... lose their prefix."""
    at = path.find("SUNRGBD/")
    if at < 0:
        raise DataError(f"SUNRGBDMeta.mat: {path!r} is not a path below SUNRGBD/")
    return str(PurePosixPath(path[at:]))
