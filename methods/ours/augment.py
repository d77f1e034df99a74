"""SimCLR augmentations with exactly tracked geometry (spec E.4).

A view is a crop of the source image, resized to a square and possibly mirrored. Its pixels therefore map to source coordinates by
one affine formula per axis, and inverting the formula of the other view gives a pixel's match without a search.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from pretrain_bench.methods.ours.recipe import OursImages


class Crop(NamedTuple):
    """A window of the source image in pixels, resized to side x side, mirrored left to right if `flip`."""

    left: int
    top: int
    width: int
    height: int
    flip: bool
    side: int

    def source(self, axis: int, pixel: Tensor) -> Tensor:
        """Source coordinates (x for axis 0, y for axis 1) of view pixels: those of bilinear resizing with half-pixel centres and
        without antialiasing, clamped to the outer pixel centres of the window."""
        start, size = (self.left, self.width) if axis == 0 else (self.top, self.height)
        if axis == 0 and self.flip:
            pixel = self.side - 1 - pixel
        return start + ((pixel + 0.5) * size / self.side - 0.5).clamp(0, size - 1)

    def pixel(self, axis: int, source: Tensor) -> Tensor:
        """The view pixel nearest to each source coordinate; it may be outside 0..side - 1."""
        start, size = (self.left, self.width) if axis == 0 else (self.top, self.height)
        position = torch.round((source - start + 0.5) * self.side / size - 0.5)
        return self.side - 1 - position if axis == 0 and self.flip else position


def draw_crop(width: int, height: int, settings: OursImages, rng: Generator) -> Crop:
    """A random resized crop with uniform area share and log-uniform aspect; if ten draws do not fit, the largest centre crop with
    an allowed aspect. Mirrored with `flip_probability`."""
    flip = bool(rng.random() < settings.flip_probability)
    low, high = (math.log(a) for a in settings.crop_aspect)
    for _ in range(10):
        area = width * height * rng.uniform(*settings.crop_area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return Crop(left, top, w, h, flip, settings.image_side)
    aspect = min(max(width / height, settings.crop_aspect[0]), settings.crop_aspect[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return Crop((width - w) // 2, (height - h) // 2, w, h, flip, settings.image_side)


def apply_crop(image: Tensor, crop: Crop) -> Tensor:
    """Crop and resize an image (3, H, W) in [0, 1] to (3, side, side), bilinear with antialiasing; mirror it if `crop.flip`."""
    window = image[None, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    size = (crop.side, crop.side)
    out = functional.interpolate(window, size, mode="bilinear", align_corners=False, antialias=True)[0]
    return out.flip(2) if crop.flip else out


def match_pixels(one: Crop, two: Crop, radius: float, nearest: bool = True) -> Tensor:
    """(M, 2) flat pixel indices y * side + x, one row for each pixel of view `one` with a match in view `two`.

    The match is the pixel of `two` with the nearest source coordinates, if within `radius` source pixels; with `nearest` false,
    the first pixel in reading order within the radius, as in the author's code.
    """
    side = one.side
    pixels = torch.arange(side, dtype=torch.float64)
    columns = _axis_matches(one, two, 0, pixels, radius)
    rows = _axis_matches(one, two, 1, pixels, radius)
    if nearest:
        (x, dx), (y, dy) = columns[:2], rows[:2]
        close = dy[:, None] ** 2 + dx[None, :] ** 2 <= radius**2
        target = y[:, None] * side + x[None, :]
        flat = torch.arange(side * side).reshape(side, side)
        return torch.stack([flat[close], target[close]], dim=1)
    return _first_matches(one, two, radius)


def _axis_matches(one: Crop, two: Crop, axis: int, pixels: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    source = one.source(axis, pixels)
    nearest = two.pixel(axis, source).clamp(0, two.side - 1)
    return nearest.to(torch.int64), (two.source(axis, nearest) - source).abs()


def _first_matches(one: Crop, two: Crop, radius: float) -> Tensor:
    """The first pixel of `two` in reading order within `radius`; loops over rows of `two`, for all pixels of `one` at once."""
    side = one.side
    pixels = torch.arange(side, dtype=torch.float64)
    x1, y1 = one.source(0, pixels), one.source(1, pixels)
    x2, y2 = two.source(0, pixels), two.source(1, pixels)
    squared_x = (x1[:, None] - x2[None, :]) ** 2
    best = torch.full((side, side), side * side, dtype=torch.int64)
    for row in range(side):
        room = radius**2 - (y1 - y2[row]) ** 2
        for y in (room >= 0).nonzero().reshape(-1).tolist():
            hit = squared_x <= room[y]
            first = torch.where(hit.any(1), row * side + hit.to(torch.int8).argmax(1), side * side)
            best[y] = torch.minimum(best[y], first)
    matched = best < side * side
    flat = torch.arange(side * side).reshape(side, side)
    return torch.stack([flat[matched], best[matched]], dim=1)


def change_colours(image: Tensor, settings: OursImages, rng: Generator) -> Tensor:
    """Apply colour jitter, greyscale and blur to an image (3, S, S) in [0, 1], each with its probability."""
    if rng.random() < settings.jitter_probability:
        image = _jitter(image, settings.jitter, rng)
    if rng.random() < settings.grey_probability:
        image = _grey(image).expand_as(image)
    if rng.random() < settings.blur_probability:
        image = _blur(image, rng.uniform(*settings.blur_sigma))
    return image


def _jitter(image: Tensor, strength: tuple[float, float, float, float], rng: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in random order."""
    factors = [rng.uniform(max(0.0, 1 - s), 1 + s) for s in strength[:3]]
    shift = rng.uniform(-strength[3], strength[3])
    for which in rng.permutation(4):
        if which == 0:
            image = (image * factors[0]).clamp(0, 1)
        elif which == 1:
            image = (_grey(image).mean() * (1 - factors[1]) + image * factors[1]).clamp(0, 1)
        elif which == 2:
            image = (_grey(image) * (1 - factors[2]) + image * factors[2]).clamp(0, 1)
        else:
            image = _turn_hue(image, shift)
    return image


def _grey(image: Tensor) -> Tensor:
    """(1, H, W) luma, ITU-R 601."""
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


def _turn_hue(image: Tensor, shift: float) -> Tensor:
    """Turn the hue by `shift` of a full circle, in HSV."""
    value, _ = image.max(0)
    span = value - image.min(0).values
    safe = torch.where(span > 0, span, torch.ones_like(span))
    r, g, b = image
    sector = torch.where(
        value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    hue = (sector / 6 + shift) % 1.0
    # Each channel of a pure hue is a trapezoid over the six sectors of the hue circle, shifted by n sectors.
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (n + hue * 6) % 6
        channels.append(value - span * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with an odd window of about a tenth of the side, reflected at the border."""
    half = max(1, image.shape[-1] // 20)
    offsets = torch.arange(-half, half + 1, dtype=image.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    padded = functional.pad(image[:, None], (half, half, half, half), mode="reflect")
    across = functional.conv2d(padded, weights[None, None, None, :])
    return functional.conv2d(across, weights[None, None, :, None])[:, 0]


def to_tensor(colour: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1))).float() / 255
