"""Estimate the up direction of a recording's world from camera orientations and visible floors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.datasets.sampled_frames import SampledFrames, grid_points
from pretrain_bench.benchmarks.specs.dataset import UP_CHOICES, UpChoice

MOST_FRAMES = 60
LEAST_AGREEMENT = 0.5
"""Least length of the mean of the cameras' up axes, which is 1 if all up axes are parallel."""
LEAST_FLOOR = 0.03
"""Least share of visible surfaces that face up and lie below their camera."""
KEEP_DEGREES = 15
"""A world whose z axis is this close to the estimated up is left as it is: the estimate is no more accurate."""
MOST_DOWNWARD_DEGREES = 45
"""Largest angle between z and the mean of the cameras' up axes that still supports z up."""
SNAP_DEGREES = 5
"""An axis of the recorded world this close to the estimated up is taken as up."""
LEAST_TURNING = 0.1
"""Least shortfall from length 1 of the mean of the cameras' right axes, as evidence that cameras turn about up."""
_ALL_LEVEL = 0.95
_CONES = (50, 40, 30, 20, 15)
_WALL_CONES = (35, 25, 15, 15, 15)
_FLAT_DEGREES = 15
_CAMERAS_WEIGHT = 0.05
_BELOW_METRES = 0.3
_MAX_JUMP = 0.1


class Up(NamedTuple):
    """The estimated up direction (3,), a unit vector in the recorded world, and the evidence for it.

    `sure`: the cameras agree with the floor, or with each other while turning about it. `agreement`: length of the mean of the
    cameras' up axes. `cameras_from_z_degrees`: angle between that mean and z. `floor_share`: share of visible surfaces that
    are floor.
    """

    direction: NDArray[np.float64]
    sure: bool
    agreement: float
    cameras_from_z_degrees: float
    floor_share: float


def find_up(frames: SampledFrames) -> Up:
    """Estimate the up direction, assuming that cameras are held roughly level and that floors, tables and seats are flat."""
    rows = np.unique(np.linspace(0, len(frames.poses) - 1, MOST_FRAMES).round().astype(int))
    poses = frames.poses[rows]
    mean = -poses[:, :3, 1].mean(axis=0)
    agreement = float(np.linalg.norm(mean))
    held = mean / max(agreement, 1e-9)
    normals, heights_of = _surfaces(frames.depth[rows], poses, frames.intrinsic)
    up = held
    for degrees in _CONES:
        facing = normals[normals @ up > np.cos(np.radians(degrees))]
        if len(facing) > LEAST_FLOOR * len(normals):
            up = _unit(facing.mean(axis=0))
    up = _with_walls(up, normals)
    flat = normals @ up > np.cos(np.radians(_FLAT_DEGREES))
    floor = flat & (heights_of @ up < -_BELOW_METRES)
    share = float(floor.mean()) if len(floor) else 0.0
    agree = agreement >= LEAST_AGREEMENT and degrees_between(held, up) <= _CONES[0]
    turning = 1 - float(np.linalg.norm(poses[:, :3, 0].mean(axis=0)))
    level = agreement >= _ALL_LEVEL and turning >= LEAST_TURNING
    sure = agree and (share >= LEAST_FLOOR or level)
    return Up(up, sure, agreement, degrees_between(held, np.array([0.0, 0, 1])), share)


def world_up(name: str, frames: SampledFrames, choice: UpChoice) -> tuple[NDArray[np.float64] | None, str | None]:
    """The direction (3,) to turn to z, or None to leave the world as it is; and a line, starting with `name`, if the up
    direction is uncertain. `choice` is the user's `--up`. An estimated direction is rounded to six decimals."""
    if choice != "auto":
        return (None if choice == "+z" else axis_of(choice)), None
    up = find_up(frames)
    if up.sure:
        return turned_up(up.direction), None
    if up.agreement >= LEAST_AGREEMENT and up.cameras_from_z_degrees <= MOST_DOWNWARD_DEGREES:
        return None, None
    return None, (
        f"{name}: the up direction of its poses is uncertain, so z is assumed: "
        "on average the cameras' up axes point "
        f"{up.cameras_from_z_degrees:.0f} degrees from z (their mean has length {up.agreement:.2f}, 1 if all agree), and "
        f"{up.floor_share:.0%} of what they see is floor; set it with "
        f"`bench data prepare`: --up {', '.join(UP_CHOICES[1:])}"
    )


def format_up_problem(name: str, frames: SampledFrames) -> str | None:
    """A line where the layout promises z up, but cameras and floor agree on another direction."""
    up = find_up(frames)
    angle = degrees_between(up.direction, np.array([0.0, 0, 1]))
    if not up.sure or angle <= MOST_DOWNWARD_DEGREES:
        return None
    return (
        f"{name}: its world should have z up, but cameras and floor indicate up at "
        f"({', '.join(f'{v:.2f}' for v in up.direction)}), {angle:.0f} degrees from z; `rgbd-folder` turns recordings to z up"
    )


def turned_up(up: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The direction (3,) to turn to z, or None if z is up already: the estimate to six decimals, or the axis closest to it
    within SNAP_DEGREES."""
    axes = np.concatenate([np.eye(3), 0.0 - np.eye(3)])
    angles = np.array([degrees_between(axis, up) for axis in axes])
    if angles[2] <= KEEP_DEGREES:
        return None
    nearest = int(angles.argmin())
    return axes[nearest] if angles[nearest] <= SNAP_DEGREES else np.round(up, 6) + 0.0


def axis_of(choice: UpChoice) -> NDArray[np.float64] | None:
    """(3,) the direction that `--up` names; None for auto."""
    if choice == "auto":
        return None
    axis = np.eye(3)["xyz".index(choice[1])]
    return axis if choice[0] == "+" else 0.0 - axis


def turn_to_z(up: NDArray[np.floating]) -> NDArray[np.float64]:
    """The smallest rotation (4, 4) that takes the direction `up` (3,) to z; half a turn about x if `up` is -z."""
    direction = _unit(np.asarray(up, np.float64))
    x, y, z = direction
    turn = np.eye(4)
    if z < -1 + 1e-9:
        turn[:3, :3] = np.diag([1.0, -1.0, -1.0])
    else:
        across = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
        turn[:3, :3] += across + across @ across / (1 + z)
    return turn


def degrees_between(one: NDArray[np.floating], two: NDArray[np.floating]) -> float:
    """The angle in degrees between two unit vectors (3,)."""
    return float(np.degrees(np.arccos(np.clip(one @ two, -1, 1))))


def _surfaces(
    depth: NDArray[np.float32], poses: NDArray[np.float64], intrinsic: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normals (N, 3) of visible surfaces, towards their camera, and positions (N, 3) relative to that camera; both along the
    world's axes."""
    points = grid_points(depth, intrinsic)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    along = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    middle = points[:, 1:-1, 1:-1]
    normals = np.cross(along, across)
    with np.errstate(invalid="ignore", divide="ignore"):
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        jump = np.maximum(np.abs(across[..., 2]), np.abs(along[..., 2])) / middle[..., 2]
        good = np.isfinite(normals).all(axis=-1) & (jump < _MAX_JUMP)
    normals *= -np.sign((normals * middle).sum(axis=-1, keepdims=True))
    normals, middle = (np.einsum("fij,fhwj->fhwi", poses[:, :3, :3], a) for a in (normals, middle))
    return normals[good], middle[good]


def _with_walls(up: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Refine `up`: the direction closest to the normals of flat surfaces and most perpendicular to those of walls. `up` keeps a
    small weight, because a single wall leaves the direction undetermined."""
    for degrees in _WALL_CONES:
        along = np.abs(normals @ up)
        level = normals[along > np.cos(np.radians(degrees))]
        steep = normals[along < np.sin(np.radians(degrees))]
        weight = _CAMERAS_WEIGHT * (len(level) + len(steep))
        if not weight:  # without depth only the cameras give evidence
            break
        axis = np.linalg.eigh(steep.T @ steep - level.T @ level - weight * np.outer(up, up))[1][:, 0]
        up = axis if axis @ up > 0 else -axis
    return up


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
