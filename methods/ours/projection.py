"""Points to pixels: projection, the tracked resize and crop, and the feature lookup (spec E.2, E.5, K)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pretrain_bench.benchmarks.datasets.views import Frame


def project(xyz: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """(N, 2) pixel coordinates (x right, y down) of points (N, 3) from `upright_points` (metres, z up): pinhole projection."""
    camera = (xyz - frame.pose[:3, 3]) @ frame.pose[:3, :3]
    k = frame.intrinsic
    return np.stack(
        [camera[:, 0] / camera[:, 2] * k[0, 0] + k[0, 2], camera[:, 1] / camera[:, 2] * k[1, 1] + k[1, 2]], axis=1
    )


class CentreCrop(NamedTuple):
    """The central side x side pixels of an image that was resized to `size`.

    grid_x, grid_y (side,) float64: the source coordinate of each column and row of the crop. size: (width, height) after
    resizing; left, top: position of the crop in the resized image, rounded half to even as in image libraries.
    """

    size: tuple[int, int]
    left: int
    top: int
    side: int
    grid_x: NDArray[np.float64]
    grid_y: NDArray[np.float64]


def centre_crop(width: int, height: int, resize_side: int, side: int) -> CentreCrop:
    """The crop of a width x height source, resized to a shorter side of `resize_side`. Raises ValueError if `side` is larger."""
    if resize_side < side:
        raise ValueError(f"resize_side ({resize_side}) must be at least image_side ({side})")
    if width >= height:
        size = (int(resize_side * width / height), resize_side)
    else:
        size = (resize_side, int(resize_side * height / width))
    left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)

    def grid(start: int, resized: int, source: int) -> NDArray[np.float64]:
        return np.clip((np.arange(start, start + side) + 0.5) * (source / resized) - 0.5, 0, source - 1)

    return CentreCrop(size, left, top, side, grid(left, size[0], width), grid(top, size[1], height))


def crop_image(image: Tensor, crop: CentreCrop, antialias: bool = True) -> Tensor:
    """Resize and crop an image (3, H, W) in [0, 1] to (3, side, side): bilinear, with or without antialiasing."""
    resized = functional.interpolate(
        image[None], (crop.size[1], crop.size[0]), mode="bilinear", align_corners=False, antialias=antialias
    )[0]
    return resized[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]


def inside_crop(uv: NDArray[np.integer], crop: CentreCrop) -> NDArray[np.bool_]:
    """(N,) mask of the source pixels `uv` (N, 2) strictly inside the crop's source range, truncated to whole pixels and shrunk by
    one pixel on every side."""
    low, high = (int(crop.grid_x[0]) + 1, int(crop.grid_y[0]) + 1), (int(crop.grid_x[-1]) - 1, int(crop.grid_y[-1]) - 1)
    return np.asarray(((uv > low) & (uv < high)).all(axis=1))


def lookup(features: Tensor, uv: Tensor, crop: CentreCrop, mode: str = "bilinear") -> Tensor:
    """Sample features (C, side, side) at source pixels `uv` (M, 2): (M, C).

    "bilinear" interpolates at the continuous crop position, computed in float64: float32 positions, as in grid_sample, would lose
    three digits. "author_code" follows the author's routine, which derives the cell from the truncated first grid coordinate and
    so extrapolates for about a third of the points (spec 0.2, item 4).
    """

    def cell(pixel: Tensor, grid: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        step = grid[1] - grid[0]
        origin = int(grid[0]) if mode == "author_code" else grid[0]
        index = torch.floor((pixel.double() - origin) / step).clamp(0, crop.side - 2).to(torch.int64)
        left = torch.from_numpy(grid).to(pixel.device)[index]
        return index, ((pixel.double() - left) / step).to(features.dtype)[:, None]

    (x, wx), (y, wy) = cell(uv[:, 0], crop.grid_x), cell(uv[:, 1], crop.grid_y)
    rows = features.permute(1, 2, 0)
    upper = rows[y, x] * (1 - wx) + rows[y, x + 1] * wx
    lower = rows[y + 1, x] * (1 - wx) + rows[y + 1, x + 1] * wx
    return upper * (1 - wy) + lower * wy
