"""Draw clouds and boxes as small pictures seen obliquely from above, and choose class colours."""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE = (320, 240)
YAW, TILT = np.radians(-35), np.radians(52)
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Edges of a box: pairs of corners in the order of `benchmarks.input.boxes.corners`."""
Picture = NDArray[np.uint8]


def palette(count: int) -> NDArray[np.uint8]:
    """(count + 1, 3) uint8 colours that are easy to tell apart; the last one, for unlabelled, is grey."""
    golden = 0.61803398875
    rows = [
        colorsys.hsv_to_rgb((0.05 + i * golden) % 1, (0.85, 0.55, 0.95)[i % 3], (0.95, 0.8, 0.6)[i % 3])
        for i in range(count)
    ]
    return (np.array([*rows, (0.75, 0.75, 0.75)]) * 255).astype(np.uint8)


class View(NamedTuple):
    """An oblique parallel projection: `centre` (3,) of the cloud, `scale` in pixels per metre, `shift` of the cloud's middle
    in the image plane (metres), `size` (width, height) in pixels, and `tilt` in radians: positive looks down, negative up."""

    centre: NDArray[np.float64]
    scale: float
    shift: tuple[float, float]
    size: tuple[int, int]
    tilt: float = TILT

    def pixels(self, xyz: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Column, row and nearness (greater is nearer) of positions (N, 3)."""
        right, up, near = _turned(np.asarray(xyz, np.float64) - self.centre, self.tilt)
        return (
            (right - self.shift[0]) * self.scale + self.size[0] / 2,
            self.size[1] / 2 - (up - self.shift[1]) * self.scale,
            near,
        )


def view_of(xyz: NDArray[np.floating], size: tuple[int, int] = TILE, tilt: float = TILT) -> View:
    """The view that fits all of a cloud (N, 3)."""
    if not len(xyz):
        return View(np.zeros(3), 1.0, (0.0, 0.0), size, tilt)
    points = np.asarray(xyz, np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    right, up, _ = _turned(points - centre, tilt)
    scale = 0.95 * min(size[0] / max(np.ptp(right), 1e-6), size[1] / max(np.ptp(up), 1e-6))
    return View(centre, scale, ((right.min() + right.max()) / 2, (up.min() + up.max()) / 2), size, tilt)


def _turned(
    points: NDArray[np.float64], tilt: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    c, s = np.cos(YAW), np.sin(YAW)
    right, back = c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]
    return right, np.cos(tilt) * points[:, 2] + np.sin(tilt) * back, np.sin(tilt) * points[:, 2] - np.cos(tilt) * back


def below(xyz: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """(N,) whether points lie below `share` of the height of a cloud, to draw a room without its ceiling."""
    if not len(xyz):
        return np.zeros(0, bool)
    heights = np.asarray(xyz, np.float64)[:, 2]
    return heights < heights.min() + share * np.ptp(heights)


def draw_cloud(
    xyz: NDArray[np.floating],
    colours: Picture,
    size: tuple[int, int] = TILE,
    cut: float | None = None,
    view: View | None = None,
    dot: int = 2,
) -> Picture:
    """Draw a cloud as (H, W, 3), each point a square of `dot` pixels; points above the share `cut` of its height are omitted."""
    if cut is not None:
        keep = below(xyz, cut)
        xyz, colours = xyz[keep], colours[keep]
    view = view or view_of(xyz, size)
    picture = np.full((view.size[1], view.size[0], 3), 255, np.uint8)
    if not len(xyz):
        return picture
    u, v, near = view.pixels(xyz)
    order = np.repeat(np.argsort(near), dot * dot)  # the nearest points are drawn last, over the others
    du, dv = (np.tile(step.ravel(), len(near)) for step in np.mgrid[:dot, :dot])
    rows = np.clip(v[order].astype(int) + dv, 0, view.size[1] - 1)
    columns = np.clip(u[order].astype(int) + du, 0, view.size[0] - 1)
    picture[rows, columns] = colours[order]
    return picture


def draw_boxes(image: Any, view: View, boxes: NDArray[np.floating], colours: Picture) -> None:
    """Draw the edges of (K, 7) boxes over a PIL image, each in its colour of (K, 3)."""
    from PIL import ImageDraw

    from pretrain_bench.benchmarks.input.boxes import corners

    draw = ImageDraw.Draw(image)
    for places, colour in zip(corners(boxes), colours, strict=True):
        u, v, _ = view.pixels(places)
        for a, b in EDGES:
            draw.line((u[a], v[a], u[b], v[b]), fill=tuple(int(c) for c in colour), width=2)
