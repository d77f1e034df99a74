"""Furniture and building parts, made of boxes. A part stands on z = 0, centred, its front towards +y."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Base colours in [0, 1]. Classes share them with different weights, so that colour alone does not tell a class.
MATERIALS: dict[str, tuple[float, float, float]] = {
    "white": (0.90, 0.89, 0.86),
    "cream": (0.82, 0.76, 0.63),
    "grey": (0.52, 0.53, 0.55),
    "dark": (0.18, 0.18, 0.20),
    "oak": (0.66, 0.48, 0.29),
    "walnut": (0.37, 0.24, 0.15),
    "blue": (0.22, 0.34, 0.58),
    "red": (0.60, 0.19, 0.17),
    "green": (0.25, 0.45, 0.27),
}
CLASS_MATERIALS: dict[str, str] = {
    "ceiling": "white white cream grey",
    "floor": "grey oak cream walnut dark",
    "wall": "white cream grey white green",
    "beam": "white grey cream",
    "column": "white grey cream red",
    "window": "blue grey white",
    "door": "oak walnut white grey blue",
    "table": "oak walnut white grey",
    "chair": "dark blue red grey oak",
    "sofa": "red blue grey dark cream",
    "bookcase": "oak walnut white dark",
    "board": "white green dark",
    "clutter": "red blue green dark white cream",
}


class Box(NamedTuple):
    """A solid box: centre and half sizes in metres, turned by `yaw` radians about z; look is colour and texture."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    look: Look


class Look(NamedTuple):
    """Base colour (3,) in [0, 1] and a texture: kind 0 plain, 1 stripes, 2 checks, 3 blotches; frequency per metre."""

    colour: NDArray[np.float64]
    texture: int
    frequency: float
    contrast: float
    phase: NDArray[np.float64]


class Part(NamedTuple):
    """One object: its class and boxes, in its own frame."""

    label: str
    boxes: list[Box]


def draw_look(rng: Generator, label: str) -> Look:
    """A material of the class, varied."""
    material = str(rng.choice(CLASS_MATERIALS[label].split()))
    colour = np.clip(np.array(MATERIALS[material]) + rng.normal(0, 0.06, 3), 0.05, 0.95)
    return Look(colour, int(rng.integers(4)), rng.uniform(1.0, 9.0), rng.uniform(0.05, 0.35), rng.uniform(0, 6.28, 3))


def _box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], look: Look) -> Box:
    (x0, x1), (y0, y1), (z0, z1) = x, y, z
    centre = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
    return Box(centre, ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2), 0.0, look)


def _legs(w: float, d: float, height: float, thick: float, look: Look) -> list[Box]:
    corners = [(sx * (w / 2 - thick), sy * (d / 2 - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    return [_box((x - thick / 2, x + thick / 2), (y - thick / 2, y + thick / 2), (0, height), look) for x, y in corners]


def table(rng: Generator) -> Part:
    """A top on four legs."""
    w, d, h = rng.uniform(0.9, 1.9), rng.uniform(0.6, 1.0), rng.uniform(0.68, 0.78)
    look = draw_look(rng, "table")
    top = _box((-w / 2, w / 2), (-d / 2, d / 2), (h - rng.uniform(0.03, 0.06), h), look)
    return Part("table", [top, *_legs(w, d, h - 0.03, rng.uniform(0.04, 0.08), look)])


def chair(rng: Generator) -> Part:
    """A seat on four legs with a back, sometimes with arms."""
    w, d, seat = rng.uniform(0.42, 0.55), rng.uniform(0.42, 0.52), rng.uniform(0.40, 0.50)
    back = seat + rng.uniform(0.35, 0.55)
    look = draw_look(rng, "chair")
    boxes = [
        _box((-w / 2, w / 2), (-d / 2, d / 2), (seat - 0.05, seat), look),
        _box((-w / 2, w / 2), (-d / 2, -d / 2 + 0.05), (seat, back), look),
        *_legs(w, d, seat - 0.05, 0.035, draw_look(rng, "chair")),
    ]
    if rng.random() < 0.4:
        for side in (-1, 1):
            x = side * (w / 2 - 0.02)
            boxes.append(_box((x - 0.02, x + 0.02), (-d / 2, d / 3), (seat + 0.18, seat + 0.22), look))
    return Part("chair", boxes)


def sofa(rng: Generator) -> Part:
    """A base with a back and two arms."""
    w, d, seat = rng.uniform(1.3, 2.1), rng.uniform(0.75, 0.95), rng.uniform(0.36, 0.46)
    look = draw_look(rng, "sofa")
    boxes = [
        _box((-w / 2, w / 2), (-d / 2, d / 2), (0.05, seat), look),
        _box((-w / 2, w / 2), (-d / 2, -d / 2 + 0.2), (seat, seat + rng.uniform(0.3, 0.45)), look),
    ]
    for side in (-1, 1):
        x = side * (w / 2 - 0.09)
        boxes.append(_box((x - 0.09, x + 0.09), (-d / 2, d / 2), (seat, seat + 0.2), look))
    return Part("sofa", boxes)


def bookcase(rng: Generator) -> Part:
    """Two sides, a back, shelves, and rows of books, which are part of it as in S3DIS."""
    w, d, h = rng.uniform(0.8, 1.5), rng.uniform(0.28, 0.4), rng.uniform(1.3, 2.1)
    look = draw_look(rng, "bookcase")
    shelves = int(rng.integers(3, 6))
    boxes = [_box((-w / 2, w / 2), (-d / 2, -d / 2 + 0.02), (0, h), look)]
    boxes += [_box((s * w / 2 - 0.015, s * w / 2 + 0.015), (-d / 2, d / 2), (0, h), look) for s in (-1, 1)]
    for level in range(shelves + 1):
        z = level * (h - 0.03) / shelves
        boxes.append(_box((-w / 2, w / 2), (-d / 2, d / 2), (z, z + 0.03), look))
        if level < shelves and rng.random() < 0.8:
            end = rng.uniform(-0.1, w / 2 - 0.05)
            top = z + 0.03 + rng.uniform(0.15, 0.22)
            boxes.append(
                _box((-w / 2 + 0.03, end), (-d / 2 + 0.02, d / 2 - 0.06), (z + 0.03, top), draw_look(rng, "clutter"))
            )
    return Part("bookcase", boxes)


def clutter(rng: Generator) -> Part:
    """A small thing: a box, sometimes with another on top."""
    w, d, h = rng.uniform(0.08, 0.4, 3)
    boxes = [_box((-w / 2, w / 2), (-d / 2, d / 2), (0, h), draw_look(rng, "clutter"))]
    if rng.random() < 0.4:
        boxes.append(_box((-w / 4, w / 4), (-d / 4, d / 4), (h, 1.6 * h), draw_look(rng, "clutter")))
    return Part("clutter", boxes)


def panel(label: str, width: float, bottom: float, top: float, thick: float) -> Callable[[Generator], Part]:
    """A thing that hangs on a wall: door, window or board, its back at y = 0."""

    def build(rng: Generator) -> Part:
        look = draw_look(rng, label)
        frame = draw_look(rng, label)
        boxes = [_box((-width / 2, width / 2), (0, thick), (bottom, top), look)]
        for x in (-width / 2, width / 2):
            boxes.append(_box((x - 0.04, x + 0.04), (0, thick + 0.03), (bottom, top + 0.04), frame))
        boxes.append(_box((-width / 2, width / 2), (0, thick + 0.03), (top, top + 0.05), frame))
        return Part(label, boxes)

    return build


def column(rng: Generator, height: float) -> Part:
    """A square pillar from floor to ceiling."""
    side = rng.uniform(0.25, 0.5)
    return Part("column", [_box((-side / 2, side / 2), (-side / 2, side / 2), (0, height), draw_look(rng, "column"))])
