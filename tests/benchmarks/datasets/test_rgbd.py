from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain_bench.benchmarks.datasets import rgbd_folder
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.views import list_frames, load_frame
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find

DATASET = find(Dataset, "rgbd-folder")


def to_7scenes(scene: Path, target: Path) -> Path:
    """The same recording in the 7-Scenes layout."""
    target.mkdir(parents=True)
    for number in range(3):
        shutil.copy(scene / "color" / f"{number}.jpg", target / f"frame-{number:06d}.color.jpg")
        shutil.copy(scene / "depth" / f"{number}.png", target / f"frame-{number:06d}.depth.png")
        shutil.copy(scene / "pose" / f"{number}.txt", target / f"frame-{number:06d}.pose.txt")
    intrinsic = np.loadtxt(scene / "intrinsic" / "intrinsic_depth.txt")[:3, :3]
    np.savetxt(target / "camera-intrinsics.txt", intrinsic)
    return target


def ready(root: Path, cache: Path, stride: int = 1, strict: bool = False) -> Path:
    return prepare(DATASET, root, cache, frame_stride=stride, strict=strict, progress=lambda items: items)


@pytest.fixture
def recording(rgbd_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rgbd_root / "room0000_00", tmp_path / "scene"))


def test_both_layouts_give_the_same_frames(recording: Path, tmp_path: Path) -> None:
    one = ready(recording, tmp_path / "c")
    two = ready(to_7scenes(recording, tmp_path / "seq" / "scene").parent, tmp_path / "c")
    for scene, index in list_frames(one, ("scene",)):
        a, b = load_frame(one, scene, index), load_frame(two, scene, index)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert len(list_frames(one, ("scene",))) == 3


def test_stride_counts_frame_numbers(recording: Path, tmp_path: Path) -> None:
    assert len(list_frames(ready(recording, tmp_path / "c", stride=2), ("scene",))) == 2


def test_a_first_frame_of_another_size_does_not_cost_the_others(recording: Path, tmp_path: Path) -> None:
    first = recording / "depth/0.png"
    Image.open(first).resize((60, 45), Image.Resampling.NEAREST).save(first)
    prepared = ready(recording, tmp_path / "c")
    assert len(list_frames(prepared, ("scene",))) == 2
    assert any("depth/0.png" in p and "60" in p for p in read_manifest(prepared).problems)


def test_lost_tracking_drops_the_frame_and_says_so(recording: Path, tmp_path: Path) -> None:
    (recording / "pose/1.txt").write_text("-inf -inf -inf -inf\n" * 4)
    prepared = ready(recording, tmp_path / "c")
    assert len(list_frames(prepared, ("scene",))) == 2
    assert read_manifest(prepared).problems == (
        "pose/1.txt: the pose is not finite (tracking was lost); the frame is left out",
    )
    with pytest.raises(DataError, match=r"pose/1\.txt: the pose is not finite"):
        ready(recording, tmp_path / "c", strict=True)


def test_exported_frames_of_a_scannet_scene_report_losses(recording: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scans/scene0000_00"
    shutil.copytree(recording, scene)
    (scene / "pose/1.txt").write_text("-inf -inf -inf -inf\n" * 4)
    scannet = find(Dataset, "scannet")
    prepared = prepare(scannet, tmp_path, tmp_path / "c", frame_stride=1, strict=False, progress=lambda items: items)
    assert len(list_frames(prepared, ("scene0000_00",))) == 2
    assert ["tracking was lost" in p for p in read_manifest(prepared).problems] == [True]


def test_no_frame_with_a_pose(recording: Path, tmp_path: Path) -> None:
    for n in range(3):
        (recording / f"pose/{n}.txt").write_text("-inf -inf -inf -inf\n" * 4)
    with pytest.raises(
        DataError, match="no frame can be used at a stride of 1: 3 of 3 frames: .*pose/0.txt: the pose is not finite"
    ):
        ready(recording, tmp_path / "c")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda s: Image.fromarray(np.zeros((7, 9), np.uint16)).save(s / "depth/1.png"),
            r"depth/1\.png: the picture is 9x7, expected 120x90",
        ),
        (lambda s: Image.fromarray(np.zeros((90, 120), np.uint8)).save(s / "depth/1.png"), "expected a 16-bit"),
        (
            lambda s: (s / "depth/1.png").write_bytes((s / "depth/1.png").read_bytes()[:200]),
            r"depth/1\.png: cannot be decoded",
        ),
        (
            lambda s: (s / "color/1.jpg").write_bytes((s / "color/1.jpg").read_bytes()[:300]),
            r"color/1\.jpg: cannot be decoded",
        ),
        (lambda s: (s / "pose/1.txt").write_text("1 2 3\n"), r"pose/1\.txt: expected a matrix of 4x4"),
        (lambda s: (s / "pose/1.txt").write_text("a b c d\n" * 4), r"pose/1\.txt: expected a matrix of 4x4"),
        (lambda s: np.savetxt(s / "pose/1.txt", 2 * np.eye(4)), "not a rotation"),
        (lambda s: np.savetxt(s / "intrinsic/intrinsic_depth.txt", -np.eye(4)), "focal lengths must be positive"),
        (lambda s: (s / "depth/2.png").unlink(), r"depth/2\.png: no such file"),
        (lambda s: (s / "intrinsic/intrinsic_depth.txt").unlink(), r"intrinsic_depth\.txt: no such file"),
    ],
)
def test_a_broken_recording_is_named_and_leaves_nothing(recording: Path, tmp_path: Path, spoil, said: str) -> None:
    spoil(recording)
    with pytest.raises(DataError, match=said):
        ready(recording, tmp_path / "c", strict=True)
    assert not [p for p in (tmp_path / "c").rglob("manifest.json")]


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no RGB-D frames found; expected <scene>/color/"):
        rgbd_folder.find_recordings(tmp_path)


def test_colour_of_another_size_is_resized_and_65535_is_no_depth(recording: Path, tmp_path: Path) -> None:
    depth = np.full((90, 120), 1500, np.uint16)
    depth[0, 0], depth[0, 1] = 65535, 0
    Image.fromarray(depth).save(recording / "depth/0.png")
    Image.new("RGB", (240, 180), (10, 20, 30)).save(recording / "color/0.jpg", quality=95)
    frame = load_frame(ready(recording, tmp_path / "c"), "scene", 0)
    assert frame.colour.shape == (90, 120, 3) and np.abs(frame.colour[5, 5].astype(int) - [10, 20, 30]).max() <= 3
    assert len(frame.uv) == 90 * 120 - 2 and frame.uv[0].tolist() == [2, 0] and (frame.camera[:, 2] == 1.5).all()


@pytest.mark.parametrize("name", ["depth/1.png", "color/1.jpg"])
def test_a_damaged_image_drops_one_frame_and_is_reported(recording: Path, tmp_path: Path, name: str) -> None:
    (recording / name).write_bytes((recording / name).read_bytes()[:200])
    prepared = ready(recording, tmp_path / "c")
    (problem,) = read_manifest(prepared).problems
    assert problem.startswith(f"{name}: cannot be decoded") and problem.endswith("the frame is left out")
    assert np.load(prepared / "unlabelled/scene/frame_numbers.npy").tolist() == [0, 2]


def test_a_damaged_scene_is_left_out_and_reported(rgbd_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(rgbd_root, tmp_path / "root"))
    (root / "room0000_00/intrinsic/intrinsic_depth.txt").write_text("1 2\n")
    manifest = read_manifest(ready(root, tmp_path / "c"))
    assert [s.name for s in manifest.scenes] == ["room0001_00"]
    assert manifest.problems[0].startswith(
        "scene room0000_00 is left out: room0000_00/intrinsic/intrinsic_depth.txt: expected"
    )


def test_pairs_of_frames_that_overlap(recording: Path, tmp_path: Path) -> None:
    prepared = ready(recording, tmp_path / "c")
    pairs = np.load(prepared / "unlabelled/scene/pairs.npy")
    assert pairs.shape[1] == 3 and (pairs[:, 0] < pairs[:, 1]).all() and (pairs[:, 2] >= 0.3).all()
    assert len(pairs) == read_manifest(prepared).scenes[0].pairs
