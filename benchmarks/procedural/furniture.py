"""Furniture, and parts of buildings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from pretrain_bench.benchmarks.procedural.parts import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    Part,
    Solid,
    Span,
    draw_look,
    legs,
    round_or_square,
    solid,
)


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
    return Part("table", [top, *legs(w, d, h - thick, rng.uniform(0.04, 0.08), look, round_or_square(rng))])


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
        solids += legs(w, d, seat - 0.05, 0.035, frame, round_or_square(rng))
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
    """Two sides, a back, shelves, and rows of books, which belong to it as in S3DIS."""
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
    """A small object: a box, a pot, a ball, a lamp, a screen or a bin."""
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
    """A flat framed object that hangs on a wall, with its back at y = 0."""

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
    """A frame in the wall and a leaf, hinged on the left and open by some angle."""
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
    return Part("column", [solid((-side, side), (-side, side), (0, height), look, round_or_square(rng))])
