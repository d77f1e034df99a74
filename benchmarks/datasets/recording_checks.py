"""Detect recordings with implausible numbers: poses, depth and pictures that do not match.

Points of each frame are projected into neighbouring frames by the recorded poses. If poses and depth are right, many of them lie
at the depth that the neighbour measured. If another interpretation of the numbers (inverse poses, another unit) agrees much
better, the message names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pretrain_bench.benchmarks.datasets.sampled_frames import SampledFrames, grid_points

DEPTH_METRES = (0.2, 8.0)
"""Plausible median depth of a recording: the indoor range of depth cameras."""
LEAST_SHARED = 0.05
"""Least share of a frame's visible points that its neighbour must see too."""
CLEARLY_BETTER = 0.15
"""Increase in agreement between frames from which another interpretation is reported."""
MOST_ASPECT_DIFFERENCE = 0.03
_GAPS = (1, 2, 4, 8)
_MOST_PAIRS = 40
_MOST_POINTS = 500
_SAME_DEPTH = 0.04


class Interpretation(NamedTuple):
    """Another meaning of the recorded numbers, as text, with the changes that it makes: invert poses, scale pose translations and
    depth. It is only tried from a least median step, and up to a most median depth: a motion that is shrunk relative to depth
    always agrees better."""

    text: str
    inverse: bool = False
    pose_scale: float = 1.0
    depth_scale: float = 1.0
    least_step_metres: float = 0.0
    most_depth_metres: float = np.inf


AS_RECORDED = Interpretation("as recorded")
OTHER_INTERPRETATIONS = (
    Interpretation("poses are world-to-camera; expected camera-to-world, so invert them", inverse=True),
    Interpretation("depth is stored in 1/5000 m; expected 1/1000 m, so divide it by 5", depth_scale=1 / 5),
    Interpretation("depth is stored in 1/4000 m; expected 1/1000 m, so divide it by 4", depth_scale=1 / 4),
    Interpretation("depth is stored in 1/10000 m; expected 1/1000 m, so divide it by 10", depth_scale=1 / 10),
    Interpretation(
        "depth is stored in centimetres; expected millimetres",
        depth_scale=10.0,
        most_depth_metres=0.8,
    ),
    Interpretation(
        "poses are in millimetres; expected metres",
        pose_scale=1e-3,
        least_step_metres=30,
    ),
)


def recording_problems(name: str, frames: SampledFrames) -> list[str]:
    """One line for each implausible property of poses and depth; each starts with `name`."""
    numbers = _numbers(frames)
    problems = []
    median = _median_depth(frames)
    better = better_interpretation(frames)
    if better is not None:
        meaning, now, then = better
        problems.append(
            f"{name}: consecutive frames agree on {now:.0%} of what they see, but on {then:.0%} if {meaning.text} "
            f"({numbers})"
        )
    if median and not DEPTH_METRES[0] <= median <= DEPTH_METRES[1]:
        low, high = DEPTH_METRES
        problems.append(
            f"{name}: the median depth is {median:.3g} m; expected {low:g} to {high:g} m, as depth cameras measure indoors; is "
            f"it stored in millimetres? In 1/5000 m it would be {median / 5:.3g} m ({numbers})"
        )
    if better is None and len(frames.poses) > 1 and (least := _median_shared(frames)) < LEAST_SHARED:
        problems.append(
            f"{name}: neighbouring frames share {least:.0%} of what they see (median); expected {LEAST_SHARED:.0%} or more; "
            f"check that poses and depth belong together and that frames are close enough ({numbers})"
        )
    return problems


def aspect_problem(name: str, depth: tuple[int, int], colours: Iterable[tuple[int, int]]) -> str | None:
    """A line if pictures and depth images differ in aspect ratio, so that resizing cannot align their pixels. Sizes are (width,
    height)."""
    for width, height in sorted(set(colours)):
        if abs(width * depth[1] / (height * depth[0]) - 1) > MOST_ASPECT_DIFFERENCE:
            return (
                f"{name}: colour pictures are {width}x{height} (aspect ratio {width / height:.2f}), depth images "
                f"{depth[0]}x{depth[1]} ({depth[0] / depth[1]:.2f}); they must be aligned pixel by pixel"
            )
    return None


def better_interpretation(frames: SampledFrames) -> tuple[Interpretation, float, float] | None:
    """The interpretation with far better agreement than the recorded one, and both agreements; None if there is none."""
    pairs = [p for gap in _GAPS for p in _spread_pairs(len(frames.poses), gap)]
    if not pairs:
        return None
    depth, step = _median_depth(frames), _median_step(frames)
    tried = [m for m in OTHER_INTERPRETATIONS if step >= m.least_step_metres and depth <= m.most_depth_metres]
    now = _agreement(frames, pairs, AS_RECORDED)
    then = [_agreement(frames, pairs, meaning) for meaning in tried]
    best = int(np.argmax(then))
    if then[best] - now < CLEARLY_BETTER:
        return None
    return tried[best], now, then[best]


def shared(frames: SampledFrames, one: int, two: int, meaning: Interpretation = AS_RECORDED) -> float:
    """Share of the points of frame `one` that frame `two` sees at the same depth (within 4 %); 0 if a frame has no depth."""
    points = grid_points(frames.depth[one] * meaning.depth_scale, frames.intrinsic)
    points = points[np.isfinite(points[..., 2])]
    points = points[:: max(1, len(points) // _MOST_POINTS)]
    if not len(points):
        return 0.0
    poses = []
    for number in (one, two):
        pose = frames.poses[number].copy()
        pose[:3, 3] *= meaning.pose_scale
        poses.append(np.linalg.inv(pose) if meaning.inverse else pose)
    move = np.linalg.inv(poses[1]) @ poses[0]
    seen = points @ move[:3, :3].T + move[:3, 3]
    seen = seen[seen[:, 2] > 0]
    places = np.rint((seen @ frames.intrinsic.T)[:, :2] / seen[:, 2:])
    height, width = frames.depth.shape[1:]
    inside = ((places >= 0) & (places < (width, height))).all(axis=1)
    columns, rows = places[inside].astype(int).T
    measured = frames.depth[two][rows, columns] * meaning.depth_scale
    return float((np.abs(seen[inside, 2] - measured) <= _SAME_DEPTH * measured).sum() / len(points))


def _numbers(frames: SampledFrames) -> str:
    """The measured numbers, for comparison with how the recording was made."""
    depth = _median_depth(frames)
    parts = [f"median depth {depth:.3g} m" if depth else "no depth"]
    if len(frames.poses) > 1:
        parts.append(f"{_median_step(frames):.3g} m from frame to frame")
        parts.append(f"neighbours share {_median_shared(frames):.0%}")
    return ", ".join(parts)


def _median_depth(frames: SampledFrames) -> float:
    depth = frames.depth[frames.depth > 0]
    return float(np.median(depth)) if len(depth) else 0.0


def _median_step(frames: SampledFrames) -> float:
    return float(np.median(np.linalg.norm(np.diff(frames.poses[:, :3, 3], axis=0), axis=1)))


def _median_shared(frames: SampledFrames) -> float:
    return float(
        np.median([max(shared(frames, i, j), shared(frames, j, i)) for i, j in _spread_pairs(len(frames.poses), 1)])
    )


def _agreement(frames: SampledFrames, pairs: list[tuple[int, int]], meaning: Interpretation) -> float:
    return float(np.mean([shared(frames, i, j, meaning) for i, j in pairs]))


def _spread_pairs(frames: int, gap: int) -> list[tuple[int, int]]:
    if frames <= gap:
        return []
    firsts = np.unique(np.linspace(0, frames - gap - 1, _MOST_PAIRS).round().astype(int))
    return [(int(i), int(i) + gap) for i in firsts]
