"""Third-party layouts: readers reproduce written data within the quantisation of the format, and name missing files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import images
from pretrain_bench.benchmarks.datasets.layouts import frames_25k, open3d, tum
from pretrain_bench.benchmarks.datasets.layouts.arrays import load_array
from pretrain_bench.benchmarks.datasets.layouts.registry import READERS, as_laid_out, detect, layouts_of
from pretrain_bench.benchmarks.datasets.recordings import pinhole, resized, source_pixels
from pretrain_bench.benchmarks.datasets.views import load_alignment, load_boxes, load_cloud, load_frame, load_labels
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.layouts import LAYOUTS
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from tests.benchmarks.datasets import layout_writers, room_recordings
from tests.benchmarks.datasets.layout_writers import RECORDINGS, SCANNET_ORDER, Points, Recorded
from tests.conftest import Bench

DEPTH_STEP = {"tum": 1.0, "replica": 1.0}
"""Tolerance of depth in millimetres: depth in another unit is rounded twice."""


def ready(name: str, root: Path, dataset: Dataset | None = None, up: str = "auto") -> PreparedDataset:
    own = {} if dataset is None else {name: dataset}
    return DataSources({name: root}, own, up=up).prepare(name)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _prepare_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoids starting worker processes for a few small scenes."""
    monkeypatch.setattr("pretrain_bench.benchmarks.datasets.prepare.worker_count", lambda: 1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Recorded]]:
    """Each layout of recordings in a folder, with the written data."""
    roots = {name: tmp_path_factory.mktemp(name) for name in RECORDINGS}
    return {name: (root, RECORDINGS[name](root)) for name, root in roots.items()}


def test_every_layout_has_a_reader_and_a_card() -> None:
    assert set(READERS) == set(LAYOUTS) and {
        d.layout for d in (find(Dataset, "scannet"), find(Dataset, "s3dis"))
    } < set(LAYOUTS)


@pytest.mark.parametrize("layout", RECORDINGS)
def test_recordings_are_read_as_they_were_written(
    layout: str, recorded: dict[str, tuple[Path, Recorded]], bench: Bench
) -> None:
    root, written = recorded[layout]
    name = "scannet" if layout == "scannet-frames-25k" else "rgbd-folder"
    assert layouts_of(root)[0] == layout
    data = ready(name, root)
    assert data.dataset.layout == layout and data.dataset.provides == LAYOUTS[data.dataset.layout].provides
    scene = data.manifest.scenes[0]
    assert scene.frames == len(written.shots) and scene.up is None and scene.world_up is None
    folder = data.folder / "unlabelled" / scene.name
    assert np.allclose(np.load(folder / "intrinsic.npy"), written.intrinsic, atol=1e-6)
    assert np.allclose(np.load(folder / "poses.npy"), [s.pose for s in written.shots], atol=1e-6)
    for number, shot in enumerate(written.shots):
        path = folder / f"frames/{number:06d}.depth.png"
        depth = images.decode_depth(path, str(path)).astype(int)
        depth[depth == 65535] = 0
        assert np.abs(depth - shot.depth.astype(int)).max() <= DEPTH_STEP.get(layout, 0)
        colour = load_frame(data.folder, scene.name, number).colour
        if layout != "7-scenes":  # there, colour comes from a separate camera
            assert np.abs(colour.astype(int) - shot.colour).max() <= (1 if layout == "scannet-frames-25k" else 0)
    shown = bench("data", "info", str(root)).stdout
    assert f"({layout})" in shown and (LAYOUTS[data.dataset.layout].lacks in shown)


@pytest.mark.parametrize(
    "layout", [pytest.param(n, marks=() if n == "7-scenes" else pytest.mark.slow) for n in RECORDINGS]
)
def test_recordings_are_verified_and_drawn(
    layout: str, recorded: dict[str, tuple[Path, Recorded]], bench: Bench, tmp_path: Path
) -> None:
    root, _ = recorded[layout]
    target = "scannet" if layout == "scannet-frames-25k" else "rgbd-folder"
    shown = bench("data", "verify", target, "--root", str(root), "--source", "--frame-stride", "1").stdout
    assert "the originals give the same" in shown
    bench("data", "preview", str(root), "--frame-stride", "1", "--out", "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 5000


def test_what_7_scenes_leaves_open_is_recorded(
    recorded: dict[str, tuple[Path, Recorded]], bench: Bench, tmp_path: Path
) -> None:
    root, written = recorded["7-scenes"]
    manifest = ready("rgbd-folder", root).manifest
    assert {s.name: s.test for s in manifest.scenes} == {"redkitchen__seq-01": False, "redkitchen__seq-02": True}
    assert all(
        "published f = 585" in s.assumed[0] and "registration: approximate" in s.assumed[1] for s in manifest.scenes
    )
    assert (
        "assumed intrinsics: the published f = 585"
        in bench("data", "prepare", "rgbd-folder", "--root", str(root)).stdout
    )
    # Intrinsics in the folder are used, and colour is unchanged.
    own = Path(shutil.copytree(root, tmp_path / "own"))
    np.savetxt(own / "redkitchen/camera-intrinsics.txt", written.intrinsic)
    given = ready("rgbd-folder", own)
    assert not given.manifest.scenes[0].assumed
    assert np.array_equal(load_frame(given.folder, "redkitchen__seq-01", 1).colour, written.shots[1].colour)


def test_colour_of_7_scenes_is_looked_up_in_its_own_camera(recorded: dict[str, tuple[Path, Recorded]]) -> None:
    root, written = recorded["7-scenes"]
    data = ready("rgbd-folder", root)
    colour = load_frame(data.folder, "redkitchen__seq-01", 0).colour
    # f = 525 sees more than f = 585: a point 60 pixels right of the centre in depth is 54 pixels right in colour.
    (column, row), (u, v) = (140, 90), (c + (x - c) * 525 / 585 for c, x in ((79.625, 140), (59.625, 90)))
    left, top = int(u), int(v)
    four = written.shots[0].colour[top : top + 2, left : left + 2].astype(float)
    expected = np.einsum("r,c,rck->k", [1 - (v - top), v - top], [1 - (u - left), u - left], four)
    assert np.abs(colour[row, column] - expected).max() <= 0.51


def test_a_download_of_7_scenes_that_is_still_packed_says_so(tmp_path: Path) -> None:
    (tmp_path / "chess").mkdir()
    (tmp_path / "chess/seq-01.zip").write_bytes(b"")
    with pytest.raises(DataError, match=rf"unpack {tmp_path}/chess/seq-01.zip"):
        READERS["7-scenes"].find(find(Dataset, "rgbd-folder"), tmp_path)


def test_distortion_is_taken_out() -> None:
    """Checked by a slow inversion of Brown's model: the pixel of a distorted camera maps back to its undistorted position."""
    (numbers, distortion), size = tum.CAMERAS["freiburg1"], (640, 480)
    camera = pinhole(*numbers)
    u, v = source_pixels(camera, camera, size, distortion)
    k1, k2, p1, p2, k3 = distortion
    for column, row in ((0, 0), (639, 479), (320, 30), (100, 400)):
        bent = np.array(
            [(u[row, column] - camera[0, 2]) / camera[0, 0], (v[row, column] - camera[1, 2]) / camera[1, 1]]
        )
        point = bent.copy()
        for _ in range(200):
            x, y = point
            r2 = x * x + y * y
            shift = np.array([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y])
            point = point + 0.5 * ((bent - shift) / (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) - point)
        assert np.allclose(point * [camera[0, 0], camera[1, 1]] + camera[:2, 2], (column, row), atol=0.05)
    assert np.hypot(u[0, 0], v[0, 0]) > 3, "corners move by several pixels"


def test_an_unknown_camera_of_tum_is_asked_for_and_taken_from_the_dataset_file(tmp_path: Path) -> None:
    written = layout_writers.tum(tmp_path, "corridor")
    with pytest.raises(DataError, match="corridor: unknown camera.*sensor: {camera"):
        ready("rgbd-folder", tmp_path)
    fx, fy, cx, cy = (written.intrinsic[i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = {"width": 160, "height": 120, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
    own = Dataset.model_validate({"name": "own", "layout": "tum", "sensor": {"camera": camera}})
    data = ready("own", tmp_path, own)
    assert np.allclose(np.load(data.folder / "unlabelled/corridor/intrinsic.npy"), written.intrinsic)


def test_pictures_of_tum_without_partner_are_counted(tmp_path: Path) -> None:
    layout_writers.tum(tmp_path)
    folder = tmp_path / "rgbd_dataset_freiburg3_room"
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:-1]) + "\n")
    manifest = ready("rgbd-folder", tmp_path).manifest
    assert manifest.scenes[0].frames == 2
    assert [p for p in manifest.problems if "1 of 3 colour pictures have no depth image or pose within 0.02 s" in p]
    assert tum.associate(np.array([0.0, 0.03, 1.0]), np.array([0.012, 0.04, 0.5])) == [(0, 0), (1, 1)]


def test_open3d_needs_to_know_what_is_up(recorded: dict[str, tuple[Path, Recorded]], tmp_path: Path) -> None:
    root, written = recorded["open3d"]
    assert np.allclose(open3d.read_intrinsic(root / "realsense/camera_intrinsic.json"), written.intrinsic)
    folder = Path(shutil.copytree(root, tmp_path / "away")) / "realsense"
    blank = layout_writers.units(np.full((120, 160), 1500, np.uint16), 1000)
    down = np.diag([1.0, -1, -1, 1])  # the camera looks straight down at a flat surface, so the up direction is unknown
    for number in range(3):
        layout_writers.save_png(folder / f"depth/{number:06d}.png", blank)
    turned = [room_recordings.Y_DOWN, down, np.linalg.inv(room_recordings.Y_DOWN)]
    blocks = [
        f"{n} {n} {n + 1}\n" + "\n".join(" ".join(map(str, row)) for row in pose) for n, pose in enumerate(turned)
    ]
    (folder / "scene/trajectory.log").write_text("\n".join(blocks))
    with pytest.raises(DataError, match="the up direction of its poses is uncertain.*--up"):
        ready("rgbd-folder", folder)
    assert ready("rgbd-folder", folder, up="+z").manifest.scenes[0].frames == 3


def test_the_unit_of_depth_is_an_option(recorded: dict[str, tuple[Path, Recorded]]) -> None:
    root, written = recorded["open3d"]
    own = Dataset.model_validate({"name": "l515", "layout": "open3d", "sensor": {"depth_per_metre": 4000}})
    data = ready("l515", root, own)
    path = data.folder / "unlabelled/realsense/frames/000000.depth.png"
    assert np.abs(images.decode_depth(path, "") - written.shots[0].depth / 4).max() <= 0.5
    assert not data.manifest.scenes[0].assumed


def test_the_colour_camera_of_frames_25k_follows_the_pictures() -> None:
    large = pinhole(1170, 1170, 647.5, 483.5)
    assert np.allclose(frames_25k.colour_camera(large, 1296), large)
    assert np.allclose(frames_25k.colour_camera(large, 640), resized(large, 640 / 1296))
    assert np.allclose(frames_25k.colour_camera(pinhole(578, 578, 319.5, 239.5), 640), pinhole(578, 578, 319.5, 239.5))


def rows(xyz: np.ndarray, *others: np.ndarray) -> set[tuple[float, ...]]:
    return set(map(tuple, np.column_stack([xyz, *others]).tolist()))


def check_reduced(data: PreparedDataset, scene: str, written: Points, instances: bool) -> None:
    """A room has one of the written points in each occupied 1 cm cell, with its colour, class and instance."""
    cloud, labels = load_cloud(data.folder, scene), load_labels(data.folder, scene)
    classes = np.array([*data.dataset.classes, *[""] * (256 - len(data.dataset.classes))])
    assert len(cloud.xyz) == len(np.unique(np.floor(written.xyz.astype(np.float64) / 0.01), axis=0))
    sure = np.asarray(labels.semantic) < 255  # cells whose classes disagree have no label
    assert sure.mean() > 0.95
    order = {name: i for i, name in enumerate(data.dataset.classes)}
    numbers = np.array([order[name] for name in written.names.tolist()])
    more = [labels.instance[sure]] if instances else []
    theirs = [written.instance] if instances else []
    read = rows(cloud.xyz[sure], cloud.rgb[sure], labels.semantic[sure], *more)
    assert read <= rows(written.xyz, written.rgb, numbers, *theirs) and len(classes) == 256


def test_rooms_of_pointcept_are_read_as_they_were_written(tmp_path: Path, bench: Bench) -> None:
    written = layout_writers.pointcept_s3dis(tmp_path / "s3dis")
    data = ready("s3dis", tmp_path / "s3dis")
    assert data.dataset.layout == "pointcept" and set(data.scenes) == set(written)
    for scene, points in written.items():
        check_reduced(data, scene, points, instances=True)
    shown = bench("data", "info", str(tmp_path / "s3dis")).stdout
    assert "--data s3dis=" in shown and "no frames, so it serves fine-tuning" in shown
    assert bench("data", "verify", str(tmp_path / "s3dis")).stdout.endswith("0 differ from the manifest\n")
    bench("data", "preview", str(tmp_path / "s3dis"), "--out", "sheet.png")


def test_scenes_of_pointcept_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = layout_writers.pointcept_scannet(tmp_path / "scannet")
    data = ready("scannet", tmp_path / "scannet")
    assert set(data.scenes) == set(written) and data.dataset.provides == ("clouds", "labels")
    for scene, points in written.items():
        cloud = load_cloud(data.folder, scene)
        assert np.array_equal(cloud.xyz, points.xyz) and np.array_equal(cloud.rgb, points.rgb)
        if scene == "scene0707_00":
            assert not (data.folder / "labelled" / scene).exists()
            continue
        labels = load_labels(data.folder, scene)
        assert np.array_equal(labels.semantic.astype(np.int8), layout_writers.ids(points.names, SCANNET_ORDER))
        assert np.array_equal(labels.instance, points.instance + 1)
    assert not data.manifest.problems


def test_pre_training_that_needs_frames_refuses_pointcept_by_name(
    tmp_path: Path, bench: Bench, s3dis_root: Path
) -> None:
    layout_writers.pointcept_scannet(tmp_path / "scannet")
    stderr = bench(
        "run", "--method", "ours", "--task", "s3dis-sem", "--budget", "smoke", "--data", f"s3dis={s3dis_root}",
        "--pretrain-data", f"scannet={tmp_path / 'scannet'}", code=2,
    ).stderr  # fmt: skip
    assert "method 'ours' needs frames, images, which dataset 'scannet' does not have" in stderr
    assert "Pointcept's preprocessed arrays: no frames, so it serves fine-tuning" in stderr


def test_indoor3d_is_read_as_it_was_written_and_has_no_instances(tmp_path: Path, bench: Bench) -> None:
    written = layout_writers.indoor3d(tmp_path / "stanford_indoor3d")
    data = ready("s3dis", tmp_path / "stanford_indoor3d")
    assert data.dataset.layout == "stanford-indoor3d" and set(data.scenes) == set(written)
    for scene, points in written.items():
        check_reduced(data, scene, points, instances=False)
        assert (load_labels(data.folder, scene).instance == -1).all()
    bench("data", "preview", str(tmp_path / "stanford_indoor3d"), "--out", "sheet.png")
    stderr = bench(
        "run", "--method", "scratch", "--task", "s3dis-inst", "--budget", "smoke", "--data", f"s3dis={tmp_path / 'stanford_indoor3d'}", code=2
    ).stderr  # fmt: skip
    assert "points with class and instance labels" in stderr


@pytest.mark.parametrize("kind", ["votenet", "mmdetection3d"])
def test_dumps_of_scannet_are_read_as_they_were_written(kind: str, tmp_path: Path, bench: Bench) -> None:
    written = layout_writers.scannet_dump(tmp_path / "data", kind)
    data = ready("scannet", tmp_path / "data")
    assert data.dataset.layout == kind and set(data.scenes) == set(written) and not data.manifest.problems
    for scene, points in written.items():
        cloud, labels = load_cloud(data.folder, scene), load_labels(data.folder, scene)
        assert np.array_equal(cloud.xyz, points.xyz) and np.array_equal(cloud.rgb, points.rgb)
        assert np.array_equal(labels.semantic.astype(np.int8), layout_writers.ids(points.names, SCANNET_ORDER))
        assert np.array_equal(labels.instance, points.instance + 1)
        boxes = load_boxes(data.folder, scene)
        assert np.array_equal(boxes[:, :6], layout_writers.BOXES[:, :6].astype(np.float32)) and not boxes[:, 6].any()
        assert [data.dataset.box_classes[int(i)] for i in boxes[:, 7]] == ["chair", "table"]
        turn = np.eye(4) if kind == "votenet" else layout_writers.TURNED
        assert np.array_equal(load_alignment(data.folder, scene), turn)
    assert f"({kind})" in bench("data", "info", str(tmp_path / "data")).stdout
    bench("data", "preview", str(tmp_path / "data"), "--out", "sheet.png")


def test_rooms_of_mmdetection3d_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = layout_writers.mmdetection3d_s3dis(tmp_path)
    data = ready("s3dis", tmp_path)
    assert data.dataset.layout == "mmdetection3d" and set(data.scenes) == set(written)
    for scene, points in written.items():
        check_reduced(data, scene, points, instances=True)


def test_views_of_votenet_are_read_as_they_were_written(tmp_path: Path, bench: Bench) -> None:
    written = layout_writers.votenet_sunrgbd(tmp_path)
    data = ready("sunrgbd", tmp_path)
    assert data.dataset.layout == "votenet" and data.tested == ("000001",)
    for scene, table in written.items():
        cloud, boxes = load_cloud(data.folder, scene), load_boxes(data.folder, scene)
        assert np.array_equal(cloud.xyz, table[:, :3].astype(np.float32))
        assert np.array_equal(cloud.rgb, np.rint(table[:, 3:] * 255))
        assert (
            np.allclose(boxes[0], [1, 2, 0.4, 2, 1.6, 0.8, 0.3, 0]) and data.dataset.classes[int(boxes[1, 7])] == "desk"
        )
    assert "--data sunrgbd=" in bench("data", "info", str(tmp_path)).stdout
    (tmp_path / "sunrgbd_pc_bbox_votes_50k_v2_train").mkdir()
    with pytest.raises(DataError, match="v1 and v2 labels of SUN RGB-D side by side"):
        READERS["votenet"].find(data.dataset, tmp_path)


def test_frames_of_other_intrinsics_are_brought_to_those_of_the_first(tmp_path: Path) -> None:
    written = layout_writers.arkitscenes(tmp_path)
    cameras = sorted(tmp_path.rglob("*.pincam"))
    cameras[1].write_text("128 96 130 131.25 63.5 47.5")  # a focal length longer by a quarter sees less
    data = ready("rgbd-folder", tmp_path)
    path = data.folder / "unlabelled/41069021/frames/000001.depth.png"
    depth = images.decode_depth(path, str(path))
    row, column = 30, 90
    source = written.shots[1].depth[round(47.5 + (row - 47.5) * 1.25), round(63.5 + (column - 63.5) * 1.25)]
    assert depth[row, column] == source and (depth[:, 127] == 0).all(), "the second frame saw nothing there"


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"coord": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(
        DataError, match="a.npy: not a NumPy array of numbers: it holds a pickle, which is never loaded"
    ):
        load_array(tmp_path / "a.npy", 3)
    (tmp_path / "scannet_infos_train.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(
        DataError,
        match=r"scannet_infos_train.pkl: a pickle, which is never loaded; give the folder.* scannet_instance_data/ or",
    ):
        detect(tmp_path)
    with pytest.raises(DataError, match="scannet_infos_train.pkl: a pickle, which is never loaded"):
        as_laid_out(find(Dataset, "scannet"), tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/scene0000_00.pth").write_bytes(b"\x80\x04.")
    with pytest.raises(
        DataError, match=r"scene0000_00.pth: a pickle of an old Pointcept.*writes .*/train/scene0000_00/coord.npy"
    ):
        READERS["pointcept"].find(find(Dataset, "scannet"), tmp_path)


def test_arrays_that_do_not_fit_name_the_file(tmp_path: Path) -> None:
    layout_writers.pointcept_scannet(tmp_path)
    folder = tmp_path / "train/scene0000_00"
    points = len(np.load(folder / "coord.npy"))
    np.save(folder / "segment20.npy", np.zeros(points - 1, np.int64))
    np.save(
        tmp_path / "train/scene0001_00/segment20.npy",
        np.full(len(np.load(tmp_path / "train/scene0001_00/coord.npy")), 20),
    )
    problems = "\n".join(ready("scannet", tmp_path).manifest.problems)
    assert f"train/scene0000_00/segment20.npy: {points - 1} rows; the scene has {points} points" in problems
    assert "train/scene0001_00/segment20.npy: label 20, but there are 20 classes, 0 to 19" in problems


def test_a_folder_of_no_layout_lists_those_that_are_read(tmp_path: Path, bench: Bench) -> None:
    stderr = bench("data", "info", str(tmp_path), code=2).stderr
    assert "no supported layout" in stderr and "TUM RGB-D: rgb.txt" in stderr
    assert as_laid_out(find(Dataset, "s3dis"), tmp_path) == find(Dataset, "s3dis")


def test_init_counts_ids_where_files_have_no_names(tmp_path: Path, bench: Bench) -> None:
    written = layout_writers.pointcept_scannet(tmp_path / "arrays")
    shutil.move(tmp_path / "arrays/train/scene0000_00", tmp_path / "arrays/train/lobby")
    stderr = bench("data", "preview", str(tmp_path / "arrays"), code=2).stderr
    assert "of no dataset that ships; write a dataset file with `bench data init" in stderr
    shown = json.loads(bench("data", "init", str(tmp_path / "arrays"), "--out", "mine.yaml", "--json").stdout)
    assert shown == {"layout": "pointcept", "dataset": "mine.yaml", "task": "mine-sem.yaml"}
    own = find(Dataset, str(tmp_path / "mine.yaml"))
    names = np.concatenate([p.names for s, p in written.items() if s != "scene0707_00"])
    present = np.unique(layout_writers.ids(names, SCANNET_ORDER))
    assert own.class_ids == tuple(present[present >= 0]) and own.classes[0] == f"class_{own.class_ids[0]}"
    data = ready("mine", tmp_path / "arrays", own)
    assert data.dataset.layout == "pointcept" and data.tested == ("scene0011_00",)
    stderr = bench("data", "init", str(tmp_path / "arrays"), "--out", "mine.yaml", code=2).stderr
    assert "mine.yaml: exists; give --out another name" in stderr
