from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets import s3dis
from benchmarks.procedural import parts, rooms, sensors
from benchmarks.procedural.rooms import World
from benchmarks.procedural.write import write_recording, write_s3dis_room
from benchmarks.specs import Dataset
from harness.catalog import find


def box_world(centre: tuple[float, float, float], half: tuple[float, float, float], yaw: float) -> World:
    look = parts.draw_look(np.random.default_rng(0), "wall")
    return World(
        "office", (4, 4, 3), np.array([centre]), np.array([half]), np.array([yaw]), ["wall"], np.array([0]), [look]
    )


def test_rays_hit_a_box_where_geometry_says() -> None:
    world = box_world((2, 0, 0), (0.5, 0.5, 0.5), 0.0)
    rays = np.array([[1.0, 0, 0], [2.0, 0, 0], [-1.0, 0, 0], [1.0, 2.0, 0]])
    distance, _, normal = sensors.cast(world, np.zeros(3), rays)
    assert np.allclose(distance, [1.5, 0.75, np.inf, np.inf])
    assert np.allclose(normal[0], [-1, 0, 0])
    turned = box_world((2, 0, 0), (0.5, 0.5, 0.5), np.pi / 4)
    assert np.isclose(sensors.cast(turned, np.zeros(3), rays)[0][0], 2 - 0.5 * np.sqrt(2))


def test_rendered_depth_lies_on_the_surfaces() -> None:
    rng = np.random.default_rng(11)
    world = rooms.build_room(rng)
    intrinsic = np.array([[100.0, 0, 59.5], [0, 100.0, 44.5], [0, 0, 1]])
    pose = sensors.walk(world, rng, 1)[0]
    frame = sensors.render(world, pose, intrinsic, (120, 90), rng)
    v, u = np.nonzero(frame.depth)
    z = frame.depth[v, u] / 1000
    assert len(z) > 0.5 * frame.depth.size
    camera = np.stack([(u - 59.5) / 100 * z, (v - 44.5) / 100 * z, z], 1)
    points = camera @ pose[:3, :3].T + pose[:3, 3]
    nearest = np.full(len(points), np.inf)
    for i in range(len(world.half)):
        local = np.abs(sensors._turn(points - world.centre[i], -world.yaw[i])) - world.half[i]
        outside = np.linalg.norm(np.maximum(local, 0), axis=1) + np.minimum(local.max(axis=1), 0)
        nearest = np.minimum(nearest, np.abs(outside))
    assert np.quantile(nearest, 0.95) < 0.03
    assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3)) and np.isclose(np.linalg.det(pose[:3, :3]), 1)


def test_furniture_does_not_pile_up() -> None:
    for seed in range(5):
        world = rooms.build_room(np.random.default_rng(seed))
        assert {"floor", "ceiling", "wall", "door", "window"} <= set(world.labels)
        assert (world.centre[:, 2] + world.half[:, 2]).max() <= world.size[2] + 0.11


def test_sampled_points_are_visible_and_labelled() -> None:
    rng = np.random.default_rng(2)
    world = rooms.build_room(rng)
    cloud = sensors.sample_surfaces(world, rng, 200)
    inside = (cloud.xyz > -0.05).all(1) & (cloud.xyz < np.array(world.size) + 0.05).all(1)
    assert inside.all() and len(cloud.xyz) > 3000
    assert sensors._inside_any(world, cloud.xyz + 0).mean() < 0.6


def test_equal_seeds_give_equal_bytes_in_the_official_layouts(tmp_path: Path) -> None:
    dataset = find(Dataset, "synth-s3dis")
    scans = find(Dataset, "synth-scannet").model_copy(
        update={"world": {"seed": 1, "rooms": 1, "frames_per_room": 2, "width": 64, "height": 48}}
    )
    for name in ("one", "two"):
        write_s3dis_room(dataset, 0, "Area_1/room_1", tmp_path / name)
        write_recording(scans, 0, "room0000_00", tmp_path / name)
    files = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*")) if p.is_file()]
    assert len(files) > 15
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    folder = s3dis.find_rooms(tmp_path / "one")["Area_1", "room_1"]
    room = s3dis.read_room(folder, dataset.raw_classes, dataset.classes, strict=True)
    assert len(room.xyz) > 20_000 and not room.problems


def test_colour_alone_does_not_tell_the_class() -> None:
    """Base colours overlap: the nearest class mean of a drawn look is often another class."""
    rng = np.random.default_rng(0)
    labels = list(parts.CLASS_MATERIALS)
    draws = {c: np.array([parts.draw_look(rng, c).colour for _ in range(100)]) for c in labels}
    means = np.array([draws[c].mean(0) for c in labels])
    right = [(((draws[c][:, None] - means) ** 2).sum(-1).argmin(1) == i).mean() for i, c in enumerate(labels)]
    assert np.mean(right) < 0.4
