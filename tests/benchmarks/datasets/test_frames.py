"""Frames of all sources: how their points become z-up, and the pixel of each point."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain_bench.benchmarks.datasets import semantickitti
from pretrain_bench.benchmarks.datasets.layout import Manifest, SceneEntry, read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.subset import write_subset
from pretrain_bench.benchmarks.datasets.views import (
    Frame,
    camera_points,
    depth_frame,
    list_frames,
    load_colour,
    load_frame,
    up_rules,
    up_rules_text,
    upright_points,
)
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from tests.methods.stages import small_scans

INTRINSIC = np.array([[20.0, 0, 9.5], [0, 21.0, 7.5], [0, 0, 1]])


def ready(name: str, root: Path, cache: Path, strict: bool = False) -> Path:
    return prepare(find(Dataset, name), root, cache, frame_stride=1, strict=strict, progress=lambda names: names)


def projected(frame: Frame) -> np.ndarray:
    """(N, 2) pixel positions of the points of a frame, projected from their z-up coordinates."""
    camera = (upright_points(frame).xyz - frame.pose[:3, 3]) @ np.linalg.inv(frame.pose[:3, :3]).T
    places = camera @ frame.intrinsic.T
    return places[:, :2] / places[:, 2:]


@pytest.fixture
def recording(rgbd_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rgbd_root / "room0000_00", tmp_path / "scene"))


def test_without_a_pose_z_is_what_is_up_in_the_picture() -> None:
    depth = np.zeros((16, 20))
    depth[3, 14] = 2.0
    colour = np.arange(16 * 20 * 3).astype(np.uint8).reshape(16, 20, 3)
    frame = depth_frame(colour, depth, None, INTRINSIC)
    x, y, z = (14 - 9.5) * 2 / 20, (3 - 7.5) * 2 / 21, 2.0
    assert camera_points(frame).xyz.tolist() == [[x, y, z]]
    assert upright_points(frame).xyz.tolist() == [[x, z, -y]] and -y > 0, "right, forward, up"
    assert frame.up == "camera" and frame.uv.tolist() == [[14, 3]]
    assert upright_points(frame).rgb.tolist() == [colour[3, 14].tolist()]


def test_a_recorded_pose_gives_the_same_bits_as_the_formula_of_the_author_s_code() -> None:
    rng = np.random.default_rng(0)
    depth = (rng.integers(0, 4000, (16, 20)) * (rng.random((16, 20)) > 0.3)).astype(np.float32) / np.float32(1000)
    colour = rng.integers(0, 256, (16, 20, 3)).astype(np.uint8)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3)
    frame = depth_frame(colour, depth, pose, INTRINSIC)
    v, u = np.nonzero(depth > 0)
    z = np.asarray(depth, np.float64)[v, u]
    camera = np.stack([(u - 9.5) * z / 20.0, (v - 7.5) * z / 21.0, z], axis=1)
    assert np.array_equal(upright_points(frame).xyz, camera @ pose[:3, :3].T + pose[:3, 3]) and frame.up == "poses"
    assert np.array_equal(camera_points(frame).xyz, camera @ np.eye(3).T + np.zeros(3))
    assert np.array_equal(upright_points(frame).rgb, colour[depth > 0].astype(np.float64))


def write_scan(root: Path, points: list[list[float]], projection: np.ndarray, tr: np.ndarray, picture: bool) -> Path:
    """One scan of sequence 00 in the official layout; red and green of a pixel are its column and row."""
    sequence = root / "dataset/sequences/00"
    for part in ("velodyne", "image_2"):
        (sequence / part).mkdir(parents=True)
    np.array([[*p, 0.5] for p in points], "<f4").tofile(sequence / "velodyne/000000.bin")
    lines = {"P2": projection, "Tr": tr}
    (sequence / "calib.txt").write_text(
        "".join(f"{k}: {' '.join(map(repr, m.reshape(-1).tolist()))}\n" for k, m in lines.items())
    )
    if picture:
        v, u = np.mgrid[:50, :200]
        gradient = np.stack([u, v, 0 * u], axis=2).astype(np.uint8)
        Image.fromarray(gradient).save(sequence / "image_2/000000.png")
    return root


def test_points_of_a_laser_and_their_pixels(tmp_path: Path) -> None:
    """The laser has x forward, y left, z up; the camera is 0.5 m ahead of it, with a focal length of 100 pixels."""
    projection = np.array([[100.0, 0, 99, 0], [0, 100.0, 24, 0], [0, 0, 1, 0]])
    tr = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.5]])
    points = [[10.5, 0, 0], [10.5, 5, 0], [10.5, 0, 2], [-10, 0, 0], [10.5, 30, 0], [10.5, 0, -5], [0.25, 0, 0]]
    folder = ready("semantickitti", write_scan(tmp_path / "root", points, projection, tr, True), tmp_path / "c")
    frame = load_frame(folder, "00__000000", 0)
    assert frame.uv.tolist() == [[99, 24], [49, 24], [99, 4]], (
        "straight ahead; left; up; none behind or beside the picture"
    )
    found = upright_points(frame)
    assert np.abs(found.xyz - points[:3]).max() < 1e-12 and frame.up == "laser"
    assert found.rgb[:, :2].tolist() == frame.uv.tolist()
    assert np.abs(camera_points(frame).xyz - [[0, 0, 10], [-5, 0, 10], [0, -2, 10]]).max() < 1e-12
    counts = up_rules(folder, list_frames(folder, ("00__000000",)))
    assert counts == {"laser": 1} and up_rules_text(counts) == "1 frames by the laser's frame, whose z is up"


def test_a_projection_is_taken_apart_exactly() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        intrinsic = np.array(
            [[rng.uniform(50, 900), 0, rng.uniform(0, 600)], [0, rng.uniform(50, 900), 180], [0, 0, 1]]
        )
        moved = np.concatenate([turn, rng.normal(size=(3, 1))], axis=1)
        found, to_camera = semantickitti.split_projection(intrinsic @ moved, "calib.txt")
        assert np.abs(found - intrinsic).max() < 1e-9 and np.abs(to_camera[:3] - moved).max() < 1e-9
    with pytest.raises(DataError, match=r"calib\.txt: the product of P2 and Tr is not a projection"):
        semantickitti.split_projection(np.zeros((3, 4)), "calib.txt")


def test_scans_without_a_picture_have_no_frame(tmp_path: Path) -> None:
    eye = np.eye(3, 4)
    folder = ready("semantickitti", write_scan(tmp_path / "root", [[1.0, 2, 3]], eye, eye, False), tmp_path / "c")
    with pytest.raises(DataError, match="none of its 1 scenes has a frame"):
        list_frames(folder, ("00__000000",))


@pytest.mark.parametrize("name", ["synth-sunrgbd", "synth-kitti"])
def test_points_of_the_procedural_worlds_lie_in_their_pixels(name: str, cache: Path) -> None:
    folder, scenes = small_scans(name, cache).folder, small_scans(name, cache).scenes
    frames = list_frames(folder, scenes)
    assert len(frames) == len(scenes) == 4
    for scene, index in frames:
        frame = load_frame(folder, scene, index)
        assert len(frame.uv) > 500 and np.abs(projected(frame) - frame.uv).max() <= 0.5 + 1e-9
        assert np.array_equal(frame.colour, load_colour(folder, scene, index))
        height, width = frame.colour.shape[:2]
        assert frame.uv.min() >= 0 and (frame.uv < (width, height)).all() and (frame.camera[:, 2] > 0).all()
        prepared = np.load(folder / "unlabelled" / scene / "xyz.npy")
        near = np.abs(upright_points(frame).xyz[::200, None] - prepared).max(axis=2).min(axis=1)
        assert near.max() < 1e-5, "with z up they are the prepared points"


def test_colours_of_points_and_pixels_agree(cache: Path) -> None:
    """SUN RGB-D stores a colour for each point; it matches the point's own pixel better than any neighbouring pixel."""
    folder, (scene, *_) = small_scans("synth-sunrgbd", cache).folder, small_scans("synth-sunrgbd", cache).scenes
    frame, rgb = load_frame(folder, scene, 0), np.load(folder / "unlabelled" / scene / "rgb.npy").astype(float)
    assert len(rgb) == len(frame.uv)

    def difference(right: int, down: int) -> float:
        height, width = frame.colour.shape[:2]
        u, v = (frame.uv + np.array([right, down])).clip(0, (width - 1, height - 1)).T
        return float(np.abs(frame.colour[v, u] - rgb).mean())

    assert difference(0, 0) < min(difference(*step) for step in ((1, 0), (-1, 0), (0, 1), (0, -1)))


def test_a_recording_without_poses(recording: Path, tmp_path: Path) -> None:
    posed = ready("rgbd-folder", recording, tmp_path / "c")
    shutil.rmtree(recording / "pose")
    folder = ready("rgbd-folder", recording, tmp_path / "c", strict=True)
    manifest = read_manifest(folder)
    assert [(s.frames, s.pairs, s.up) for s in manifest.scenes] == [(3, 0, "camera")] and not manifest.problems
    assert not list((folder / "unlabelled/scene").glob("p*.npy")), "neither poses nor pairs"
    frames = list_frames(folder, ("scene",))
    assert len(frames) == 3 and up_rules(folder, frames) == {"camera": 3}
    assert up_rules(posed, frames) == {"poses": 3}
    for scene, index in frames:
        one, two = load_frame(folder, scene, index), load_frame(posed, scene, index)
        assert np.array_equal(one.camera, two.camera) and np.array_equal(one.colour, two.colour)
        assert np.array_equal(upright_points(one).xyz, one.camera[:, [0, 2, 1]] * [1, 1, -1])
        assert not np.allclose(upright_points(one).xyz, upright_points(two).xyz)
    cut = write_subset(find(Dataset, "rgbd-folder"), folder, manifest, tmp_path / "cut", 1, 2)
    assert cut.scenes[0].frames == 2 and len(list_frames(tmp_path / "cut", ("scene",))) == 2


def test_poses_of_only_some_frames_are_ignored_and_reported(recording: Path, tmp_path: Path) -> None:
    (recording / "pose/1.txt").unlink()
    manifest = read_manifest(ready("rgbd-folder", recording, tmp_path / "c"))
    assert manifest.problems == (
        "scene: 2 of the 3 frames that are read have a pose file; no pose of this recording is used",
    )
    assert [(s.frames, s.up) for s in manifest.scenes] == [(3, "camera")]
    with pytest.raises(DataError, match=r"scene: 2 of the 3 frames .* have a pose file; .*pose/1\.txt: no such file"):
        ready("rgbd-folder", recording, tmp_path / "c", strict=True)


def test_the_hash_of_data_with_poses_is_what_it_was_before_the_rule_was_recorded() -> None:
    manifest = Manifest(dataset="d", synthetic=False, scenes=(SceneEntry(name="a", frames=3),), files={})
    content = manifest.model_dump(mode="json")
    assert [content["scenes"][0].pop(field) for field in ("up", "world_up")] == [None, None]
    assert content.pop("left_out") == [] and content["scenes"][0].pop("point_classes") is None
    del content["scenes"][0]["box_classes"], content["scenes"][0]["assumed"]
    assert manifest.sha256 == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    turned = manifest.model_copy(update={"scenes": (SceneEntry(name="a", frames=3, up="camera"),)})
    assert turned.sha256 != manifest.sha256
