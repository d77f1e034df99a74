"""Detect values that contradict a format's definition, with one check for each quantity, shared by all readers.

A check converts the values if the right ones are beyond doubt, and appends a `Finding` with the measured numbers. Preparation
turns findings into problems, one line for each kind and dataset, or into an error with `strict`. Values that permit no result
at all (a non-rigid pose, negative colours) raise DataError, and the frame or scene is left out.

Errors that do not show in the values are not detected: colours at half brightness, a scene mirrored left to right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.support.errors import DataError

ROUNDING = 1e-3
"""Relative excess over a scale that is tolerated silently: averaging floats produces it."""
STRAY_SHARE = 0.01
"""Largest share of out-of-scale values that is clipped; with more of them the values have another scale."""
SIXTEEN_BITS_FROM = 4096
"""Least maximum of 16-bit colours. A maximum between 255 and this fits no known scale."""
FAR_METRES = 1000.0
"""Scenes with coordinates beyond this are moved to the origin: float32 would round them to more than 0.06 mm."""
EXTENT_METRES = {"room": (0.5, 100.0), "scan of a laser": (5.0, 500.0), "view": (0.3, 40.0)}
"""Least and largest plausible extent of a scene along its longest axis."""
BOX_METRES, BOX_MARGIN_METRES = (0.01, 20.0), 1.0
DIRECTION_TOLERANCE = 0.1
MAX_STEP_METRES = 50.0
UPSIDE_DOWN_METRES = 0.5
LEAST_POINTS = 16
"""With fewer points, scale and extent are not checked."""
ROTATION_TOLERANCE = 1e-2
CENTRE_TOLERANCE = 0.15
FOCAL_RATIO = 1.5
FIELD_OF_VIEW = (0.15, 4.0)
"""Least and largest plausible picture width over twice the focal length: the tangent of half the field of view."""


class Finding(NamedTuple):
    """One value that contradicts its format. `what` is the same for all findings of a kind, and tells what was done."""

    what: str
    where: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.numbers})"


Problem = str | Finding
"""A line of text or a finding, as readers collect them."""


def as_lines(problems: Sequence[Problem]) -> list[str]:
    """The lines of text, then one line for each kind of finding: the number of places, the first one and its numbers."""
    kinds: dict[str, list[Finding]] = {}
    for problem in problems:
        if isinstance(problem, Finding):
            kinds.setdefault(problem.what, []).append(problem)
    return [p for p in problems if isinstance(p, str)] + [
        str(places[0])
        if len(places) == 1
        else f"{what}: {len(places)} times, first {places[0].where} ({places[0].numbers})"
        for what, places in sorted(kinds.items())
    ]


def byte_colours(
    parts: Sequence[NDArray[Any]], names: Sequence[str], problems: list[Problem], usual: int = 255
) -> NDArray[np.uint8]:
    """Convert the colours (N_i, 3) of files `names` to (N, 3) uint8, each file by its own scale: 0 to 1, 0 to 255 or 16 bits.

    `usual` is the largest value of the format's scale (1 or 255); any other scale is a finding. A file with only 0 and 1 takes
    the scale of the others. Raises DataError if colours are negative, not finite, or in no known scale.
    """
    scales = [_colour_scale(part, name) for part, name in zip(parts, names, strict=True)]
    fallback = next((s for s in scales if s is not None), usual)
    converted = []
    for part, name, known in zip(parts, names, scales, strict=True):
        scale = fallback if known is None else known
        if scale != usual:
            what = f"colours are {_SCALE_NAMES[scale]}, not {_SCALE_NAMES[usual]}; converted"
            problems.append(Finding(what, name, _range(part)))
        strays = _outside(part, scale)
        if strays:
            problems.append(
                Finding("colours outside of their scale are clipped", name, f"{strays} values, {_range(part)}")
            )
        converted.append(_as_bytes(part, scale))
    return np.concatenate(converted)


_SCALE_NAMES = {1: "0 to 1", 255: "0 to 255", 65535: "of 16 bits"}


def _colour_scale(values: NDArray[Any], name: str) -> int | None:
    """The largest value of the scale that colours are in; None if only 0 and 1 occur, which leaves it open."""
    if values.dtype == np.uint8 or not values.size:
        return 255
    if not np.isfinite(values).all():
        raise DataError(f"{name}: {int((~np.isfinite(values)).sum())} colours are not finite")
    high = float(values.max())
    if float((values < 0).mean()) >= STRAY_SHARE:
        raise DataError(f"{name}: colours are negative ({_range(values)}); expected 0 to 255")
    if float((values > 1).mean()) < STRAY_SHARE:
        whole = bool((values == np.rint(values)).all())
        return None if whole and high <= 1 else 255 if whole else 1
    if float((values > 255).mean()) < STRAY_SHARE:
        return 255
    if not SIXTEEN_BITS_FROM <= high <= 65535:
        raise DataError(f"{name}: colours are in no known scale ({_range(values)}); expected 0 to 255")
    return 65535


def _as_bytes(values: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    wide = np.asarray(values, np.float64)
    if scale == 1:
        wide = wide * 255
    elif scale == 65535:
        # Writers expand bytes to 16 bits by a shift (c * 256) or to the full range (c * 257).
        wide = wide / (256 if (wide % 256 == 0).all() else 257)
    return np.clip(np.rint(wide), 0, 255).astype(np.uint8)


def check_colour_spread(colours: NDArray[np.uint8], name: str, problems: list[Problem]) -> None:
    """Report colours, (N, 3) or (H, W, 3), that are all 0, 1 or 255: they were clipped, converted at a wrong scale, or lost."""
    if colours.size >= 3 * LEAST_POINTS and ((colours <= 1) | (colours == 255)).all():
        values = " and ".join(str(v) for v in np.unique(colours))
        problems.append(Finding("there are no colours between 1 and 255; they were clipped", name, f"only {values}"))


def check_picture(colour: NDArray[np.uint8], bits: int, name: str, problems: list[Problem]) -> None:
    """Report a decoded picture (H, W, 3) that was stored with more than 8 bits per channel, or that is blank."""
    if bits > 8:
        numbers = f"{bits} bits, read as {int(colour.min())} to {int(colour.max())}"
        problems.append(Finding("colour picture of more than 8 bits; converted to 8", name, numbers))
    check_colour_spread(colour, name, problems)


def unit_remission(values: NDArray[np.floating], name: str, problems: list[Problem]) -> NDArray[np.float32]:
    """Convert remission (N,) from 0 to 255 or 16 bits to float32 from 0 to 1. Raises DataError if it is in no known scale."""
    high, low = float(values.max()), float(values.min())
    scale = 1
    if float((values < 0).mean()) >= STRAY_SHARE or high > 65535:
        raise DataError(f"{name}: remission is in no known scale ({_range(values)}); expected 0 to 1")
    if float((values > 1).mean()) >= STRAY_SHARE:
        scale = 255 if high <= 255 else 65535
        what = f"remission is {_SCALE_NAMES[scale]}, not 0 to 1; converted"
        problems.append(Finding(what, name, _range(values)))
    elif strays := _outside(values, scale):
        problems.append(Finding("remission outside of 0 to 1 is clipped", name, f"{strays} values, {_range(values)}"))
    if len(values) >= LEAST_POINTS and low == high:
        problems.append(Finding("all remission is the same", name, f"{len(values)} times {low:g}"))
    return np.clip(values / np.float32(scale), 0, 1).astype(np.float32) if scale > 1 or low < 0 or high > 1 else values


def near_origin(
    xyz: NDArray[np.floating], name: str, problems: list[Problem]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((N, 3) float64 metres, (3,) whole metres that were subtracted), so that float32 holds the points.

    Nothing is subtracted where all points lie within FAR_METRES. Raises DataError for coordinates that are not finite.
    """
    xyz, offset = np.asarray(xyz, np.float64), np.zeros(3)
    if not np.isfinite(xyz).all():
        raise DataError(f"{name}: {int((~np.isfinite(xyz)).any(1).sum())} points are not finite")
    if len(xyz) and np.abs(xyz).max() > FAR_METRES:
        offset = np.floor(xyz.min(axis=0))
        what = "coordinates lie far from the origin; the scene was moved there"
        problems.append(Finding(what, name, f"moved by {' '.join(f'{-v:.0f}' for v in offset)} m"))
    return xyz - offset, offset


def check_extent(xyz: NDArray[np.floating], kind: str, name: str, problems: list[Problem]) -> None:
    """Report points (N, 3) in metres with an extent implausible for a `kind` of EXTENT_METRES, or all on one line."""
    if len(xyz) < LEAST_POINTS:
        return
    size = np.asarray(xyz.max(axis=0) - xyz.min(axis=0), np.float64)
    least, most = EXTENT_METRES[kind]
    numbers = " x ".join(f"{v:.4g}" for v in size) + " m"
    if not least <= size.max() <= most:
        what = f"implausible size of a {kind}; expected {least:g} to {most:g} m, coordinates are metres"
        problems.append(Finding(what, name, numbers))
    elif np.sort(size)[1] < 1e-3 * size.max():
        problems.append(Finding("all points lie on a line", name, numbers))


def check_labelled(labelled: NDArray[np.bool_], name: str, problems: list[Problem]) -> None:
    """Report labels (N,) of which none names a class: they were read from the wrong bytes, or belong to other data."""
    if len(labelled) >= LEAST_POINTS and not labelled.any():
        problems.append(Finding("no point has a label", name, f"0 of {len(labelled)}"))


def check_above(
    z: NDArray[np.floating], above: NDArray[np.bool_], below: NDArray[np.bool_], what: str, problems: list[Problem]
) -> None:
    """Report if points that must be `above` lie under those `below`, by median height (N,); `what` reads like "room: ceiling
    above floor"."""
    if not (above.any() and below.any()):
        return
    high, low = float(np.median(z[above])), float(np.median(z[below]))
    if high < low - UPSIDE_DOWN_METRES:
        name, _, classes = what.rpartition(": ")
        problems.append(Finding(f"z is not up: expected {classes}", name, f"median heights {high:.3g} and {low:.3g} m"))


def check_in_front(y: NDArray[np.floating], name: str, problems: list[Problem]) -> None:
    """Report a view with most of its points (N,) behind the camera; `y` points forward."""
    behind = int((y < 0).sum())
    if behind > len(y) / 2:
        problems.append(Finding("points lie behind the camera; expected y forward", name, f"{behind} of {len(y)}"))


def check_boxes(boxes: NDArray[np.floating], xyz: NDArray[np.floating], name: str, problems: list[Problem]) -> None:
    """Report boxes (K, 8) of implausible size, and views whose boxes mostly lie outside the region spanned by the points (N,
    3) and the camera at the origin."""
    if not len(boxes):
        return
    size, centre = boxes[:, 3:6], boxes[:, :3]
    if size.min() < BOX_METRES[0] or size.max() > BOX_METRES[1]:
        what = f"implausible size of a box; expected {BOX_METRES[0]:g} to {BOX_METRES[1]:g} m"
        problems.append(Finding(what, name, f"{size.min():.4g} to {size.max():.4g} m"))
    low, high = np.minimum(xyz.min(axis=0), 0) - BOX_MARGIN_METRES, np.maximum(xyz.max(axis=0), 0) + BOX_MARGIN_METRES
    outside = ((centre < low) | (centre > high)).any(axis=1)
    if outside.mean() > 0.5:
        first = " ".join(f"{v:.3g}" for v in centre[outside][0])
        problems.append(
            Finding("boxes lie outside of the view", name, f"{outside.sum()} of {len(boxes)}, one at {first} m")
        )


def check_laser_axes(tr: NDArray[np.float64], name: str, problems: list[Problem]) -> None:
    """Report a transform (3, 4) that does not map laser axes (x forward, z up) to camera axes (z forward, y down)."""
    if tr[2, 0] < 0.5 or tr[1, 2] > -0.5:
        rows = "; ".join(" ".join(f"{v:.3g}" for v in row) for row in tr[:, :3])
        what = (
            "Tr does not turn the laser's axes (x forward, z up) to the camera's (z forward, y down); is it inverted?"
        )
        problems.append(Finding(what, name, rows))


def check_direction(vector: NDArray[np.floating], name: str, problems: list[Problem]) -> None:
    """Report a box orientation (a vector) whose length differs from 1 by more than DIRECTION_TOLERANCE."""
    if abs(float(np.linalg.norm(vector)) - 1) > DIRECTION_TOLERANCE:
        numbers = " ".join(f"{v:.4g}" for v in vector)
        problems.append(Finding("the orientation of a box is not a unit vector", name, numbers))


def check_step(one: NDArray[np.float64], two: NDArray[np.float64], name: str, problems: list[Problem]) -> None:
    """Report poses (4, 4) of neighbouring scans that lie further apart than a car drives between them."""
    metres = float(np.linalg.norm(two[:3, 3] - one[:3, 3]))
    if metres > MAX_STEP_METRES:
        what = f"neighbouring poses are far apart; expected at most {MAX_STEP_METRES:g} m, poses are metres"
        problems.append(Finding(what, name, f"{metres:.4g} m"))


def rigid(matrix: NDArray[np.float64], name: str, what: str) -> NDArray[np.float64]:
    """Return a rigid transform (4, 4) or (3, 4), or a rotation (3, 3), unchanged. Raises DataError, with the numbers, for
    anything else: a wrong last row, a transposed (column-major) matrix, non-orthonormal axes, a mirrored one."""
    turn = matrix[:3, :3]
    away = float(np.abs(turn.T @ turn - np.eye(3)).max())
    if not away <= ROTATION_TOLERANCE:
        lengths = " ".join(f"{v:.4g}" for v in np.linalg.norm(turn, axis=0))
        raise DataError(
            f"{name}: the 3x3 block of {what} is not a rotation, it is {away:.3g} from orthonormal "
            f"(columns of length {lengths})"
        )
    if np.linalg.det(turn) < 0:
        raise DataError(f"{name}: {what} mirrors (determinant -1); expected a rotation, with determinant +1")
    bottom = np.array([0.0, 0, 0, 1])
    if matrix.shape == (4, 4) and np.abs(matrix[3] - bottom).max() > 1e-3:
        row = " ".join(f"{v:.4g}" for v in matrix[3])
        if np.abs(matrix[:, 3] - bottom).max() <= 1e-3:
            raise DataError(f"{name}: {what} is column-major, its translation is in the last row ({row}); transpose it")
        raise DataError(f"{name}: the last row of {what} is {row}, expected 0 0 0 1")
    return matrix


def intrinsic(matrix: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Extract pinhole intrinsics (3, 3), in pixels, from a (3, 3) or (4, 4) matrix. Raises DataError for a transposed matrix,
    focal lengths that are not positive or differ too much, and non-zero entries where zeros belong."""
    k = matrix[:3, :3]
    if not np.isfinite(matrix).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise DataError(f"{name}: the focal lengths must be positive, found {k[0, 0]:g} and {k[1, 1]:g}")
    row = " ".join(f"{v:.4g}" for v in k[2])
    if np.abs(k[2] - (0, 0, 1)).max() > 1e-3:
        if not k[:2, 2].any():
            raise DataError(f"{name}: the intrinsics are transposed, their last row is {row}; expected 0 0 1")
        raise DataError(f"{name}: the last row of the intrinsics is {row}, expected 0 0 1")
    ratio = max(k[0, 0], k[1, 1]) / min(k[0, 0], k[1, 1])
    if ratio > FOCAL_RATIO or abs(k[1, 0]) > 1e-3 * k[1, 1] or abs(k[0, 1]) > 0.05 * k[0, 0]:
        rows = "; ".join(" ".join(f"{v:.4g}" for v in r) for r in k)
        raise DataError(f"{name}: not intrinsics of a camera: {rows}; expected fx 0 cx; 0 fy cy; 0 0 1")
    if matrix.shape == (4, 4) and (np.abs(matrix[3, :3]).max() > 1e-3 or abs(matrix[3, 3] - 1) > 1e-3):
        row = " ".join(f"{v:.4g}" for v in matrix[3])
        raise DataError(f"{name}: the last row of the 4x4 intrinsics is {row}, expected 0 0 0 1")
    return k


def check_camera(k: NDArray[np.float64], size: tuple[int, int], name: str, problems: list[Problem]) -> None:
    """Report intrinsics (3, 3) that do not fit a picture of `size` (width, height): the principal point is outside it or at the
    centre of another size, or the field of view is implausible."""
    (width, height), (cx, cy) = size, (float(k[0, 2]), float(k[1, 2]))
    across, down = 2 * (cx + 0.5) / width, 2 * (cy + 0.5) / height
    numbers = f"principal point {cx:.4g}, {cy:.4g}; focal length {k[0, 0]:.4g}; picture {width}x{height}"
    view = width / (2 * k[0, 0])
    if not (0 <= cx < width and 0 <= cy < height):
        problems.append(Finding("the principal point of the intrinsics lies outside the picture", name, numbers))
    elif abs(across - down) < CENTRE_TOLERANCE and min(abs(across - 1), abs(down - 1)) > CENTRE_TOLERANCE:
        what = "the intrinsics are those of a picture of another size"
        problems.append(Finding(what, name, f"{numbers}, expected about {2 * cx + 1:.0f}x{2 * cy + 1:.0f}"))
    elif not FIELD_OF_VIEW[0] <= view <= FIELD_OF_VIEW[1]:
        angle = 2 * np.degrees(np.arctan(view))
        problems.append(Finding("implausible field of view of the intrinsics", name, f"{angle:.3g} degrees; {numbers}"))


def _outside(values: NDArray[Any], scale: int) -> int:
    return int(((values < -ROUNDING * scale) | (values > (1 + ROUNDING) * scale)).sum())


def _range(values: NDArray[Any]) -> str:
    return f"{float(values.min()):.4g} to {float(values.max()):.4g}"
