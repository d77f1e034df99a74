"""One furnished room from a random generator: a list of boxes, each with a class and an instance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.procedural import parts
from benchmarks.procedural.parts import Box, Look, Part

ROOM_KINDS = ("office", "conferenceRoom", "lounge")
_FURNITURE = {"office": (2, 1, 2, 5), "conferenceRoom": (2, 0, 1, 3), "lounge": (1, 2, 1, 4)}


class World(NamedTuple):
    """Boxes as arrays: centre, half (B, 3) metres, yaw (B,) radians, label and instance per box, looks per box.

    The room spans `size` metres from the origin, z up; `kind` is one of ROOM_KINDS.
    """

    kind: str
    size: tuple[float, float, float]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    yaw: NDArray[np.float64]
    labels: list[str]
    instances: NDArray[np.int64]
    looks: list[Look]


class _Builder:
    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.labels: list[str] = []
        self.instances: list[int] = []
        self.footprints: list[tuple[float, float, float, float]] = []

    def add(self, part: Part, x: float, y: float, z: float, yaw: float) -> None:
        """Place a part; it becomes one more instance."""
        instance = self.instances[-1] + 1 if self.instances else 0
        c, s = math.cos(yaw), math.sin(yaw)
        for box in part.boxes:
            bx, by, bz = box.centre
            centre = (x + c * bx - s * by, y + s * bx + c * by, z + bz)
            self.boxes.append(Box(centre, box.half, box.yaw + yaw, box.look))
            self.labels.append(part.label)
            self.instances.append(instance)

    def place(self, part: Part, x: float, y: float, yaw: float, size: tuple[float, float, float]) -> bool:
        """Place a part on the floor if it is inside the room and clear of everything placed before."""
        reach = [(abs(b.centre[0]) + b.half[0], abs(b.centre[1]) + b.half[1]) for b in part.boxes]
        w, d = max(r[0] for r in reach), max(r[1] for r in reach)
        c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
        dx, dy = c * w + s * d, s * w + c * d
        box = (x - dx, y - dy, x + dx, y + dy)
        if box[0] < 0.01 or box[1] < 0.01 or box[2] > size[0] - 0.01 or box[3] > size[1] - 0.01:
            return False
        if any(box[0] < f[2] and f[0] < box[2] and box[1] < f[3] and f[1] < box[3] for f in self.footprints):
            return False
        self.footprints.append(box)
        self.add(part, x, y, 0.0, yaw)
        return True


def build_room(rng: Generator) -> World:
    """A room of a random kind with walls, openings and furniture."""
    kind = str(rng.choice(ROOM_KINDS))
    size = (rng.uniform(3.2, 5.6), rng.uniform(3.0, 5.0), rng.uniform(2.5, 3.0))
    builder = _Builder()
    _shell(builder, rng, size)
    _wall_things(builder, rng, size)
    _furnish(builder, rng, size, kind)
    boxes = builder.boxes
    return World(
        kind=kind,
        size=size,
        centre=np.array([b.centre for b in boxes]),
        half=np.array([b.half for b in boxes]),
        yaw=np.array([b.yaw for b in boxes]),
        labels=builder.labels,
        instances=np.array(builder.instances),
        looks=[b.look for b in boxes],
    )


def _shell(builder: _Builder, rng: Generator, size: tuple[float, float, float]) -> None:
    w, d, h = size
    thick = 0.1
    for label, z in (("floor", -thick), ("ceiling", h)):
        look = parts.draw_look(rng, label)
        builder.add(Part(label, [Box((w / 2, d / 2, z + thick / 2), (w / 2, d / 2, thick / 2), 0.0, look)]), 0, 0, 0, 0)
    look = parts.draw_look(rng, "wall")
    for x, y, half_x, half_y in (
        (w / 2, -thick / 2, w / 2, thick / 2),
        (w / 2, d + thick / 2, w / 2, thick / 2),
        (-thick / 2, d / 2, thick / 2, d / 2),
        (w + thick / 2, d / 2, thick / 2, d / 2),
    ):
        builder.add(Part("wall", [Box((x, y, h / 2), (half_x, half_y, h / 2), 0.0, look)]), 0, 0, 0, 0)
    if rng.random() < 0.7:
        depth, across = rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.4)
        beam = Box((w / 2, 0, h - depth / 2), (w / 2, across / 2, depth / 2), 0.0, parts.draw_look(rng, "beam"))
        builder.add(Part("beam", [beam]), 0, rng.uniform(0.3 * d, 0.7 * d), 0, 0)


def _against_wall(wall: int, along: float, gap: float, size: tuple[float, float, float]) -> tuple[float, float, float]:
    """x, y and yaw of a thing whose back is `gap` in front of a wall, facing into the room."""
    w, d, _ = size
    return (
        (along * w, gap, 0.0),
        (w - gap, along * d, math.pi / 2),
        (along * w, d - gap, math.pi),
        (gap, along * d, -math.pi / 2),
    )[wall]


def _wall_things(builder: _Builder, rng: Generator, size: tuple[float, float, float]) -> None:
    top = size[2] - 0.35
    walls = rng.permutation(4)
    kinds = [
        parts.panel("door", rng.uniform(0.8, 1.0), 0.0, 2.05, 0.04),
        parts.panel("window", rng.uniform(0.9, 1.6), rng.uniform(0.8, 1.0), top, 0.03),
        parts.panel("board", rng.uniform(1.2, 2.0), rng.uniform(0.8, 1.0), rng.uniform(1.8, 2.0), 0.03),
        parts.panel("window", rng.uniform(0.9, 1.6), rng.uniform(0.8, 1.0), top, 0.03),
    ]
    for wall, build in zip(walls, kinds, strict=True):
        x, y, yaw = _against_wall(int(wall), rng.uniform(0.3, 0.7), 0.0, size)
        builder.add(build(rng), x, y, 0.0, yaw)
        if wall == walls[0]:
            # Nothing stands in front of the door.
            reach = 0.9
            builder.footprints.append((x - reach, y - reach, x + reach, y + reach))
    if rng.random() < 0.6:
        corner = rng.integers(4)
        part = parts.column(rng, size[2])
        side = part.boxes[0].half[0]
        x = side + 0.02 if corner % 2 else size[0] - side - 0.02
        y = side + 0.02 if corner < 2 else size[1] - side - 0.02
        builder.place(part, x, y, 0.0, size)


def _try(times: int, attempt: Callable[[], bool]) -> bool:
    return any(attempt() for _ in range(times))


def _furnish(builder: _Builder, rng: Generator, size: tuple[float, float, float], kind: str) -> None:
    tables, sofas, cases, things = _FURNITURE[kind]
    for make, count, depth in ((parts.bookcase, cases, 0.22), (parts.sofa, sofas, 0.5)):
        for _ in range(count):
            part = make(rng)

            def against(part: Part = part, depth: float = depth) -> bool:
                x, y, yaw = _against_wall(int(rng.integers(4)), rng.uniform(0.15, 0.85), depth, size)
                return builder.place(part, x, y, yaw, size)

            _try(30, against)
    for _ in range(tables):
        part = parts.table(rng)
        spot = [0.0, 0.0, 0.0]

        def somewhere(part: Part = part, spot: list[float] = spot) -> bool:
            spot[:] = [rng.uniform(0.8, size[0] - 0.8), rng.uniform(0.8, size[1] - 0.8), rng.uniform(-0.2, 0.2)]
            return builder.place(part, spot[0], spot[1], spot[2], size)

        if _try(40, somewhere):
            _dress_table(builder, rng, size, part, spot)
    for _ in range(things):
        part = parts.clutter(rng)

        def on_the_floor(part: Part = part) -> bool:
            x, y = rng.uniform(0.2, size[0] - 0.2), rng.uniform(0.2, size[1] - 0.2)
            return builder.place(part, x, y, rng.uniform(0, 3), size)

        _try(20, on_the_floor)


def _dress_table(
    builder: _Builder, rng: Generator, size: tuple[float, float, float], part: Part, spot: list[float]
) -> None:
    """Chairs that look at the table, and things on it."""
    x, y, yaw = spot
    top = part.boxes[0]
    for side in rng.permutation(4)[: int(rng.integers(1, 5))]:
        angle = yaw + side * math.pi / 2
        away = top.half[1 if side % 2 == 0 else 0] + rng.uniform(0.3, 0.45)
        # Side 0 stands at -y of the table and faces +y.
        cx, cy = x + away * math.sin(angle), y - away * math.cos(angle)
        builder.place(parts.chair(rng), cx, cy, angle + rng.uniform(-0.3, 0.3), size)
    for _ in range(int(rng.integers(1, 4))):
        dx, dy = rng.uniform(-0.6, 0.6) * top.half[0], rng.uniform(-0.6, 0.6) * top.half[1]
        c, s = math.cos(yaw), math.sin(yaw)
        height = top.centre[2] + top.half[2]
        builder.add(parts.clutter(rng), x + c * dx - s * dy, y + s * dx + c * dy, height, rng.uniform(0, 3))
