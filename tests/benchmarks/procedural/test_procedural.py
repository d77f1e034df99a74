"""Procedural worlds and sensors, and their data read back from the official layouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import s3dis, scannet, semantickitti, sens, sunrgbd
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.input.boxes import points_inside
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


def small(name: str, **world: int) -> Dataset:
    dataset = find(Dataset, name).sized("smoke")
    return dataset.model_copy(update={"world": {**(dataset.world or {}), **world}})


def written(dataset: Dataset, cache: Path) -> tuple[Path, Path]:
    """(root in the official layout, prepared folder)"""
    root = write.generate(dataset, cache, lambda names: names)
    return root, prepare(dataset, root, cache, frame_stride=1, strict=True, progress=lambda names: names)


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


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("synth-s3dis", {"train_rooms": 1, "test_rooms": 1, "points_per_square_metre": 100}),
        ("synth-scannet", {"train_rooms": 1, "test_rooms": 1, "frames_per_room": 3, "width": 64, "height": 48,
                           "points_per_square_metre": 100}),
        pytest.param("synth-sunrgbd", {"train_views": 1, "test_views": 1, "width": 64, "height": 48}, marks=pytest.mark.slow),
        ("synth-kitti", {"streets": 1, "train_scans": 1, "test_scans": 1, "azimuths": 32, "width": 32, "height": 10}),
    ],
)  # fmt: skip
def test_equal_seeds_give_equal_bytes(name: str, settings: dict[str, int], tmp_path: Path) -> None:
    dataset = small(name, **settings)
    one, prepared = written(dataset, tmp_path / "one")
    two, _ = written(dataset, tmp_path / "two")
    files = [p.relative_to(one) for p in sorted(one.rglob("*")) if p.is_file()]
    assert len(files) > 5
    different = [str(f) for f in files if (one / f).read_bytes() != (two / f).read_bytes()]
    # The text header of MATLAB files contains the time of writing.
    for name_of in [d for d in different if d.endswith(".mat")]:
        assert (one / name_of).read_bytes()[116:] == (two / name_of).read_bytes()[116:]
        different.remove(name_of)
    assert not different
    manifest = read_manifest(prepared)
    assert manifest.synthetic and manifest.dataset == name and not manifest.problems
    other = write.generate(small(name, **settings, seed=2), tmp_path / "one", lambda names: names)
    assert any((one / f).read_bytes() != (other / f).read_bytes() for f in files if (other / f).is_file())


def test_an_interruption_keeps_the_scenes_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small("synth-s3dis", train_rooms=2, test_rooms=1, points_per_square_metre=20)
    layout, write_room = dataset.layout, write.write_s3dis_room
    monkeypatch.setattr(write, "usable_cpus", lambda: 1)

    def interrupted(names: Iterable[str]) -> Iterator[str]:
        for number, name in enumerate(names):
            if number == 2:
                raise KeyboardInterrupt
            yield name

    with pytest.raises(KeyboardInterrupt):
        write.generate(dataset, tmp_path / "cut", interrupted)
    (partial,) = (tmp_path / "cut/worlds").glob("*.partial")
    assert not write.generated_already(dataset, tmp_path / "cut")
    kept = {int(p.name) for p in (partial / "scenes").iterdir()}
    assert {0, 1} <= kept, "and perhaps the third, which was under way"

    def only_missing(dataset: Dataset, index: int, name: str, root: Path) -> None:
        assert index not in kept, f"{name} was written already"
        write_room(dataset, index, name, root)

    monkeypatch.setitem(write._WRITERS, layout, (only_missing, write._WRITERS[layout][1]))
    shown: list[str] = []
    root = write.generate(dataset, tmp_path / "cut", lambda names: (shown.append(n) or n for n in names))
    assert shown == write.scene_names(dataset), "the bar counts all of them"
    monkeypatch.undo()
    whole = write.generate(dataset, tmp_path / "whole", lambda names: names)
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    assert files == [p.relative_to(root) for p in sorted(root.rglob("*")) if p.is_file()]
    assert all((whole / f).read_bytes() == (root / f).read_bytes() for f in files)
    assert not list((tmp_path / "cut/worlds").glob("*.partial"))


def test_the_scannet_layout_comes_back(tmp_path: Path) -> None:
    dataset = small("synth-scannet", train_rooms=1, test_rooms=0, frames_per_room=4, width=96, height=72)
    root, prepared = written(dataset, tmp_path)
    folder = scannet.find_scenes(root)["scene0000_00"]
    rng = write._rng(dataset, 0)
    world = rooms.build_room(rng, write.SCANNET_KINDS)
    scan = scannet.read_scan(scannet.SceneSource(folder, scannet.read_label_map(scannet.find_label_map(root))))
    aligned = scan.xyz @ scan.alignment[:3, :3].T + scan.alignment[:3, 3]
    assert (aligned > -0.15).all() and (aligned < np.array(world.size) + 0.15).all()
    # Each annotated instance is one object of the world, and has its label.
    boxes = scannet.instance_boxes(scan, dataset.box_class_ids)
    names = {n: i for i, n in enumerate(dataset.box_classes)}
    names["rack"] = names.pop("otherfurniture")
    wanted = [one for one in world.instances if one.label in names]
    assert 1 <= len(boxes) <= len(wanted)
    for box in boxes:
        assert any(names[one.label] == box[7] and np.abs(one.centre - box[:3]).max() < 0.25 for one in wanted), (
            dataset.box_classes[int(box[7])]
        )
    header = sens.read_header(folder / "scene0000_00.sens")
    frames = list(sens.read_frames(folder / "scene0000_00.sens"))
    assert header.frames == len(frames) == 4 and header.depth_size == (96, 72)
    # Points of a frame are on the cloud.
    depth = sens.frame_depth(header, frames[1], "frame") / 1000
    from pretrain_bench.benchmarks.datasets.pairs import world_points

    seen = world_points(depth, frames[1].pose, header.intrinsic_depth)[::37]
    distance = np.linalg.norm(seen[:, None] - scan.xyz[None, ::2], axis=2).min(axis=1)
    assert np.median(distance) < 0.06
    assert read_manifest(prepared).scenes[0].pairs >= 2


def test_the_s3dis_layout_comes_back(tmp_path: Path) -> None:
    dataset = small("synth-s3dis", train_rooms=1, test_rooms=0)
    root, _ = written(dataset, tmp_path)
    room = s3dis.read_room(
        s3dis.find_rooms(root)["Area_1", "room_1"], dataset.raw_classes, dataset.classes, strict=True
    )
    rng = write._rng(dataset, 0)
    world = rooms.build_room(rng, write.S3DIS_KINDS)
    cloud = sensors.sample_surfaces(world, rng, 600)
    assert 0.9 * len(cloud.xyz) < len(room.xyz) <= len(cloud.xyz)
    assert {dataset.classes[i] for i in np.unique(room.semantic) if i < 255} >= {"ceiling", "floor", "wall", "door"}


def test_the_kitti_layout_comes_back(tmp_path: Path) -> None:
    dataset = small("synth-kitti", streets=1, train_scans=8, test_scans=1, azimuths=256, width=32, height=8)
    root, _ = written(dataset, tmp_path)
    scan = semantickitti.find_scans(root)["00", "000001"]
    points = semantickitti.read_points(scan.points, [])
    raw, instance = semantickitti.read_labels(scan.labels, len(points))
    labels = semantickitti.train_ids(raw, dataset.learning_map, scan.labels)
    road = labels == dataset.classes.index("road")
    assert np.abs(points[road, 2] + streets.SENSOR_HEIGHT).max() < 0.25 and road.mean() > 0.1
    assert (instance[np.isin(raw, [write.KITTI_IDS[t] for t in write.KITTI_THINGS])] > 0).all()
    assert points[:, 3].min() >= 0 and points[:, 3].max() < 1
    # Two scans agree in the world frame after their poses are applied.
    calibration = semantickitti.read_calibration(scan.calibration)
    poses = [semantickitti.read_pose(scan.poses, n, calibration["Tr"], []) for n in (0, 1)]
    first = semantickitti.read_points(semantickitti.find_scans(root)["00", "000000"].points, [])
    moved = points[:, :3] @ poses[1][:3, :3].T + poses[1][:3, 3]
    still = first[:, :3] @ poses[0][:3, :3].T + poses[0][:3, 3]
    upright = (raw != write.KITTI_IDS["road"]) & (points[:, 2] > -1) & (np.abs(points[:, 0]) < 15)
    near = np.linalg.norm(moved[upright][::5, None] - still[None], axis=2).min(axis=1)
    unmoved = np.linalg.norm(points[upright][::5, None, :3] - first[None, :, :3], axis=2).min(axis=1)
    assert np.median(near) < 0.35 < np.median(unmoved), (np.median(near), np.median(unmoved))


def test_the_sunrgbd_layout_comes_back(tmp_path: Path) -> None:
    dataset = small("synth-sunrgbd", train_views=3, test_views=1, width=160, height=120)
    root, prepared = written(dataset, tmp_path)
    views = sunrgbd.find_views(root)
    assert [v.test for v in views.values()] == [False, False, False, True]
    inside = []
    for view in views.values():
        found = sunrgbd.read_view(view, dataset.classes)
        assert not found.problems and np.allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-4)
        for box in found.boxes:
            # The points of an object fill its box, except for hidden parts.
            rows = points_inside(found.xyz, box * [1, 1, 1, 1.02, 1.02, 1.02, 1, 1])
            inside.append(int(rows.sum()))
    assert len(inside) >= 4 and min(inside) >= 20
    assert read_manifest(prepared).scenes[3].test is True


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


def test_synthetic_labels_say_so(tmp_path: Path) -> None:
    _, prepared = written(small("synth-kitti", streets=1, train_scans=1, test_scans=1, azimuths=32), tmp_path)
    assert json.loads((prepared / "manifest.json").read_text())["synthetic"] is True


def test_no_training_street_takes_the_test_sequence() -> None:
    names = write.scene_names(find(Dataset, "synth-kitti").sized("tiny"))
    assert len(names) == len(set(names)) == 11 and names[-1] == "08"


@pytest.mark.parametrize("name", ["synth-scannet", "synth-kitti", "synth-sunrgbd"])
def test_the_unlabelled_view_holds_nothing_of_the_labels(name: str, tmp_path: Path) -> None:
    """If only labels change, no unlabelled byte differs, and labelled ones do."""
    sizes = {
        "synth-scannet": {"train_rooms": 1, "test_rooms": 0, "frames_per_room": 2, "width": 64, "height": 48,
                          "points_per_square_metre": 50},
        "synth-kitti": {"streets": 1, "train_scans": 1, "test_scans": 1, "azimuths": 32, "width": 32, "height": 8},
        "synth-sunrgbd": {"train_views": 2, "test_views": 0, "width": 48, "height": 36},
    }  # fmt: skip
    dataset = small(name, **sizes[name])
    root, before = written(dataset, tmp_path)
    for path in root.rglob("*"):
        if path.suffix == ".label":
            path.write_bytes((np.fromfile(path, "<u4") * 0 + 40).astype("<u4").tobytes())
        elif path.name.endswith(".aggregation.json"):
            content = json.loads(path.read_text())
            for group in content["segGroups"]:
                group["label"] = "chair" if group["label"] == "wall" else "wall"
            path.write_text(json.dumps(content))
        elif path.parent.name == "label_v1":
            path.write_text("chair 0 0 1 1 0 1 0 1 1 1 1 0\n")
    after = prepare(dataset, root, tmp_path / "again", frame_stride=1, strict=True, progress=lambda names: names)
    one, two = read_manifest(before).files, read_manifest(after).files
    hidden = {k: v for k, v in one.items() if k.startswith("unlabelled/")}
    assert hidden and hidden == {k: v for k, v in two.items() if k.startswith("unlabelled/")}
    changed = [k for k in one if one[k] != two.get(k)]
    assert changed and all(k.startswith("labelled/") for k in changed)
    assert not any(word in k for k in hidden for word in ("/label", "semantic", "instance", "boxes", "alignment"))
