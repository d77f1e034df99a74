"""Generate one street from a random generator, for a laser on a car that drives along +x in the right lane."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from pretrain_bench.benchmarks.procedural import parts, street_parts
from pretrain_bench.benchmarks.procedural.parts import BOX, Part, Solid
from pretrain_bench.benchmarks.procedural.worlds import Builder, World, attempt, footprint, meet

LENGTH_METRES = 160.0
SENSOR_HEIGHT = 1.73
# 64 beams from 2 degrees up to 24.8 degrees down, like KITTI's sensor.
ELEVATIONS = np.radians(np.linspace(2.0, -24.8, 64))


def build_street(rng: Generator) -> World:
    """Build road, parking, sidewalks, gardens, buildings, trees, poles, signs, cars and people. The road's middle is y = 0."""
    builder = _Street()
    half_road = rng.uniform(3.2, 5.0)
    _ground(builder, rng, "road", (-half_road, half_road), 0.0)
    for side in (-1, 1):
        edge = half_road
        if rng.random() < 0.5:
            width = rng.uniform(2.2, 2.8)
            _ground(builder, rng, "parking", (side * edge, side * (edge + width)), 0.0)
            _row(builder, rng, side * (edge + width / 2), 0.55, side)
            edge += width
        walk = rng.uniform(1.8, 3.5)
        _ground(builder, rng, "sidewalk", (side * edge, side * (edge + walk)), 0.12)
        _furniture(builder, rng, side, edge, walk)
        edge += walk
        garden = rng.uniform(0.0, 6.0)
        if garden > 1.0:
            _ground(builder, rng, "terrain", (side * edge, side * (edge + garden)), 0.06)
            _garden(builder, rng, side, edge, garden)
        _ground(builder, rng, "terrain", (side * (edge + garden), side * (edge + garden + 45)), 0.05)
        _buildings(builder, rng, side, edge + max(garden, 0.5))
    _traffic(builder, rng, half_road)
    return builder.build("street")


class _Street(Builder):
    """A builder without walls; the street extends from -LENGTH/2 to LENGTH/2 along x."""

    def __init__(self) -> None:
        super().__init__((LENGTH_METRES, 120.0, 30.0))

    def place(self, part: Part, x: float, y: float, yaw: float, front: float = 0.0) -> bool:
        box = footprint(part, x, y, yaw)
        if any(meet(box, f) for f in self.footprints):
            return False
        self.footprints.append(box)
        self.add(part, x, y, 0.0, yaw)
        return True


def _ground(builder: Builder, rng: Generator, label: str, across: tuple[float, float], height: float) -> None:
    y0, y1 = across
    look = parts.draw_look(rng, label)
    slab = Solid(BOX, (0, 0, height - 0.25), (LENGTH_METRES / 2, abs(y1 - y0) / 2, 0.25), 0.0, look)
    builder.add(Part(label, [slab]), 0.0, (y0 + y1) / 2, 0.0, 0.0)


def _row(builder: Builder, rng: Generator, y: float, share: float, side: int) -> None:
    """Place parked cars, and occasionally a truck or bicycles."""
    x = -LENGTH_METRES / 2 + 4
    while x < LENGTH_METRES / 2 - 5:
        if rng.random() < share:
            kind = rng.random()
            part = (
                street_parts.truck(rng)
                if kind < 0.06
                else street_parts.bicycle(rng)
                if kind < 0.14
                else street_parts.car(rng)
            )
            yaw = math.pi / 2 * (-side if rng.random() < 0.8 else side) + rng.normal(0, 0.03)
            builder.place(part, x, y + rng.normal(0, 0.1), yaw)
        x += rng.uniform(5.2, 6.5)


def _furniture(builder: Builder, rng: Generator, side: int, edge: float, walk: float) -> None:
    for x in np.arange(-LENGTH_METRES / 2 + 6, LENGTH_METRES / 2, rng.uniform(16, 28)):
        builder.place(
            street_parts.street_light(rng), x + rng.normal(0, 1), side * (edge + 0.3), -side * math.pi / 2 + math.pi / 2
        )
    for _ in range(int(rng.integers(2, 7))):
        x = rng.uniform(-0.48, 0.48) * LENGTH_METRES
        for part in street_parts.sign(rng):
            builder.add(part, x, side * (edge + 0.45), 0.0, float(rng.choice([-1, 1])) * math.pi / 2)
    for _ in range(int(rng.integers(3, 9))):
        person = street_parts.person(rng)

        def walks(person: Part = person) -> bool:
            x, y = rng.uniform(-0.48, 0.48) * LENGTH_METRES, side * (edge + rng.uniform(0.6, walk - 0.4))
            return builder.place(person, x, y, rng.uniform(0, 2 * math.pi))

        attempt(5, walks)


def _garden(builder: Builder, rng: Generator, side: int, edge: float, depth: float) -> None:
    if rng.random() < 0.6:
        for x in np.arange(-LENGTH_METRES / 2 + 8, LENGTH_METRES / 2 - 8, 14.0):
            if rng.random() < 0.7:
                builder.place(street_parts.fence(rng, rng.uniform(6, 12)), x, side * (edge + 0.2), 0.0)
    for _ in range(int(rng.integers(4, 10))):
        x, y = rng.uniform(-0.48, 0.48) * LENGTH_METRES, side * (edge + rng.uniform(0.9, max(1.0, depth - 0.8)))
        if rng.random() < 0.55:
            for part in street_parts.tree(rng):
                builder.add(part, x, y, 0.0, 0.0)
        else:
            builder.place(street_parts.bush(rng), x, y, rng.uniform(0, 3))


def _buildings(builder: Builder, rng: Generator, side: int, edge: float) -> None:
    x = -LENGTH_METRES / 2
    while x < LENGTH_METRES / 2:
        width, depth, height = rng.uniform(8, 20), rng.uniform(8, 14), rng.uniform(5, 16)
        if rng.random() < 0.85:
            look, trim = parts.draw_look(rng, "building"), parts.draw_look(rng, "building")
            y0 = rng.uniform(0, 1.5)
            solids = [parts.solid((-width / 2, width / 2), (y0, y0 + depth), (0, height), look)]
            for wx in np.arange(-width / 2 + 1.2, width / 2 - 1.2, 2.6):
                solids += [
                    parts.solid((wx, wx + 1.2), (y0 - 0.08, y0), (z, z + 1.5), trim)
                    for z in np.arange(1.0, height - 2, 3.0)
                ]
            yaw = 0.0 if side > 0 else math.pi
            builder.add(Part("building", solids), x + width / 2, side * edge, 0.0, yaw)
        x += width + float(rng.choice([0.0, 2.0, 6.0]))


def _traffic(builder: Builder, rng: Generator, half_road: float) -> None:
    for _ in range(int(rng.integers(3, 8))):
        part = (
            street_parts.truck(rng)
            if rng.random() < 0.12
            else street_parts.bicycle(rng)
            if rng.random() < 0.15
            else street_parts.car(rng)
        )

        def drives(part: Part = part) -> bool:
            lane = float(rng.choice([-1, 1]))
            x = rng.uniform(-0.48, 0.48) * LENGTH_METRES
            # Keep the lane of the recording car free: the right lane, at y < 0.
            if lane < 0 and abs(x) < 45:
                return False
            return builder.place(part, x, lane * half_road / 2, lane * math.pi / 2)

        attempt(6, drives)


def drive(rng: Generator, scans: int, half_length: float = 35.0) -> list[np.ndarray]:
    """Laser-to-world poses (4, 4) along the right lane."""
    poses = []
    heading = 0.0
    for x in np.linspace(-half_length, half_length, scans):
        heading = 0.8 * heading + rng.normal(0, 0.01)
        c, s = math.cos(heading), math.sin(heading)
        pose = np.eye(4)
        pose[:2, :2] = [[c, -s], [s, c]]
        pose[:3, 3] = [x, -1.7 + rng.normal(0, 0.05), SENSOR_HEIGHT]
        poses.append(pose)
    return poses
