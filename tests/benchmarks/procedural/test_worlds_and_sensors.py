"""Procedural worlds, and the sensors that record them."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain_bench.benchmarks.procedural import parts, rooms, sensors, solids, streets, write
from pretrain_bench.benchmarks.procedural.parts import BOX, CYLINDER, ELLIPSOID
from pretrain_bench.benchmarks.procedural.worlds import Instance, World
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.planning.catalog import find

SEED = 11


def one_solid(kind: int, centre: tuple[float, ...], half: tuple[float, ...], yaw: float = 0.0) -> World:
    look = parts.draw_look(np.random.default_rng(0), "wall")
    instance = Instance("wall", np.array(centre), 2 * np.array(half), yaw)
    return World(
        "office", (4, 4, 3), np.array([kind]), np.array([centre], float), np.array([half], float), np.array([yaw]),
        np.array([0]), [look], [instance],
    )  # fmt: skip


def everything(corners: np.ndarray) -> list[tuple[slice, slice]]:
    return [(slice(None), slice(None))]


def cast(world: World, rays: list[list[float]], origin: tuple[float, ...] = (0, 0, 0)) -> sensors.Hits:
    return sensors.cast(world, np.array(origin, float), np.array([rays], float), everything)


def test_rays_hit_solids_where_geometry_says() -> None:
    rays = [[1.0, 0, 0], [2.0, 0, 0], [-1.0, 0, 0], [1.0, 2.0, 0]]
    hits = cast(one_solid(BOX, (2, 0, 0), (0.5, 0.5, 0.5)), rays)
    assert np.allclose(hits.distance, [1.5, 0.75, np.inf, np.inf])
    assert np.allclose(hits.normal[0], [-1, 0, 0])
    turned = cast(one_solid(BOX, (2, 0, 0), (0.5, 0.5, 0.5), np.pi / 4), [[1.0, 0, 0]])
    assert np.isclose(turned.distance[0], 2 - 0.5 * np.sqrt(2))
    ball = cast(one_solid(ELLIPSOID, (3, 0, 0), (1, 0.5, 0.25)), [[1.0, 0, 0], [1.0, 0, 0.2]])
    assert np.allclose(ball.distance, [2, np.inf]) and np.allclose(ball.normal[0], [-1, 0, 0])
    tube = one_solid(CYLINDER, (3, 0, 0), (1, 0.5, 1))
    assert np.allclose(cast(tube, [[1.0, 0, 0], [1.0, 1.0, 0]]).distance, [2, np.inf])
    above = cast(tube, [[0, 0, -1.0]], (3.2, 0.1, 5))
    assert np.isclose(above.distance[0], 4) and np.allclose(above.normal[0], [0, 0, 1])


@pytest.mark.parametrize("kind", [BOX, CYLINDER, ELLIPSOID])
def test_surface_samples_are_even_and_where_rays_hit(kind: int) -> None:
    half = np.array([0.9, 0.4, 0.7])
    rng = np.random.default_rng(SEED)
    faces = solids.SURFACES[kind](half, rng, 4000.0)
    points = np.concatenate([p for p, _ in faces])
    normals = np.concatenate([n for _, n in faces])
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    hits = sensors.cast(
        one_solid(kind, (0, 0, 0), tuple(half)), np.zeros(3) + 0.0, (points + normals)[None] * 1.0, everything
    )
    assert len(hits.distance) == len(points)
    # A ray from outside along the normal hits each sample at distance one.
    back = [cast(one_solid(kind, (0, 0, 0), tuple(half)), [list(-n)], tuple(p + n)).distance[0] for p, n in
            zip(points[::97], normals[::97], strict=True)]  # fmt: skip
    assert np.allclose(back, 1, atol=1e-6)
    if kind == ELLIPSOID:
        # The share of points in a slab of an ellipsoid, compared with a fine triangulation.
        u = rng.normal(size=(400_000, 3))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        weight = np.linalg.norm(u / half, axis=1)
        expected = weight[np.abs(u[:, 2]) < 0.3].sum() / weight.sum()
        assert abs((np.abs(points[:, 2] / half[2]) < 0.3).mean() - expected) < 0.02


def test_windows_of_the_sensors_lose_no_hit() -> None:
    rng = np.random.default_rng(SEED)
    room, street = rooms.build_room(rng), streets.build_street(rng)
    intrinsic = write.camera_matrix((80, 60))
    for pose in sensors.walk(room, rng, 3):
        v, u = np.mgrid[0:60, 0:80]
        rays = np.stack(
            [(u - intrinsic[0, 2]) / intrinsic[0, 0], (v - intrinsic[1, 2]) / intrinsic[1, 1], u * 0 + 1.0], -1
        )
        directions = rays @ pose[:3, :3].T
        narrow = sensors.cast(room, pose[:3, 3], directions, sensors.camera_window(pose, intrinsic, (80, 60)))
        whole = sensors.cast(room, pose[:3, 3], directions, everything)
        assert np.array_equal(narrow.distance, whole.distance) and np.array_equal(narrow.solid, whole.solid)
    pose = streets.drive(rng, 1)[0]
    angles = np.linspace(np.pi, -np.pi, 96, endpoint=False)
    el, az = np.meshgrid(streets.ELEVATIONS[::8], angles, indexing="ij")
    directions = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], -1) @ pose[:3, :3].T
    narrow = sensors.cast(street, pose[:3, 3], directions, sensors.laser_window(pose, streets.ELEVATIONS[::8], angles))
    whole = sensors.cast(street, pose[:3, 3], directions, everything)
    near = whole.distance < 80
    assert near.mean() > 0.5 and np.array_equal(narrow.distance[near], whole.distance[near])


def test_rendered_depth_lies_on_the_surfaces() -> None:
    rng = np.random.default_rng(SEED)
    world = rooms.build_room(rng)
    intrinsic = write.camera_matrix((120, 90))
    pose = sensors.walk(world, rng, 1)[0]
    frame = sensors.render(world, pose, intrinsic, (120, 90), rng)
    v, u = np.nonzero(frame.depth)
    z = frame.depth[v, u] / 1000
    assert len(z) > 0.4 * frame.depth.size
    camera = np.stack([(u - intrinsic[0, 2]) / intrinsic[0, 0] * z, (v - intrinsic[1, 2]) / intrinsic[1, 1] * z, z], 1)
    points = camera @ pose[:3, :3].T + pose[:3, 3]
    rays = points - pose[:3, 3]
    again = sensors.cast(world, pose[:3, 3], rays[None], everything)
    assert np.quantile(np.abs(again.distance - 1) * np.linalg.norm(rays, axis=1), 0.95) < 0.05
    assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3)) and np.isclose(np.linalg.det(pose[:3, :3]), 1)


@pytest.mark.parametrize("kind", rooms.ROOM_KINDS)
def test_rooms_are_plausible(kind: str) -> None:
    """All objects are inside, stand on something or hang on a wall, and furniture does not intersect."""
    for seed in range(4):
        world = rooms.build_room(np.random.default_rng(seed), (kind,))
        assert {"floor", "ceiling", "wall", "door"} <= set(world.labels)
        furniture = [i for i in world.instances if i.label in rooms.FLOOR_STANDING]
        for one in furniture:
            assert one.centre[2] - one.size[2] / 2 < 0.02, f"{one.label} floats"
            assert (one.centre[:2] > 0).all() and (one.centre[:2] < np.array(world.size[:2])).all()
        for i, one in enumerate(furniture):
            for two in furniture[i + 1 :]:
                gap = np.abs(one.centre - two.centre)[:2] - (_reach(one) + _reach(two))
                assert gap.max() > -0.12, f"{one.label} and {two.label} overlap by {-gap.max():.2f} m"


def _reach(one: Instance) -> np.ndarray:
    c, s = abs(np.cos(one.yaw)), abs(np.sin(one.yaw))
    return np.array([c * one.size[0] + s * one.size[1], s * one.size[0] + c * one.size[1]]) / 2


def test_sampled_points_are_visible() -> None:
    rng = np.random.default_rng(2)
    world = rooms.build_room(rng)
    cloud = sensors.sample_surfaces(world, rng, 200)
    assert ((cloud.xyz > -0.13) & (cloud.xyz < np.array(world.size) + 0.13)).all() and len(cloud.xyz) > 3000
    # With noise along the normal about half of them are up to millimetres inside; none are deep inside.
    inner = world._replace(half=np.maximum(world.half - 0.03, 1e-4))
    assert solids.inside_any(inner, cloud.xyz).mean() < 0.01


def test_neither_colour_nor_height_alone_tells_the_class() -> None:
    """The best guess from a point's colour cell, or from its height, learnt in seven rooms, is poor in the other three."""
    clouds = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        world = rooms.build_room(rng, write.S3DIS_KINDS)
        cloud = sensors.sample_surfaces(world, rng, 60)
        clouds.append((cloud, np.array([i.label for i in world.instances])[cloud.instance]))
    classes = sorted({c for _, labels in clouds for c in labels})

    def miou(cell) -> float:
        counts: dict[int, np.ndarray] = {}
        for cloud, labels in clouds[:7]:
            for key, label in zip(cell(cloud).tolist(), labels, strict=True):
                counts.setdefault(key, np.zeros(len(classes)))[classes.index(label)] += 1
        guess = {key: classes[int(n.argmax())] for key, n in counts.items()}
        truth = np.concatenate([labels for _, labels in clouds[7:]])
        found = np.array([guess.get(k, "wall") for cloud, _ in clouds[7:] for k in cell(cloud).tolist()])
        present = [c for c in classes if (truth == c).any()]
        return float(
            np.mean([((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in present])
        )

    colour = miou(lambda cloud: (cloud.rgb.astype(int) // 16) @ [256, 16, 1])
    height = miou(lambda cloud: np.floor(cloud.xyz[:, 2] / 0.04).astype(int))
    assert colour < 0.2 and height < 0.35, (colour, height)
    assert max(colour, height) > 0.05, "the classifiers did learn something"


def test_every_class_of_a_task_occurs() -> None:
    seen: dict[str, set[str]] = {"s3dis": set(), "scannet": set(), "sunrgbd": set(), "kitti": set()}
    kinds = {"s3dis": write.S3DIS_KINDS, "scannet": write.SCANNET_KINDS, "sunrgbd": write.SUNRGBD_KINDS}
    for seed in range(60):
        for name, of in kinds.items():
            seen[name] |= {i.label for i in rooms.build_room(np.random.default_rng(seed), of).instances}
    for seed in range(6):
        seen["kitti"] |= {i.label for i in streets.build_street(np.random.default_rng(seed)).instances}
    assert {write.TO_S3DIS.get(c, c) for c in seen["s3dis"]} >= set(write.S3DIS_CLASSES)
    assert {write.NYU40[c] for c in seen["scannet"]} >= set(find(Dataset, "synth-scannet").class_ids)
    assert seen["sunrgbd"] >= set(find(Dataset, "synth-sunrgbd").classes)
    assert seen["kitti"] == set(write.KITTI_IDS)


def test_materials_overlap() -> None:
    """Base colours overlap: the class mean nearest to a drawn appearance is often that of another class."""
    rng = np.random.default_rng(0)
    labels = list(parts.CLASS_MATERIALS)
    draws = {c: np.array([parts.draw_look(rng, c).colour for _ in range(100)]) for c in labels}
    means = np.array([draws[c].mean(0) for c in labels])
    right = [(((draws[c][:, None] - means) ** 2).sum(-1).argmin(1) == i).mean() for i, c in enumerate(labels)]
    assert np.mean(right) < 0.4
