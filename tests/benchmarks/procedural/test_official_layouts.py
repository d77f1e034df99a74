"""Procedural data, written in the official layouts and read back from them."""

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
from pretrain_bench.benchmarks.procedural import rooms, sensors, streets, write
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.harness.planning.catalog import find


def small(name: str, **world: int) -> Dataset:
    dataset = find(Dataset, name).sized("smoke")
    return dataset.model_copy(update={"world": {**(dataset.world or {}), **world}})


def written(dataset: Dataset, cache: Path) -> tuple[Path, Path]:
    """(root in the official layout, prepared folder)"""
    root = write.generate(dataset, cache, lambda names: names)
    return root, prepare(dataset, root, cache, frame_stride=1, strict=True, progress=lambda names: names)


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
