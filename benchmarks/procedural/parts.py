"""Furniture, building and street parts, made of boxes, cylinders and ellipsoids.

A part stands on z = 0, centred, its front towards +y, metres. Its label is this project's own fine class; `write.py` says what
each becomes in each layout.
"""

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
    """A solid of one kind that fills its box: centre and half sizes in metres, turned by `yaw` radians about z.

    A cylinder stands upright, its base an ellipse.
    """

    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    look: Look


class Part(NamedTuple):
    """One object: its class and solids, in its own frame."""

    label: str
    solids: list[Solid]


def draw_look(rng: Generator, label: str) -> Look:
    """A material of the class, varied."""
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


def _round_or_square(rng: Generator) -> int:
    return CYLINDER if rng.random() < 0.4 else BOX


def table(rng: Generator) -> Part:
    """A top on four legs, or a round one on a foot."""
    w, d, h = rng.uniform(0.9, 1.9), rng.uniform(0.6, 1.0), rng.uniform(0.68, 0.78)
    look, thick = draw_look(rng, "table"), rng.uniform(0.03, 0.06)
    if rng.random() < 0.25:
        w = d = rng.uniform(0.8, 1.2)
        foot = solid((-0.05, 0.05), (-0.05, 0.05), (0.03, h - thick), look, CYLINDER)
        base = solid((-0.28, 0.28), (-0.28, 0.28), (0, 0.03), look, CYLINDER)
        return Part("table", [solid((-w / 2, w / 2), (-d / 2, d / 2), (h - thick, h), look, CYLINDER), foot, base])
    top = solid((-w / 2, w / 2), (-d / 2, d / 2), (h - thick, h), look)
    return Part("table", [top, *legs(w, d, h - thick, rng.uniform(0.04, 0.08), look, _round_or_square(rng))])


def desk(rng: Generator) -> Part:
    """A top with a drawer block on one side, panel legs and a modesty panel."""
    w, d, h = rng.uniform(1.1, 1.7), rng.uniform(0.6, 0.8), rng.uniform(0.70, 0.77)
    look, side = draw_look(rng, "desk"), float(rng.choice([-1, 1]))
    inner = side * (w / 2 - rng.uniform(0.35, 0.5))
    return Part(
        "desk",
        [
            solid((-w / 2, w / 2), (-d / 2, d / 2), (h - 0.035, h), look),
            solid((inner, side * w / 2), (-d / 2 + 0.03, d / 2 - 0.03), (0.03, h - 0.035), draw_look(rng, "desk")),
            solid((-side * w / 2, -side * (w / 2 - 0.04)), (-d / 2, d / 2), (0, h - 0.035), look),
            solid((-w / 2, w / 2), (-d / 2, -d / 2 + 0.02), (0.25, h - 0.035), look),
        ],
    )


def chair(rng: Generator) -> Part:
    """A seat with a back, on four legs or a swivel foot, sometimes with arms."""
    w, d, seat = rng.uniform(0.42, 0.55), rng.uniform(0.42, 0.52), rng.uniform(0.40, 0.50)
    back = seat + rng.uniform(0.35, 0.55)
    look, frame = draw_look(rng, "chair"), draw_look(rng, "chair")
    solids = [
        solid((-w / 2, w / 2), (-d / 2, d / 2), (seat - rng.uniform(0.03, 0.08), seat), look),
        solid((-w / 2, w / 2), (-d / 2, -d / 2 + 0.05), (seat + rng.uniform(0, 0.15), back), look),
    ]
    if rng.random() < 0.35:
        solids.append(solid((-0.03, 0.03), (-0.03, 0.03), (0.08, seat - 0.03), frame, CYLINDER))
        solids += [solid((-0.27, 0.27), (-0.025, 0.025), (0.03, 0.08), frame)]
        solids += [solid((-0.025, 0.025), (-0.27, 0.27), (0.03, 0.08), frame)]
    else:
        solids += legs(w, d, seat - 0.05, 0.035, frame, _round_or_square(rng))
        solids += [
            solid((s * w / 2 - 0.02, s * w / 2), (-d / 2, -d / 2 + 0.04), (seat - 0.05, back), frame) for s in (-1, 1)
        ]
    if rng.random() < 0.4:
        for side in (-1, 1):
            x = side * (w / 2 - 0.02)
            solids.append(solid((x - 0.02, x + 0.02), (-d / 2, d / 3), (seat + 0.18, seat + 0.22), frame))
            solids.append(solid((x - 0.015, x + 0.015), (d / 3 - 0.04, d / 3), (seat - 0.04, seat + 0.18), frame))
    return Part("chair", solids)


def sofa(rng: Generator) -> Part:
    """A base with cushions, a back and two arms, sometimes pillows."""
    w, d, seat = rng.uniform(1.3, 2.1), rng.uniform(0.75, 0.95), rng.uniform(0.36, 0.46)
    look = draw_look(rng, "sofa")
    back = seat + rng.uniform(0.3, 0.45)
    solids = [
        solid((-w / 2, w / 2), (-d / 2, d / 2), (0, seat - 0.1), look),
        solid((-w / 2, w / 2), (-d / 2, -d / 2 + 0.2), (seat - 0.1, back), look),
    ]
    count = int(rng.integers(2, 4))
    for i in range(count):
        x = -w / 2 + 0.18 + (w - 0.36) * i / count
        solids.append(solid((x, x + (w - 0.36) / count - 0.02), (-d / 2 + 0.2, d / 2), (seat - 0.1, seat), look))
    for side in (-1, 1):
        x = side * (w / 2 - 0.09)
        solids.append(solid((x - 0.09, x + 0.09), (-d / 2, d / 2), (0.05, seat + 0.2), look))
    for x in (w * p for p in (-0.3, 0.28) if rng.random() < 0.5):
        cushion = solid(
            (x - 0.2, x + 0.2), (-d / 2 + 0.2, -d / 2 + 0.36), (seat, seat + 0.36), draw_look(rng, "sofa"), ELLIPSOID
        )
        solids.append(cushion)
    return Part("sofa", solids)


def bookshelf(rng: Generator) -> Part:
    """Two sides, a back, shelves, and rows of books, which are part of it as in S3DIS."""
    w, d, h = rng.uniform(0.8, 1.5), rng.uniform(0.28, 0.4), rng.uniform(1.3, 2.1)
    look = draw_look(rng, "bookshelf")
    shelves = int(rng.integers(3, 6))
    solids = [solid((-w / 2, w / 2), (-d / 2, -d / 2 + 0.02), (0, h), look)]
    solids += [solid((s * w / 2 - 0.015, s * w / 2 + 0.015), (-d / 2, d / 2), (0, h), look) for s in (-1, 1)]
    for level in range(shelves + 1):
        z = level * (h - 0.03) / shelves
        solids.append(solid((-w / 2, w / 2), (-d / 2, d / 2), (z, z + 0.03), look))
        x = -w / 2 + 0.03
        while level < shelves and x < w / 2 - 0.15 and rng.random() < 0.85:
            end = min(x + rng.uniform(0.1, 0.4), w / 2 - 0.03)
            top, depth = z + 0.03 + rng.uniform(0.15, 0.24), rng.uniform(0.04, 0.1)
            solids.append(solid((x, end), (-d / 2 + 0.02, d / 2 - depth), (z + 0.03, top), draw_look(rng, "books")))
            x = end + 0.01
    return Part("bookshelf", solids)


def _chest(label: str, width: Span, depth: Span, height: Span) -> Callable[[Generator], Part]:
    """A block with drawer or door fronts and handles."""

    def build(rng: Generator) -> Part:
        w, d, h = rng.uniform(*width), rng.uniform(*depth), rng.uniform(*height)
        look, front, knob = (draw_look(rng, label) for _ in range(3))
        solids = [solid((-w / 2, w / 2), (-d / 2, d / 2 - 0.02), (0, h), look)]
        rows, columns = max(1, round(h / rng.uniform(0.25, 0.6))), max(1, round(w / rng.uniform(0.4, 0.8)))
        for row in range(rows):
            for column in range(columns):
                x0, z0 = -w / 2 + w * column / columns, 0.06 + (h - 0.08) * row / rows
                x1, z1 = x0 + w / columns, z0 + (h - 0.08) / rows
                solids.append(solid((x0 + 0.01, x1 - 0.01), (d / 2 - 0.02, d / 2), (z0, z1 - 0.02), front))
                x, z = (x0 + x1) / 2, (z0 + z1) / 2
                solids.append(solid((x - 0.04, x + 0.04), (d / 2, d / 2 + 0.025), (z - 0.012, z + 0.012), knob))
        return Part(label, solids)

    return build


cabinet = _chest("cabinet", (0.6, 1.4), (0.35, 0.6), (0.8, 2.1))
dresser = _chest("dresser", (0.8, 1.4), (0.42, 0.55), (0.75, 1.2))
night_stand = _chest("night_stand", (0.38, 0.55), (0.35, 0.45), (0.45, 0.65))
refrigerator = _chest("refrigerator", (0.55, 0.8), (0.6, 0.75), (1.4, 1.95))


def bed(rng: Generator) -> Part:
    """A mattress on a frame with a headboard, a cover and pillows."""
    w, d, h = rng.uniform(0.9, 1.8), rng.uniform(1.9, 2.15), rng.uniform(0.45, 0.6)
    frame, cover, pillow = (draw_look(rng, "bed") for _ in range(3))
    solids = [
        solid((-w / 2, w / 2), (-d / 2, d / 2), (0.08, 0.3), frame),
        solid((-w / 2, w / 2), (-d / 2, -d / 2 + 0.06), (0, rng.uniform(0.8, 1.2)), frame),
        solid((-w / 2 + 0.03, w / 2 - 0.03), (-d / 2 + 0.06, d / 2 - 0.02), (0.3, h), pillow),
        solid((-w / 2, w / 2), (-d / 2 + rng.uniform(0.5, 0.9), d / 2), (0.2, h + 0.04), cover),
    ]
    for x in (0.0,) if w < 1.25 else (-w / 4, w / 4):
        solids.append(solid((x - 0.3, x + 0.3), (-d / 2 + 0.1, -d / 2 + 0.5), (h - 0.02, h + 0.14), pillow, ELLIPSOID))
    return Part("bed", solids)


def toilet(rng: Generator) -> Part:
    """A tank and a bowl."""
    look = draw_look(rng, "toilet")
    w, seat, top = rng.uniform(0.34, 0.4), rng.uniform(0.38, 0.44), rng.uniform(0.72, 0.82)
    return Part(
        "toilet",
        [
            solid((-w / 2, w / 2), (-0.34, -0.16), (seat - 0.05, top), look),
            solid((-w / 2, w / 2), (-0.2, 0.34), (seat - 0.3, seat + 0.02), look, ELLIPSOID),
            solid((-w / 2, w / 2), (-0.2, 0.34), (seat - 0.02, seat + 0.02), look, CYLINDER),
            solid((-0.12, 0.12), (-0.3, 0.15), (0, seat - 0.1), look),
        ],
    )


def sink(rng: Generator) -> Part:
    """A basin on a pedestal with a tap."""
    look, tap = draw_look(rng, "sink"), draw_look(rng, "sink")
    w, h = rng.uniform(0.45, 0.65), rng.uniform(0.8, 0.9)
    kind = CYLINDER if rng.random() < 0.5 else BOX
    return Part(
        "sink",
        [
            solid((-w / 2, w / 2), (-0.24, 0.22), (h - 0.16, h), look, kind),
            solid((-0.09, 0.09), (-0.2, 0.02), (0, h - 0.16), look, CYLINDER),
            solid((-0.02, 0.02), (-0.2, -0.16), (h, h + 0.16), tap, CYLINDER),
            solid((-0.015, 0.015), (-0.2, -0.02), (h + 0.13, h + 0.16), tap),
        ],
    )


def bathtub(rng: Generator) -> Part:
    """Four walls around a bottom."""
    w, d, h, t = rng.uniform(1.4, 1.75), rng.uniform(0.68, 0.8), rng.uniform(0.45, 0.6), 0.07
    look = draw_look(rng, "bathtub")
    return Part(
        "bathtub",
        [
            solid((-w / 2, w / 2), (-d / 2, d / 2), (0, 0.14), look),
            solid((-w / 2, w / 2), (-d / 2, -d / 2 + t), (0.14, h), look),
            solid((-w / 2, w / 2), (d / 2 - t, d / 2), (0.14, h), look),
            solid((-w / 2, -w / 2 + t), (-d / 2, d / 2), (0.14, h), look),
            solid((w / 2 - t, w / 2), (-d / 2, d / 2), (0.14, h), look),
        ],
    )


def counter(rng: Generator) -> Part:
    """A worktop on low cupboards."""
    w, d, h = rng.uniform(1.2, 2.2), rng.uniform(0.55, 0.65), rng.uniform(0.86, 0.95)
    look = draw_look(rng, "counter")
    fronts = _chest("counter", (w, w + 1e-6), (d - 0.06, d - 0.05), (h - 0.05, h - 0.045))(rng).solids
    return Part("counter", [solid((-w / 2, w / 2), (-d / 2, d / 2), (h - 0.045, h), look), *fronts])


def rack(rng: Generator) -> Part:
    """An open rack: four posts and boards, with boxes on them."""
    w, d, h = rng.uniform(0.7, 1.1), rng.uniform(0.35, 0.5), rng.uniform(1.0, 1.8)
    look = draw_look(rng, "rack")
    solids = legs(w, d, h, 0.035, look, CYLINDER)
    for level in range(int(rng.integers(3, 5))):
        z = 0.1 + level * (h - 0.15) / 4
        solids.append(solid((-w / 2, w / 2), (-d / 2, d / 2), (z, z + 0.02), look))
        if rng.random() < 0.6:
            x = rng.uniform(-w / 4, w / 4)
            top = z + rng.uniform(0.1, 0.25)
            solids.append(solid((x - 0.15, x + 0.15), (-d / 3, d / 3), (z + 0.02, top), draw_look(rng, "clutter")))
    return Part("rack", solids)


def clutter(rng: Generator) -> Part:
    """A small thing: a box, a pot, a ball, a lamp, a screen or a bin."""
    w, d, h = rng.uniform(0.08, 0.4, 3)
    look, other = draw_look(rng, "clutter"), draw_look(rng, "clutter")
    kind = int(rng.integers(5))
    if kind == 0:
        solids = [solid((-w / 2, w / 2), (-d / 2, d / 2), (0, h), look)]
        if rng.random() < 0.4:
            solids.append(solid((-w / 4, w / 4), (-d / 4, d / 4), (h, 1.6 * h), other))
    elif kind == 1:
        solids = [solid((-w / 2, w / 2), (-w / 2, w / 2), (0, h), look, CYLINDER)]
        solids.append(solid((-w * 0.7, w * 0.7), (-w * 0.7, w * 0.7), (h * 0.8, h * 0.8 + 1.5 * w), other, ELLIPSOID))
    elif kind == 2:
        solids = [solid((-w / 2, w / 2), (-d / 2, d / 2), (0, h), look, ELLIPSOID)]
    elif kind == 3:
        height = rng.uniform(0.3, 0.6)
        solids = [
            solid((-0.08, 0.08), (-0.08, 0.08), (0, 0.03), other, CYLINDER),
            solid((-0.012, 0.012), (-0.012, 0.012), (0.03, height), other, CYLINDER),
            solid((-0.12, 0.12), (-0.12, 0.12), (height - 0.12, height + 0.06), look, CYLINDER),
        ]
    else:
        w, h = rng.uniform(0.4, 0.65), rng.uniform(0.28, 0.4)
        solids = [
            solid((-w / 2, w / 2), (-0.02, 0.02), (0.1, 0.1 + h), look),
            solid((-0.12, 0.12), (-0.1, 0.1), (0, 0.02), other),
            solid((-0.03, 0.03), (-0.04, -0.02), (0.02, 0.2), other),
        ]
    return Part("clutter", solids)


def panel(label: str, width: float, bottom: float, top: float, thick: float) -> Callable[[Generator], Part]:
    """A flat thing in a frame that hangs on a wall, its back at y = 0."""

    def build(rng: Generator) -> Part:
        look, frame, t = draw_look(rng, label), draw_look(rng, label), rng.uniform(0.02, 0.05)
        solids = [solid((-width / 2, width / 2), (0, thick), (bottom, top), look)]
        for x in (-width / 2, width / 2):
            solids.append(solid((x - t, x + t), (0, thick + 0.02), (bottom - t, top + t), frame))
        for z in (bottom, top):
            solids.append(solid((-width / 2, width / 2), (0, thick + 0.02), (z - t, z + t), frame))
        return Part(label, solids)

    return build


def window(rng: Generator, width: float, bottom: float, top: float) -> Part:
    """Glass in the middle of the wall's thickness (y = -0.05), with a frame and bars."""
    glass, frame = draw_look(rng, "window"), draw_look(rng, "window")
    solids = [solid((-width / 2, width / 2), (-0.055, -0.045), (bottom, top), glass)]
    for x in (-width / 2 + 0.03, *([0.0] if rng.random() < 0.6 else []), width / 2 - 0.03):
        solids.append(solid((x - 0.03, x + 0.03), (-0.08, 0.0), (bottom, top), frame))
    for z in (bottom + 0.03, *([(bottom + top) / 2] if rng.random() < 0.4 else []), top - 0.03):
        solids.append(solid((-width / 2, width / 2), (-0.08, 0.0), (z - 0.03, z + 0.03), frame))
    solids.append(
        solid((-width / 2 - 0.05, width / 2 + 0.05), (-0.02, rng.uniform(0.05, 0.15)), (bottom - 0.03, bottom), frame)
    )
    return Part("window", solids)


def door(rng: Generator, width: float, height: float) -> Part:
    """A frame in the wall and a leaf that stands open by some angle, hinged on the left."""
    look, frame = draw_look(rng, "door"), draw_look(rng, "door")
    solids = [solid((s * width / 2 - 0.04, s * width / 2 + 0.04), (-0.1, 0.03), (0, height), frame) for s in (-1, 1)]
    solids.append(solid((-width / 2 - 0.04, width / 2 + 0.04), (-0.1, 0.03), (height, height + 0.06), frame))
    angle = 0.0 if rng.random() < 0.5 else rng.uniform(0.2, 1.3)
    reach = width / 2 - 0.04
    centre = (-width / 2 + 0.04 + reach * np.cos(angle), reach * np.sin(angle) - 0.02, height / 2)
    solids.append(Solid(BOX, centre, (reach, 0.02, height / 2 - 0.005), angle, look))
    return Part("door", solids)


def curtain(rng: Generator, width: float, height: float, label: str = "curtain") -> Part:
    """Folds from a rail to near the floor."""
    look = draw_look(rng, label)
    count = max(3, round(width / 0.12))
    bottom = rng.uniform(0.02, 0.3)
    folds = [
        solid(
            (-width / 2 + width * i / count, -width / 2 + width * (i + 1) / count),
            (0.04 + 0.03 * (i % 2), 0.1 + 0.03 * (i % 2)),
            (bottom, height),
            look,
            ELLIPSOID if i % 2 else CYLINDER,
        )
        for i in range(count)
    ]
    return Part(label, [*folds, solid((-width / 2, width / 2), (0.07, 0.1), (height, height + 0.03), look)])


def column(rng: Generator, height: float) -> Part:
    """A square or round pillar from floor to ceiling."""
    side, look = rng.uniform(0.25, 0.5) / 2, draw_look(rng, "column")
    return Part("column", [solid((-side, side), (-side, side), (0, height), look, _round_or_square(rng))])


def car(rng: Generator) -> Part:
    """A body with a cabin and wheels, its front towards +y."""
    w, d, h = rng.uniform(1.65, 1.9), rng.uniform(3.7, 4.8), rng.uniform(1.4, 1.75)
    look, dark = draw_look(rng, "car"), draw_look(rng, "car")
    solids = [
        solid((-w / 2, w / 2), (-d / 2, d / 2), (0.28, 0.62 * h), look),
        solid((-w / 2 + 0.08, w / 2 - 0.08), (-0.4 * d, 0.18 * d), (0.62 * h, h), look),
    ]
    for x in (-1, 1):
        for y in (-0.32, 0.32):
            centre = x * (w / 2 - 0.1)
            solids.append(solid((centre - 0.1, centre + 0.1), (y * d - 0.31, y * d + 0.31), (0, 0.62), dark, ELLIPSOID))
    return Part("car", solids)


def truck(rng: Generator) -> Part:
    """A cabin and a load."""
    w, d, h = rng.uniform(2.1, 2.5), rng.uniform(6.0, 9.0), rng.uniform(2.8, 3.6)
    look, load = draw_look(rng, "truck"), draw_look(rng, "truck")
    wheels = [
        solid((x - 0.15, x + 0.15), (y * d - 0.45, y * d + 0.45), (0, 0.9), look, ELLIPSOID)
        for x in (-w / 2 + 0.15, w / 2 - 0.15)
        for y in (-0.35, 0.35)
    ]
    return Part(
        "truck",
        [
            solid((-w / 2, w / 2), (d / 2 - 2.0, d / 2), (0.5, 0.85 * h), look),
            solid((-w / 2, w / 2), (-d / 2, d / 2 - 2.1), (0.8, h), load),
            *wheels,
        ],
    )


def bicycle(rng: Generator) -> Part:
    """Two thin wheels, a frame, a handlebar and a saddle."""
    look = draw_look(rng, "bicycle")
    wheels = [solid((-0.02, 0.02), (y - 0.33, y + 0.33), (0, 0.66), look, ELLIPSOID) for y in (-0.52, 0.52)]
    return Part(
        "bicycle",
        [
            *wheels,
            solid((-0.02, 0.02), (-0.5, 0.5), (0.5, 0.56), look),
            solid((-0.25, 0.25), (0.4, 0.45), (0.95, 0.99), look),
            solid((-0.08, 0.08), (-0.35, -0.1), (0.88, 0.94), look, ELLIPSOID),
        ],
    )


def person(rng: Generator) -> Part:
    """Legs, a body, arms and a head."""
    h, look, other = rng.uniform(1.55, 1.9), draw_look(rng, "person"), draw_look(rng, "person")
    step = rng.uniform(0, 0.25)
    return Part(
        "person",
        [
            solid((-0.16, -0.02), (-0.08 - step, 0.08 - step), (0, 0.48 * h), other, CYLINDER),
            solid((0.02, 0.16), (-0.08 + step, 0.08 + step), (0, 0.48 * h), other, CYLINDER),
            solid((-0.22, 0.22), (-0.14, 0.14), (0.45 * h, 0.86 * h), look, ELLIPSOID),
            solid((-0.31, -0.2), (-0.07, 0.07), (0.45 * h, 0.8 * h), look, ELLIPSOID),
            solid((0.2, 0.31), (-0.07, 0.07), (0.45 * h, 0.8 * h), look, ELLIPSOID),
            solid((-0.1, 0.1), (-0.11, 0.11), (0.85 * h, h), other, ELLIPSOID),
        ],
    )


def tree(rng: Generator) -> tuple[Part, Part]:
    """A trunk and its crown, two objects as in SemanticKITTI."""
    h, r = rng.uniform(4.6, 8.5), rng.uniform(0.12, 0.25)
    bare = rng.uniform(1.6, 2.6)
    leaves = draw_look(rng, "vegetation")
    crown = []
    for _ in range(int(rng.integers(3, 7))):
        x, y, z = rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9), rng.uniform(bare + 0.8, h - 0.8)
        a, b = rng.uniform(0.8, 1.6), rng.uniform(0.7, 1.3)
        crown.append(solid((x - a, x + a), (y - a, y + a), (z - b, z + b), leaves, ELLIPSOID))
    trunk = solid((-r, r), (-r, r), (0, bare + 0.9), draw_look(rng, "trunk"), CYLINDER)
    return Part("trunk", [trunk]), Part("vegetation", crown)


def bush(rng: Generator) -> Part:
    """A hedge of low ellipsoids."""
    look, solids = draw_look(rng, "vegetation"), []
    for i in range(int(rng.integers(1, 5))):
        a, h = rng.uniform(0.4, 0.9), rng.uniform(0.6, 1.5)
        solids.append(solid((i * 0.8 - a, i * 0.8 + a), (-a, a), (-0.2, h), look, ELLIPSOID))
    return Part("vegetation", solids)


def street_light(rng: Generator) -> Part:
    """A tall pole with an arm."""
    h, look = rng.uniform(5.0, 7.5), draw_look(rng, "pole")
    arm = solid((-0.05, 0.05), (0, rng.uniform(0.6, 1.4)), (h - 0.1, h), look)
    return Part("pole", [solid((-0.08, 0.08), (-0.08, 0.08), (0, h), look, CYLINDER), arm])


def sign(rng: Generator) -> tuple[Part, Part]:
    """A post and its sign, two objects as in SemanticKITTI."""
    h, r = rng.uniform(2.1, 2.9), rng.uniform(0.28, 0.45)
    post = solid((-0.035, 0.035), (-0.035, 0.035), (0, h), draw_look(rng, "pole"), CYLINDER)
    plate = solid((-r, r), (0.035, 0.06), (h - 2 * r, h), draw_look(rng, "traffic-sign"), _round_or_square(rng))
    return Part("pole", [post]), Part("traffic-sign", [plate])


def fence(rng: Generator, length: float) -> Part:
    """Posts and boards along x."""
    h, look = rng.uniform(0.9, 1.6), draw_look(rng, "fence")
    posts = [
        solid((x - 0.05, x + 0.05), (-0.05, 0.05), (0, h), look) for x in np.arange(-length / 2, length / 2 + 0.1, 1.5)
    ]
    boards = [
        solid((-length / 2, length / 2), (-0.02, 0.02), (z, z + 0.14), look) for z in np.arange(0.15, h - 0.1, 0.3)
    ]
    return Part("fence", [*posts, *boards])
