"""A world, as arrays of solids that each have a class and an instance; and the builder that places rooms and streets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.procedural.parts import Look, Part, Solid


class Instance(NamedTuple):
    """One object: its class and oriented box: centre, full size along its own axes (x across, y to its front, z), yaw."""

    label: str
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float


class World(NamedTuple):
    """Solids as arrays: kind (S,), centre and half (S, 3) metres, yaw (S,) radians, look and instance of each.

    A room spans `size` metres from the origin, z up; `kind_name` names the kind of room or street.
    """

    kind_name: str
    size: tuple[float, float, float]
    kind: NDArray[np.int64]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    yaw: NDArray[np.float64]
    instance: NDArray[np.int64]
    looks: list[Look]
    instances: list[Instance]

    @property
    def labels(self) -> list[str]:
        """The class of each solid."""
        return [self.instances[i].label for i in self.instance]


class Builder:
    """Collects parts, and tracks which floor space is taken."""

    def __init__(self, size: tuple[float, float, float]) -> None:
        self.size = size
        self.solids: list[Solid] = []
        self.instance: list[int] = []
        self.instances: list[Instance] = []
        self.footprints: list[tuple[float, float, float, float]] = []

    def add(self, part: Part, x: float, y: float, z: float, yaw: float) -> None:
        """Add a part as a new instance."""
        c, s = math.cos(yaw), math.sin(yaw)
        low, high = extent(part)
        middle = (low + high) / 2
        centre = np.array([x + c * middle[0] - s * middle[1], y + s * middle[0] + c * middle[1], z + middle[2]])
        for one in part.solids:
            bx, by, bz = one.centre
            moved = (x + c * bx - s * by, y + s * bx + c * by, z + bz)
            self.solids.append(one._replace(centre=moved, yaw=one.yaw + yaw))
            self.instance.append(len(self.instances))
        self.instances.append(Instance(part.label, centre, high - low, yaw))

    def place(self, part: Part, x: float, y: float, yaw: float, front: float = 0.0) -> bool:
        """Place a part on the floor if it and the `front` metres before it are inside and clear of everything placed earlier."""
        box = footprint(part, x, y, yaw)
        if box[0] < 0.01 or box[1] < 0.01 or box[2] > self.size[0] - 0.01 or box[3] > self.size[1] - 0.01:
            return False
        if any(meet(box, f) for f in self.footprints):
            return False
        if front:
            reach = extent(part)[1][1] + front / 2
            fx, fy = x - math.sin(yaw) * reach, y + math.cos(yaw) * reach
            if any(meet((fx - front / 2, fy - front / 2, fx + front / 2, fy + front / 2), f) for f in self.footprints):
                return False
        self.footprints.append(box)
        self.add(part, x, y, 0.0, yaw)
        return True

    def keep_clear(self, x: float, y: float, reach: float) -> None:
        """Keep the area within `reach` of a point free."""
        self.footprints.append((x - reach, y - reach, x + reach, y + reach))

    def build(self, kind_name: str) -> World:
        """The finished world."""
        solids = self.solids
        return World(
            kind_name=kind_name,
            size=self.size,
            kind=np.array([s.kind for s in solids]),
            centre=np.array([s.centre for s in solids]),
            half=np.maximum(np.array([s.half for s in solids]), 1e-3),
            yaw=np.array([s.yaw for s in solids]),
            instance=np.array(self.instance),
            looks=[s.look for s in solids],
            instances=self.instances,
        )


def extent(part: Part) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest corner, (3,) each in metres, of a part in its own frame."""
    low, high = [], []
    for one in part.solids:
        c, s = abs(math.cos(one.yaw)), abs(math.sin(one.yaw))
        half = np.array([c * one.half[0] + s * one.half[1], s * one.half[0] + c * one.half[1], one.half[2]])
        low.append(np.array(one.centre) - half)
        high.append(np.array(one.centre) + half)
    return np.min(low, axis=0), np.max(high, axis=0)


def footprint(part: Part, x: float, y: float, yaw: float) -> tuple[float, float, float, float]:
    """Axis-aligned floor rectangle of a placed part: low x, low y, high x, high y."""
    low, high = extent(part)
    corners = np.array([(a, b) for a in (low[0], high[0]) for b in (low[1], high[1])])
    c, s = math.cos(yaw), math.sin(yaw)
    turned = corners @ np.array([[c, s], [-s, c]]) + [x, y]
    return (*turned.min(0), *turned.max(0))


def attempt(times: int, once: Callable[[], bool]) -> bool:
    """Whether one of several tries succeeds."""
    return any(once() for _ in range(times))


def meet(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    """Whether two floor rectangles overlap."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
