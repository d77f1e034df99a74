"""Generate one furnished room from a random generator."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from pretrain_bench.benchmarks.procedural import furniture, parts
from pretrain_bench.benchmarks.procedural.parts import BOX, Part, Solid
from pretrain_bench.benchmarks.procedural.worlds import Builder, World, attempt, extent

THICK = 0.1

# Content of each kind of room: part, least and greatest number, whether against a wall.
FURNITURE: dict[str, list[tuple[str, int, int, bool]]] = {
    "office": [("desk", 1, 2, True), ("bookshelf", 1, 2, True), ("cabinet", 0, 2, True), ("table", 0, 1, False),
               ("rack", 0, 1, True), ("clutter", 2, 5, False)],
    "conferenceRoom": [("table", 1, 2, False), ("cabinet", 0, 1, True), ("bookshelf", 0, 1, True), ("clutter", 1, 3, False)],
    "lounge": [("sofa", 1, 2, True), ("table", 1, 2, False), ("bookshelf", 0, 1, True), ("cabinet", 0, 1, True),
               ("clutter", 2, 5, False)],
    "library": [("bookshelf", 3, 5, True), ("desk", 0, 1, True), ("table", 1, 2, False), ("rack", 0, 1, True),
                ("clutter", 1, 4, False)],
    "hallway": [("cabinet", 0, 1, True), ("bookshelf", 0, 1, True), ("clutter", 1, 3, False)],
    "bedroom": [("bed", 1, 1, True), ("night_stand", 1, 2, True), ("dresser", 0, 1, True), ("cabinet", 0, 1, True),
                ("desk", 0, 1, True), ("bookshelf", 0, 1, True), ("clutter", 2, 5, False)],
    "bathroom": [("bathtub", 0, 1, True), ("toilet", 1, 1, True), ("sink", 1, 1, True), ("cabinet", 0, 1, True),
                 ("clutter", 1, 3, False)],
    "kitchen": [("counter", 1, 2, True), ("refrigerator", 1, 1, True), ("sink", 0, 1, True), ("table", 0, 1, False),
                ("cabinet", 0, 2, True), ("rack", 0, 1, True), ("clutter", 1, 3, False)],
}  # fmt: skip
SIZES = {
    "hallway": ((4.0, 6.5), (1.9, 2.6)),
    "bathroom": ((2.2, 3.2), (2.0, 3.0)),
    "kitchen": ((2.8, 4.2), (2.6, 3.8)),
}
_TOPS = {"table": 4, "desk": 4, "counter": 4, "dresser": 2, "night_stand": 2, "cabinet": 1}
ROOM_KINDS = tuple(FURNITURE)
FLOOR_STANDING = frozenset(n for rows in FURNITURE.values() for n, _, _, _ in rows) - {"clutter"}


def build_room(rng: Generator, kinds: tuple[str, ...] = ROOM_KINDS) -> World:
    """A room of one of `kinds` with walls, openings, furniture and things on it."""
    kind = str(rng.choice(list(kinds)))
    across, along = SIZES.get(kind, ((3.2, 5.6), (3.0, 5.0)))
    builder = Builder((rng.uniform(*across), rng.uniform(*along), rng.uniform(2.5, 3.0)))
    openings = _openings(builder, rng, kind)
    _shell(builder, rng, openings)
    _furnish(builder, rng, kind)
    _hang(builder, rng, kind, openings)
    return builder.build(kind)


class _Wall:
    """Openings cut out of one wall: intervals along it, each with a height range."""

    def __init__(self) -> None:
        self.holes: list[tuple[float, float, float, float]] = []

    def free(self, low: float, high: float) -> bool:
        return all(high + 0.15 < a or b + 0.15 < low for a, b, _, _ in self.holes)


def _wall_length(builder: Builder, wall: int) -> float:
    return builder.size[0] if wall % 2 == 0 else builder.size[1]


def _on_wall(builder: Builder, wall: int, along: float, gap: float) -> tuple[float, float, float]:
    """x, y and yaw of an object whose back is `gap` in front of a wall, `along` metres from its start, facing into the room."""
    w, d, _ = builder.size
    return (
        (along, gap, 0.0),
        (w - gap, along, math.pi / 2),
        (w - along, d - gap, math.pi),
        (gap, d - along, -math.pi / 2),
    )[wall]


def _openings(builder: Builder, rng: Generator, kind: str) -> list[_Wall]:
    """Add doors and windows; returns the openings that they need in the walls."""
    walls = [_Wall() for _ in range(4)]
    order = [int(i) for i in rng.permutation(4)]
    for number in range(1 if rng.random() < 0.75 else 2):
        width, height = rng.uniform(0.8, 1.0), rng.uniform(1.95, 2.1)
        wall = order[number]
        along = rng.uniform(0.15 + width / 2, _wall_length(builder, wall) - 0.15 - width / 2)
        walls[wall].holes.append((along - width / 2, along + width / 2, 0.0, height))
        x, y, yaw = _on_wall(builder, wall, along, 0.0)
        builder.add(furniture.door(rng, width, height), x, y, 0.0, yaw)
        builder.keep_clear(x, y, 0.9)
    for number in range(int(rng.integers(0, 2 if kind in ("hallway", "bathroom") else 4))):
        wall = order[(number + 1) % 4]
        width = min(rng.uniform(0.7, 1.7), _wall_length(builder, wall) - 0.6)
        bottom, top = rng.uniform(0.75, 1.1), builder.size[2] - rng.uniform(0.3, 0.6)
        along = rng.uniform(0.3 + width / 2, _wall_length(builder, wall) - 0.3 - width / 2)
        if not walls[wall].free(along - width / 2, along + width / 2):
            continue
        walls[wall].holes.append((along - width / 2, along + width / 2, bottom, top))
        x, y, yaw = _on_wall(builder, wall, along, 0.0)
        builder.add(furniture.window(rng, width, bottom, top), x, y, 0.0, yaw)
        if rng.random() < 0.45:
            for side in (-1, 1):
                place = along + side * (width / 2 + 0.12)
                if 0.25 < place < _wall_length(builder, wall) - 0.25:
                    x, y, yaw = _on_wall(builder, wall, place, 0.0)
                    builder.add(furniture.curtain(rng, rng.uniform(0.25, 0.45), top + 0.1), x, y, 0.0, yaw)
    return walls


def _shell(builder: Builder, rng: Generator, openings: list[_Wall]) -> None:
    """Floor, ceiling, walls around their openings, beams and columns."""
    w, d, h = builder.size
    for label, z in (("floor", -THICK), ("ceiling", h)):
        look = parts.draw_look(rng, label)
        slab = Solid(BOX, (0, 0, THICK / 2), (w / 2 + THICK, d / 2 + THICK, THICK / 2), 0.0, look)
        builder.add(Part(label, [slab]), w / 2, d / 2, z, 0)
    look = parts.draw_look(rng, "wall")
    for wall, cut in enumerate(openings):
        if rng.random() < 0.2:
            look = parts.draw_look(rng, "wall")
        length, pieces, at = _wall_length(builder, wall), [], -THICK
        for a, b, bottom, top in sorted(cut.holes):
            pieces += [(at, a, 0.0, h), (a, b, 0.0, bottom), (a, b, top, h)]
            at = b
        pieces.append((at, length + THICK, 0.0, h))
        solids = [
            parts.solid((a - length / 2, b - length / 2), (-THICK, 0), (low, high), look)
            for a, b, low, high in pieces
            if b - a > 1e-6 and high - low > 1e-6
        ]
        x, y, yaw = _on_wall(builder, wall, length / 2, 0.0)
        builder.add(Part("wall", solids), x, y, 0.0, yaw)
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        depth, wide = rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.4)
        look = parts.draw_look(rng, "beam")
        beam = Part("beam", [parts.solid((-w / 2, w / 2), (-wide / 2, wide / 2), (-depth, 0), look)])
        builder.add(beam, w / 2, rng.uniform(0.3 * d, 0.7 * d), h, 0)
    if rng.random() < 0.5:
        corner, part = int(rng.integers(4)), furniture.column(rng, h)
        side = part.solids[0].half[0] + 0.02
        builder.place(part, side if corner % 2 else w - side, side if corner < 2 else d - side, 0.0)


def _furnish(builder: Builder, rng: Generator, kind: str) -> None:
    for name, least, most, against in FURNITURE[kind]:
        for _ in range(int(rng.integers(least, most + 1))):
            part = getattr(furniture, name)(rng)
            if against:
                back = -float(min(s.centre[1] - s.half[1] for s in part.solids))
                spot = _against_wall(builder, rng, part, back)
            else:
                spot = _free_standing(builder, rng, part)
            if spot is not None and name in _TOPS:
                _dress(builder, rng, name, part, spot)


def _against_wall(builder: Builder, rng: Generator, part: Part, back: float) -> tuple[float, float, float] | None:
    spot = [0.0, 0.0, 0.0]
    half = float(max(abs(e[0]) for e in extent(part)))

    def once() -> bool:
        wall = int(rng.integers(4))
        length = _wall_length(builder, wall)
        margin = min(half + 0.03, length / 2)
        along = rng.uniform(margin, length - margin)
        spot[:] = _on_wall(builder, wall, along, back + rng.uniform(0.02, 0.08))
        spot[2] += rng.normal(0, 0.02)
        return builder.place(part, spot[0], spot[1], spot[2], front=0.35)

    return (spot[0], spot[1], spot[2]) if attempt(40, once) else None


def _free_standing(builder: Builder, rng: Generator, part: Part) -> tuple[float, float, float] | None:
    spot = [0.0, 0.0, 0.0]

    def once() -> bool:
        turn = rng.uniform(0, 3) if part.label == "clutter" else rng.choice([0, math.pi / 2]) + rng.uniform(-0.2, 0.2)
        spot[:] = [rng.uniform(0.2, builder.size[0] - 0.2), rng.uniform(0.2, builder.size[1] - 0.2), turn]
        return builder.place(part, spot[0], spot[1], spot[2])

    return (spot[0], spot[1], spot[2]) if attempt(40, once) else None


def _dress(builder: Builder, rng: Generator, name: str, part: Part, spot: tuple[float, float, float]) -> None:
    """Add chairs that face a table or desk, and objects on top."""
    x, y, yaw = spot
    top = part.solids[0] if name in ("table", "desk", "counter") else None
    height = max(s.centre[2] + s.half[2] for s in part.solids)
    half = top.half if top else tuple(np.ptp([s.centre[:2] for s in part.solids], axis=0) / 2 + 0.1)
    around = {"table": rng.permutation(4)[: int(rng.integers(1, 5))].tolist(), "desk": [2]}
    sides: list[int] = around.get(name, [])
    for side in sides:
        angle = yaw + side * math.pi / 2
        away = half[1 if side % 2 == 0 else 0] + rng.uniform(0.25, 0.45)
        # Side 0 is at -y of the table and faces +y.
        cx, cy = x + away * math.sin(angle), y - away * math.cos(angle)
        builder.place(furniture.chair(rng), cx, cy, angle + rng.uniform(-0.3, 0.3))
    if height > 1.6:
        return
    taken: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(0, _TOPS[name] + 1))):
        dx, dy = rng.uniform(-0.7, 0.7) * half[0], rng.uniform(-0.6, 0.6) * half[1]
        if any(math.hypot(dx - a, dy - b) < 0.35 for a, b in taken):
            continue
        taken.append((dx, dy))
        c, s = math.cos(yaw), math.sin(yaw)
        builder.add(furniture.clutter(rng), x + c * dx - s * dy, y + s * dx + c * dy, height, rng.uniform(0, 3))


def _hang(builder: Builder, rng: Generator, kind: str, openings: list[_Wall]) -> None:
    """Hang boards, pictures and shower curtains where the wall is free."""
    wanted = [
        ("picture", rng.uniform(0.3, 0.9), rng.uniform(1.2, 1.5), rng.uniform(1.7, 2.0))
        for _ in range(int(rng.integers(0, 4)))
    ]
    if kind in ("office", "conferenceRoom", "library", "lounge") and rng.random() < 0.8:
        wanted.append(("board", rng.uniform(1.2, 2.0), rng.uniform(0.8, 1.0), rng.uniform(1.8, 2.0)))
    for label, width, bottom, top in wanted:
        wall = int(rng.integers(4))
        length = _wall_length(builder, wall)
        if width + 0.4 > length:
            continue
        along = rng.uniform(0.2 + width / 2, length - 0.2 - width / 2)
        if openings[wall].free(along - width / 2, along + width / 2):
            openings[wall].holes.append((along - width / 2, along + width / 2, bottom, top))
            x, y, yaw = _on_wall(builder, wall, along, 0.0)
            builder.add(furniture.panel(label, width, bottom, top, rng.uniform(0.01, 0.03))(rng), x, y, 0.0, yaw)
    for one in list(builder.instances):
        if one.label == "bathtub" and rng.random() < 0.7:
            reach = one.size[1] / 2 + 0.02
            x, y = one.centre[0] - reach * math.sin(one.yaw), one.centre[1] + reach * math.cos(one.yaw)
            builder.add(furniture.curtain(rng, rng.uniform(0.6, 1.2), 2.0, "shower curtain"), x, y, 0.0, one.yaw)
            break
