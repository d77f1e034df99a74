"""Randomly cut or bit-flipped files of every format give an error that names the file, or a valid result."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import images, rgbd_folder, s3dis, scannet, semantickitti, sens, sunrgbd
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.sens import SensFrame, SensHeader, write_sens
from pretrain_bench.benchmarks.input.annotations import read_label_rows
from pretrain_bench.benchmarks.procedural import write
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find

SEED = 20261122
CASES = 200


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of every format."""
    folder = tmp_path_factory.mktemp("formats")
    worlds = {
        "synth-scannet": {"train_rooms": 1, "test_rooms": 0, "frames_per_room": 2, "width": 32, "height": 24,
                          "points_per_square_metre": 4},
        "synth-kitti": {"streets": 1, "train_scans": 1, "test_scans": 1, "azimuths": 16, "width": 16, "height": 8},
        "synth-sunrgbd": {"train_views": 1, "test_views": 0, "width": 32, "height": 24},
        "synth-s3dis": {"train_rooms": 1, "test_rooms": 0, "points_per_square_metre": 4},
    }  # fmt: skip
    for name, settings in worlds.items():
        dataset = find(Dataset, name).sized("smoke")
        dataset = dataset.model_copy(update={"world": {**(dataset.world or {}), **settings}})
        write.generate(dataset, folder, lambda names: names).rename(folder / name)
    return folder


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut the content, flip some bits, or both."""
    spoilt = bytearray(content)
    if rng.random() < 0.4:
        spoilt = spoilt[: int(rng.integers(0, len(spoilt)))]
    if len(spoilt) and rng.random() < 0.8:
        # Mostly near the start, where headers are.
        reach = len(spoilt) if rng.random() < 0.5 else min(len(spoilt), 200)
        for place in rng.integers(0, reach, int(rng.integers(1, 6))):
            spoilt[place] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


SCENE = "synth-scannet/scans/scene0000_00/scene0000_00"
KITTI = "synth-kitti/dataset/sequences/00"
SUN = "synth-sunrgbd/sunrgbd_trainval"


def read_sens(path: Path) -> None:
    header = sens.read_header(path)
    for frame in sens.read_frames(path):
        for decode in (sens.frame_depth, sens.frame_colour):
            picture = decode(header, frame, "frame")
            assert picture.shape[:2] == (header.depth_size if decode is sens.frame_depth else header.colour_size)[::-1]


def read_scan(path: Path) -> None:
    scan = scannet.read_scan(scannet.SceneSource(path.parent, {"wall": 1, "floor": 2}))
    assert len(scan.xyz) == len(scan.rgb) == len(scan.nyu40) == len(scan.instance)
    assert np.isfinite(scan.xyz).all() and scan.nyu40.min() >= 0
    assert scan.alignment is None or np.isfinite(scan.alignment).all()


def read_kitti_points(path: Path) -> None:
    points = semantickitti.read_points(path, [])
    assert points.shape[1] == 4 and np.isfinite(points).all()


def read_kitti_labels(path: Path) -> None:
    learning = find(Dataset, "semantickitti").learning_map
    count = path.with_suffix(".bin").stat().st_size // 16
    raw, instance = semantickitti.read_labels(path, count)
    found = semantickitti.train_ids(raw, learning, path)
    assert len(found) == len(instance) == count and set(np.unique(found)) <= {*range(19), 255}


def read_sun(path: Path) -> None:
    classes = find(Dataset, "sunrgbd").classes
    (view,) = sunrgbd.find_views(path.parents[1]).values()
    found = sunrgbd.read_view(view, classes)
    assert found.xyz.shape == found.rgb.shape and np.isfinite(found.xyz).all() and np.isfinite(found.boxes).all()


def read_s3dis(path: Path) -> None:
    room = s3dis.read_room(path.parent, ("wall",), ("wall",))
    assert len(room.xyz) == len(room.semantic) and np.isfinite(room.xyz).all()


def read_poses(path: Path) -> None:
    pose = semantickitti.read_pose(path, 0, write.KITTI_TR, [])
    assert pose.shape == (4, 4) and np.isfinite(pose).all()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "sens": (f"{SCENE}.sens", read_sens),
    "ply": (f"{SCENE}_vh_clean_2.ply", read_scan),
    "segments": (f"{SCENE}_vh_clean_2.0.010000.segs.json", read_scan),
    "aggregation": (f"{SCENE}.aggregation.json", read_scan),
    "scene text": (f"{SCENE}.txt", read_scan),
    "label map": ("synth-scannet/scannetv2-labels.combined.tsv", scannet.read_label_map),
    "velodyne": (f"{KITTI}/velodyne/000000.bin", read_kitti_points),
    "kitti labels": (f"{KITTI}/labels/000000.label", read_kitti_labels),
    "kitti calibration": (f"{KITTI}/calib.txt", semantickitti.read_calibration),
    "kitti poses": (f"{KITTI}/poses.txt", read_poses),
    "kitti picture": (f"{KITTI}/image_2/000000.png", lambda p: images.decode_colour(p, str(p))),
    "sun points": (f"{SUN}/depth/000001.mat", read_sun),
    "sun calibration": (f"{SUN}/calib/000001.txt", read_sun),
    "sun boxes": (f"{SUN}/label_v1/000001.txt", read_sun),
    "sun picture": (f"{SUN}/image/000001.jpg", read_sun),
    "s3dis": ("synth-s3dis/Area_1/room_1/Annotations/wall_1.txt", read_s3dis),
}


@pytest.mark.parametrize("kind", READERS)
def test_damage_is_named_or_harmless(kind: str, files: Path, tmp_path: Path) -> None:
    name, read = READERS[kind]
    source = files / name
    target = tmp_path / Path(name).parent.relative_to(Path(name).parts[0])
    target.mkdir(parents=True, exist_ok=True)
    siblings = [source] if kind == "s3dis" else sorted(p for p in source.parent.iterdir() if p.is_file())
    if kind.startswith("sun"):
        for path in sorted((files / SUN).rglob("*")):
            if path.is_file():
                copy = tmp_path / path.relative_to(files / "synth-sunrgbd")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    for path in siblings:
        (target / path.name).write_bytes(path.read_bytes())
    if kind == "kitti labels":
        (target / "000000.bin").write_bytes((files / KITTI / "velodyne/000000.bin").read_bytes())
    victim, content = target / source.name, source.read_bytes()
    read(victim)
    rng = np.random.default_rng([SEED, len(kind), zlib.crc32(kind.encode())])
    named = 0
    for _ in range(CASES):
        victim.write_bytes(damage(content, rng))
        try:
            read(victim)
        except DataError as error:
            named += 1
            assert victim.name in str(error) or "frame" in str(error) or "segIndices" in str(error), error
    assert named > CASES // 20, "the damage was felt"


@pytest.mark.parametrize("name", ["s3dis", "scannet", "kitti", "sunrgbd"])
def test_what_an_operating_system_adds_changes_nothing(name: str, files: Path, tmp_path: Path) -> None:
    """macOS companion files beside every file, and thumbnail caches in every folder, in all layouts."""

    def prepared(root: Path) -> Path:
        return prepare(dataset, root, tmp_path / "c", frame_stride=1, strict=True, progress=lambda names: names)

    dataset = find(Dataset, f"synth-{name}").sized("smoke")
    root = Path(shutil.copytree(files / f"synth-{name}", tmp_path / "root"))
    clean = prepared(root)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
        else:
            for left in (".DS_Store", "Thumbs.db", f"._{path.name}"):
                (path / left).write_bytes(b"x")
    assert prepared(root) == clean, "found again"
    shutil.rmtree(clean)
    assert read_manifest(prepared(root)).problems == ()


def test_a_depth_stream_that_swells_is_refused(tmp_path: Path) -> None:
    header = SensHeader("s", *(np.eye(4),) * 4, "raw", "zlib", (4, 3), (4, 3), 1000.0, 1)
    bomb = zlib.compress(bytes(50_000_000), 9)
    write_sens(tmp_path / "a.sens", header, [SensFrame(0, np.eye(4), 0, 0, bytes(36), bomb)])
    (frame,) = sens.read_frames(tmp_path / "a.sens")
    with pytest.raises(DataError, match="25 bytes of depth, expected 24"):
        sens.frame_depth(header, frame, "frame 0")


def test_a_stream_is_read_in_pieces(tmp_path: Path) -> None:
    """Unneeded frames are never read: the file may be larger than memory."""
    import tracemalloc

    header = SensHeader("s", *(np.eye(4),) * 4, "raw", "raw", (400, 300), (400, 300), 1000.0, 40)
    picture, depth = bytes(360_000), bytes(240_000)
    write_sens(tmp_path / "a.sens", header, (SensFrame(n, np.eye(4), n, n, picture, depth) for n in range(40)))
    tracemalloc.start()
    numbers = [f.number for f in sens.read_frames(tmp_path / "a.sens", 10)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers == [0, 10, 20, 30] and peak < 3_000_000 < (tmp_path / "a.sens").stat().st_size


@pytest.mark.parametrize("content", [b"", b"not a file", bytes(100)])
def test_index_files_of_label_points_are_never_executed(content: bytes, tmp_path: Path) -> None:
    import pickle

    (tmp_path / "points20").write_bytes(content)
    with pytest.raises(DataError, match="not a file of label indices"):
        read_label_rows(tmp_path / "points20")

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "owned").touch, ())

    (tmp_path / "points20").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(DataError, match="not a file of label indices"):
        read_label_rows(tmp_path / "points20")
    assert not (tmp_path / "owned").exists()


def test_matrices_of_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    content = b"\n".join(b" ".join(b"%.6f" % v for v in row) for row in np.eye(4))
    for _ in range(CASES):
        (tmp_path / "pose.txt").write_bytes(damage(content, rng))
        try:
            pose = rgbd_folder.read_pose(tmp_path / "pose.txt")
            assert pose is None or np.isfinite(pose).all()
        except DataError as error:
            assert "pose.txt" in str(error)
