"""Materials, looks and solids (boxes, cylinders and ellipsoids) of which objects are made.

A part stands on z = 0, centred, with its front towards +y, in metres. Its label is this project's own fine class; `write.py`
maps it to the classes of each layout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Base colours in [0, 1]. Classes share them with different weights, so that colour alone does not identify a class.
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
    "steel": (0.66, 0.68, 0.70),
    "asphalt": (0.28, 0.28, 0.30),
    "leaf": (0.24, 0.38, 0.16),
    "brick": (0.55, 0.33, 0.26),
}
CLASS_MATERIALS: dict[str, str] = {
    "ceiling": "white white cream grey",
    "floor": "grey oak cream walnut dark",
    "wall": "white cream grey white green oak",
    "beam": "white grey cream",
    "column": "white grey cream red",
    "window": "blue grey white steel",
    "door": "oak walnut white grey blue",
    "table": "oak walnut white grey",
    "desk": "oak walnut white grey",
    "chair": "dark blue red grey oak",
    "sofa": "red blue grey dark cream",
    "bookshelf": "oak walnut white dark",
    "books": "red blue green dark white cream",
    "board": "white green dark",
    "picture": "red blue green dark cream",
    "cabinet": "oak white walnut grey cream",
    "dresser": "oak walnut white dark",
    "night_stand": "oak walnut white dark",
    "bed": "white blue cream grey red",
    "curtain": "cream red blue green grey",
    "refrigerator": "white steel dark grey",
    "shower curtain": "white blue cream green",
    "toilet": "white cream grey",
    "sink": "white steel cream grey",
    "bathtub": "white cream grey",
    "counter": "oak grey dark white steel",
    "rack": "steel dark oak grey",
    "clutter": "red blue green dark white cream",
    "road": "asphalt grey dark",
    "parking": "asphalt grey cream",
    "sidewalk": "grey cream asphalt",
    "terrain": "leaf green walnut cream",
    "building": "brick cream white grey",
    "fence": "oak walnut steel dark",
    "vegetation": "leaf green walnut",
    "trunk": "walnut dark oak",
    "pole": "steel grey dark",
    "traffic-sign": "white red blue steel",
    "car": "dark white red blue steel grey",
    "truck": "white blue red steel",
    "bicycle": "dark red steel blue",
    "person": "blue dark red cream grey",
}

BOX, CYLINDER, ELLIPSOID = 0, 1, 2


class Look(NamedTuple):
    """Base colour (3,) in [0, 1] and a texture: kind 0 plain, 1 stripes, 2 checks, 3 blotches; frequency per metre."""

    colour: NDArray[np.float64]
    texture: int
    frequency: float
    contrast: float
    phase: NDArray[np.float64]


class Solid(NamedTuple):
    """A solid of one kind that fills its box, given by centre and half sizes in metres, and rotated by `yaw` radians about z.

    A cylinder is upright with an elliptical base.
    """

    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    look: Look


class Part(NamedTuple):
    """One object: its class and its solids, in its own coordinate frame."""

    label: str
    solids: list[Solid]


def draw_look(rng: Generator, label: str) -> Look:
    """Draw a varied material of the class."""
    material = str(rng.choice(CLASS_MATERIALS[label].split()))
    colour = np.clip(np.array(MATERIALS[material]) + rng.normal(0, 0.06, 3), 0.05, 0.95)
    return Look(colour, int(rng.integers(4)), rng.uniform(1.0, 9.0), rng.uniform(0.05, 0.35), rng.uniform(0, 6.28, 3))


Span = tuple[float, float]


def solid(x: Span, y: Span, z: Span, look: Look, kind: int = BOX) -> Solid:
    """A solid from its extents."""
    ends = (x, y, z)
    return Solid(
        kind, tuple((a + b) / 2 for a, b in ends), tuple(abs(b - a) / 2 for a, b in ends), 0.0, look  # type: ignore[arg-type]
    )  # fmt: skip


def legs(w: float, d: float, height: float, thick: float, look: Look, kind: int = BOX) -> list[Solid]:
    """Four legs near the corners of w x d."""
    corners = [(sx * (w / 2 - thick), sy * (d / 2 - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    t = thick / 2
    return [solid((x - t, x + t), (y - t, y + t), (0, height), look, kind) for x, y in corners]


def round_or_square(rng: Generator) -> int:
    """Draw the kind of an upright solid: a cylinder or a box."""
    return CYLINDER if rng.random() < 0.4 else BOX
