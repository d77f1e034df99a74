"""Objects of a street: cars, people, plants and signs."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pretrain_bench.benchmarks.procedural.parts import CYLINDER, ELLIPSOID, Part, draw_look, round_or_square, solid


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
    plate = solid((-r, r), (0.035, 0.06), (h - 2 * r, h), draw_look(rng, "traffic-sign"), round_or_square(rng))
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
