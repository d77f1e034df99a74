"""Decode the frames of a recording: the single path through which every layout of RGB-D frames is read.

A layout supplies the paths of its frames, a pose or pose file for each, and a calibration. The result has depth in millimetres,
and colour and depth in one camera without distortion.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets import images, rgbd_folder, value_checks
from pretrain_bench.benchmarks.datasets.frame_writer import FrameSource, Reading, SceneFrame, write_frames
from pretrain_bench.benchmarks.datasets.parts import holding_depth
from pretrain_bench.benchmarks.datasets.problems import why_none
from pretrain_bench.benchmarks.datasets.rgbd_folder import FramePaths, Recording
from pretrain_bench.benchmarks.datasets.value_checks import Problem
from pretrain_bench.benchmarks.specs.dataset import Sensor
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import list_folder

MILLIMETRES = 1000.0
"""Units of prepared depth per metre."""
LEAST_CONFIDENCE = 1
"""Depth below this confidence (medium, 1 of 0 to 2) is dropped."""
NO_DISTORTION = (0.0, 0.0, 0.0, 0.0, 0.0)

Source = TypeVar("Source")


class Calibration(NamedTuple):
    """Cameras of a recording: `intrinsic` (3, 3) of the depth images, read from `where`; that of the colour pictures (3, 3), at
    their size, if it differs; the distortion k1 k2 p1 p2 k3 of both; depth units per metre; and, as text, the assumptions made
    where the layout is silent."""

    intrinsic: NDArray[np.float64]
    where: str
    colour_intrinsic: NDArray[np.float64] | None = None
    distortion: tuple[float, float, float, float, float] = NO_DISTORTION
    depth_per_metre: float = MILLIMETRES
    assumed: tuple[str, ...] = ()


def with_sensor(calibration: Calibration, sensor: Sensor, where: str) -> Calibration:
    """Replace the parts of the calibration that the dataset's file gives in `sensor`."""
    if sensor.depth_per_metre is not None:
        calibration = calibration._replace(depth_per_metre=sensor.depth_per_metre)
    if sensor.camera is None:
        return calibration
    return calibration._replace(
        intrinsic=pinhole(sensor.camera.fx, sensor.camera.fy, sensor.camera.cx, sensor.camera.cy),
        distortion=sensor.camera.distortion,
        colour_intrinsic=None,
        where=f"{where}: sensor.camera",
        assumed=(),
    )


def pinhole(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    """Intrinsics (3, 3) in pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def resized(intrinsic: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Intrinsics (3, 3) of the picture resized by `scale`; in both, (0, 0) is the centre of the first pixel."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.asarray(np.linalg.inv(shift) @ np.diag([scale, scale, 1.0]) @ shift @ intrinsic)


def write_calibrated(
    recording: Recording,
    calibration: Calibration,
    out: Path,
    how: Reading,
    z_is_up: bool = False,
    up_must_be_sure: bool = False,
) -> dict[str, Any]:
    """Write the frames of a recording with `frame_writer.write_frames`; returns the content of the scene. Raises DataError if no
    frame is usable."""
    problems: list[Problem] = []
    frames = with_camera_checked(
        _frames(recording, calibration, how, problems), calibration.intrinsic, calibration.where, problems
    )
    source = FrameSource(recording.name, calibration.intrinsic, frames, z_is_up, up_must_be_sure)
    held = write_frames(source, out, how)
    assumed = {"assumed": calibration.assumed} if calibration.assumed else {}
    return {**held, **assumed, "problems": problems + held["problems"]}


def with_camera_checked(
    frames: Iterable[SceneFrame], intrinsic: NDArray[np.float64], name: str, problems: list[Problem]
) -> Iterable[SceneFrame]:
    """Pass the frames through, and check the intrinsics against the size of the first one."""
    for number, frame in enumerate(frames):
        if not number:
            value_checks.check_camera(intrinsic, (frame.depth.shape[1], frame.depth.shape[0]), name, problems)
        yield frame


def usable_frames(
    name: str, frames: Iterable[Source], decode: Callable[[Source], SceneFrame], how: Reading, problems: list[Problem]
) -> Iterator[SceneFrame]:
    """Yield the frames that decode. Any other frame is a problem, or raises with `strict`. Raises DataError if none decodes."""
    failed: list[str] = []
    usable = 0
    for frame in frames:
        try:
            decoded = decode(frame)
        except DataError as error:
            failed.append(str(error))
            if how.strict:
                raise
            problems.append(f"{error}; the frame is left out")
            continue
        usable += 1
        yield decoded
    if not usable:
        why = why_none("frames", failed) or "no frame number is a multiple of it"
        raise DataError(f"{name}: no frame can be used at a stride of {how.frame_stride}: {why}")


def _frames(
    recording: Recording, calibration: Calibration, how: Reading, problems: list[Problem]
) -> Iterator[SceneFrame]:
    frames = [f for f in recording.frames if f.number % how.frame_stride == 0]
    posed = _has_poses(recording.name, frames, how, problems)
    first: list[tuple[int, int]] = []
    size = _usual_size(frames)

    def decode(frame: FramePaths) -> SceneFrame:
        if not frame.depth.is_file():
            raise DataError(f"{frame.depth}: no such file{_instead(frame.depth) if not first else ''}")
        pose = _pose(frame) if posed else None
        measured = images.decode_depth(frame.depth, str(frame.depth), size)
        if frame.confidence is not None:
            measured = np.where(_confidence(frame.confidence, measured.shape) < LEAST_CONFIDENCE, 0, measured)
        depth = holding_depth(measured.astype(np.uint16), str(frame.depth))
        colour = images.decode_colour(frame.colour, str(frame.colour))
        value_checks.check_picture(colour, images.colour_bits(frame.colour), str(frame.colour), problems)
        first.append((depth.shape[1], depth.shape[0]))
        stored = (frame.colour.read_bytes(), frame.colour.suffix.lower().replace("jpeg", "jpg"))
        of_frame = calibration.intrinsic if frame.intrinsic is None else frame.intrinsic
        other_camera = not np.array_equal(of_frame, calibration.intrinsic)
        if other_camera or calibration.colour_intrinsic is not None or any(calibration.distortion):
            depth, colour = _in_one_camera(depth, colour, of_frame, calibration)
            stored = (images.encode_colour(colour), ".png")
        return SceneFrame(frame.number, pose, stored, to_millimetres(depth, calibration.depth_per_metre))

    yield from usable_frames(recording.name, frames, decode, how, problems)


def _usual_size(frames: Sequence[FramePaths]) -> tuple[int, int] | None:
    """(width, height) of most depth images. Intrinsics fit one size, and a single odd frame must not exclude the others."""
    sizes: Counter[tuple[int, int]] = Counter()
    for frame in frames:
        with contextlib.suppress(DataError):
            sizes[images.picture_size(frame.depth, str(frame.depth))] += 1
    return sizes.most_common(1)[0][0] if sizes else None


def _pose(frame: FramePaths) -> NDArray[np.float64]:
    where = str(frame.pose) if isinstance(frame.pose, Path) else f"{frame.colour}, its pose"
    given = frame.pose
    pose = rgbd_folder.read_pose(given) if isinstance(given, Path) else rgbd_folder.sound_pose(given, where)
    if pose is None:
        raise DataError(f"{where}: the pose is not finite (tracking was lost)")
    return pose


def _confidence(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a picture of confidences, 0 to 2, as (H, W) uint8."""
    return images.decode_colour(path, str(path), (shape[1], shape[0]))[:, :, 0]


def _instead(path: Path) -> str:
    """The end of a message about a missing file: names of files that the folder does hold."""
    others = [p.name for p in list_folder(path.parent, path.suffix)]
    return f"; the folder holds {', '.join(others[:2])}{', ...' if len(others) > 2 else ''}" if others else ""


def _has_poses(name: str, frames: Sequence[FramePaths], how: Reading, problems: list[Problem]) -> bool:
    """Whether to use the poses of a recording: only if every frame that is read has one. Otherwise its frames would lie in
    different worlds."""
    lacking = [f.pose for f in frames if isinstance(f.pose, Path) and not f.pose.is_file()]
    posed = len(frames) - len(lacking)
    if 0 < posed < len(frames):
        problem = f"{name}: {posed} of the {len(frames)} frames that are read have a pose file"
        if how.strict:
            raise DataError(f"{problem}; {lacking[0]}: no such file")
        problems.append(f"{problem}; no pose of this recording is used")
    return posed == len(frames)


def to_millimetres(depth: NDArray[np.uint16], per_metre: float) -> NDArray[np.uint16]:
    """Convert depth (H, W) from 1/`per_metre` metres to millimetres, rounded; 65535 and values beyond 16 bits become 0."""
    if per_metre == MILLIMETRES:
        return depth
    scaled = np.round(depth * (MILLIMETRES / per_metre))
    return np.where((depth == 65535) | (scaled > 65534), 0, scaled).astype(np.uint16)


def _in_one_camera(
    depth: NDArray[np.uint16], colour: NDArray[np.uint8], of_depth: NDArray[np.float64], calibration: Calibration
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Resample depth of camera `of_depth` (nearest pixel) and colour (mean of four pixels, bilinear) to the camera of the
    calibration."""
    size = (depth.shape[1], depth.shape[0])
    of_colour = calibration.colour_intrinsic
    if of_colour is None:
        of_colour = resized(of_depth, colour.shape[1] / size[0])
    u, v = source_pixels(calibration.intrinsic, of_colour, size, calibration.distortion)
    mixed = _bilinear(colour, u, v)
    if of_depth is not calibration.intrinsic or any(calibration.distortion):
        u, v = source_pixels(calibration.intrinsic, of_depth, size, calibration.distortion)
        inside = (u > -0.5) & (u < size[0] - 0.5) & (v > -0.5) & (v < size[1] - 0.5)
        rows, columns = (np.where(inside, np.rint(x), 0).astype(int) for x in (v, u))
        depth = np.where(inside, depth[rows, columns], 0).astype(np.uint16)
    return depth, mixed


def source_pixels(
    target: NDArray[np.float64], source: NDArray[np.float64], size: tuple[int, int], distortion: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows (H, W) in camera `source` of the pixels of an undistorted camera `target` with `size` (width, height);
    both share their centre. `distortion`: k1 k2 p1 p2 k3 of Brown's model, as in OpenCV."""
    v, u = np.mgrid[: size[1], : size[0]].astype(np.float64)
    x, y = (u - target[0, 2]) / target[0, 0], (v - target[1, 2]) / target[1, 1]
    k1, k2, p1, p2, k3 = distortion
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return bent_x * source[0, 0] + source[0, 2], bent_y * source[1, 1] + source[1, 2]


def _bilinear(picture: NDArray[np.uint8], u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Sample a picture at columns `u` and rows `v`, giving (H, W, 3); positions outside take the colour of the nearest edge."""
    height, width = picture.shape[:2]
    u, v = np.clip(u, 0, width - 1), np.clip(v, 0, height - 1)
    left, top = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    across, down = (u - left)[..., None], (v - top)[..., None]
    upper = picture[top, left] * (1 - across) + picture[top, left + 1] * across
    lower = picture[top + 1, left] * (1 - across) + picture[top + 1, left + 1] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
