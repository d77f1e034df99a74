from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pretrain_bench as pb
from pretrain_bench.api.settings import resolve
from pretrain_bench.benchmarks.datasets.gravity import (
    axis_of,
    degrees_between,
    find_up,
    format_up_problem,
    turn_to_z,
    turned_up,
    world_up,
)
from pretrain_bench.benchmarks.datasets.layout import read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.views import list_frames, load_frame, up_rules, upright_points
from pretrain_bench.benchmarks.specs.dataset import UP_CHOICES, Dataset, UpChoice
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.harness.planning.catalog import find
from tests.benchmarks.datasets.room_recordings import Y_DOWN, Room, room, turned, write
from tests.conftest import SHARED, Bench

DATASET = find(Dataset, "rgbd-folder")


def leaning(degrees: float) -> NDArray[np.float64]:
    """A rotation about x."""
    turn, (c, s) = np.eye(4), (np.cos(np.radians(degrees)), np.sin(np.radians(degrees)))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return turn


def ready(root: Path, cache: Path, **options) -> Path:
    return prepare(DATASET, root, cache, frame_stride=1, progress=lambda items: items, **{"strict": True, **options})


@pytest.mark.parametrize("downward", [-10, 0, 20, 40])
@pytest.mark.parametrize("lean", [0, -90, 117, 180])
def test_up_is_detected_in_any_orientation_of_the_world(lean: float, downward: float) -> None:
    recording = turned(room(8, downward_degrees=downward, turn_degrees=15), leaning(lean))
    up = find_up(recording.sampled)
    assert up.sure and degrees_between(up.direction, leaning(lean)[:3, 2]) < 3


def test_without_depth_the_cameras_alone_decide_what_is_up() -> None:
    sampled = turned(room(8, downward_degrees=0, turn_degrees=45), leaning(117)).sampled
    up = find_up(sampled._replace(depth=np.zeros_like(sampled.depth)))
    assert degrees_between(up.direction, leaning(117)[:3, 2]) < 5 and up.floor_share == 0


def test_the_turn_brings_up_to_z() -> None:
    for up in (*np.eye(3), *-np.eye(3), np.array([0.36, -0.48, 0.8]), np.array([0, 1e-9, -1.0])):
        turn = turn_to_z(up)
        assert np.allclose(turn[:3, :3] @ up, [0, 0, 1]) and np.allclose(turn[:3, :3] @ turn[:3, :3].T, np.eye(3))
        assert np.isclose(np.linalg.det(turn[:3, :3]), 1)


def test_a_world_with_z_up_is_kept_and_one_with_another_axis_up_is_turned_by_it_exactly() -> None:
    assert turned_up(leaning(10)[:3, 2]) is None
    assert turned_up(leaning(93)[:3, 2]).tolist() == [0, -1, 0]
    assert np.abs(turned_up(leaning(120)[:3, 2]) - leaning(120)[:3, 2]).max() < 1e-6


def test_a_recording_with_y_down_is_turned_and_the_manifest_says_so(tmp_path: Path) -> None:
    """Its frames equal those of the same recording with z up; the rule is in the notes of a run."""
    expected = room(6)
    root = write(turned(expected, Y_DOWN), tmp_path / "root/scene").parent
    folder = ready(root, tmp_path / "c")
    manifest = read_manifest(folder)
    assert manifest.scenes[0].world_up == (0, -1, 0) and manifest.problems == ()
    plain = ready(write(expected, tmp_path / "plain/scene").parent, tmp_path / "c")
    assert read_manifest(plain).scenes[0].world_up is None
    assert up_rules(plain, list_frames(plain, ("scene",))) == {"poses": 6}
    assert up_rules(folder, list_frames(folder, ("scene",))) == {"turned": 6}
    for number in range(6):
        frame = load_frame(folder, "scene", number)
        assert frame.up == "turned" and np.abs(frame.pose - expected.poses[number]).max() < 1e-9
        assert np.abs(upright_points(frame).xyz - upright_points(load_frame(plain, "scene", number)).xyz).max() < 1e-6
    kept = ready(root, tmp_path / "c", up="+z")
    one, two = (np.load(f / "unlabelled/scene/pairs.npy") for f in (folder, kept))
    assert len(one) > 3 and np.array_equal(one, two), "the turn changes no overlap"


def test_poses_of_a_world_with_z_up_keep_their_bytes(tmp_path: Path) -> None:
    recording = room(5)
    folder = ready(write(recording, tmp_path / "root/scene").parent, tmp_path / "c")
    written = np.array([np.loadtxt(tmp_path / f"root/scene/pose/{n}.txt") for n in range(5)])
    assert np.array_equal(np.load(folder / "unlabelled/scene/poses.npy"), written)


@pytest.mark.parametrize("choice", UP_CHOICES[1:])
def test_the_user_can_name_the_up_axis(choice: str, tmp_path: Path) -> None:
    axis = axis_of(choice)
    turn = turn_to_z(axis).T  # from z up to the named axis
    folder = ready(write(turned(room(3), turn), tmp_path / "root/scene").parent, tmp_path / "c", up=choice)
    assert np.abs(np.load(folder / "unlabelled/scene/poses.npy") - room(3).poses).max() < 1e-8
    said = read_manifest(folder).scenes[0].world_up
    assert said is None if choice == "+z" else said == tuple(axis)


def rolling(frames: int) -> Room:
    """A camera that keeps rolling about its viewing axis, so that its down axis gives no information."""
    recording = turned(room(frames, downward_degrees=0), leaning(-90))
    for number, pose in enumerate(recording.poses):
        spin, angle = np.eye(4), 2.4 * number
        spin[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        recording.poses[number] = pose @ spin
    return recording


def test_level_cameras_that_see_no_floor_are_believed_only_while_they_turn() -> None:
    """A camera held sideways in front of a wall gives the same picture."""
    standing = turned(room(8, downward_degrees=-12, turn_degrees=2), leaning(-90))
    assert find_up(standing.sampled).floor_share < 0.01 and not find_up(standing.sampled).sure
    assert world_up("rec", room(8, downward_degrees=-12, turn_degrees=2).sampled, "auto") == (None, None)


def test_an_uncertain_up_direction_is_reported_with_numbers_and_the_world_kept(tmp_path: Path) -> None:
    up, problem = world_up("rec", rolling(12).sampled, "auto")
    assert up is None and problem is not None
    assert "rec: the up direction of its poses is uncertain" in problem and "--up +x, -x, +y, -y, +z, -z" in problem
    assert "degrees from z (their mean has length 0." in problem and "% of what they see is floor" in problem
    assert world_up("rec", rolling(12).sampled, "-y")[1] is None


def test_not_sure_is_a_problem_and_with_strict_an_error(tmp_path: Path) -> None:
    root = write(rolling(4), tmp_path / "root/scene").parent
    (problem,) = [
        p
        for p in read_manifest(ready(root, tmp_path / "c", strict=False)).problems
        if "up direction of its poses is uncertain" in p
    ]
    assert problem.startswith("scene: ")
    with pytest.raises(DataError):
        ready(root, tmp_path / "c")


def test_a_layout_that_promises_z_up_is_not_turned_but_checked() -> None:
    assert format_up_problem("rec", room(5).sampled) is None
    problem = format_up_problem("rec", turned(room(5), Y_DOWN).sampled)
    assert problem is not None and "should have z up" in problem and "90 degrees from z" in problem


def test_a_scannet_scene_with_y_down_is_a_problem_and_keeps_its_poses(tmp_path: Path) -> None:
    write(turned(room(3), Y_DOWN), tmp_path / "root/scans/scene0000_00")
    scannet, root = find(Dataset, "scannet"), tmp_path / "root"
    folder = prepare(scannet, root, tmp_path / "c", frame_stride=1, strict=False, progress=lambda items: items)
    manifest = read_manifest(folder)
    assert "its world should have z up" in " ".join(manifest.problems) and manifest.scenes[0].world_up is None
    assert np.allclose(np.load(folder / "unlabelled/scene0000_00/poses.npy"), turned(room(3), Y_DOWN).poses)


def test_up_of_another_layout_is_refused(tmp_path: Path) -> None:
    said = "--up -y: only layouts of recordings leave the up axis open"
    with pytest.raises(WrongUse, match=said):
        pb.prepare_data("scannet", tmp_path, up="-y", display=pb.Silent())
    with pytest.raises(WrongUse, match="--up 'down': expected one of auto"):
        pb.prepare_data("rgbd-folder", tmp_path, up="down", display=pb.Silent())


def test_the_command_line_says_what_was_turned_and_takes_another_axis(bench: Bench, tmp_path: Path) -> None:
    write(turned(room(3), Y_DOWN), tmp_path / "root/scene")
    arguments = ("data", "prepare", "rgbd-folder", "--root", "root")
    assert "1 recording is turned to have z up: up was (0, -1, 0) as recorded" in bench(*arguments).stdout
    assert "up was (0, 1, 0) as recorded" in bench(*arguments, "--up", "+y").stdout
    assert "up was (0, -1, 0) as recorded" in bench(*arguments, "--up", "-y").stdout
    assert "turned" not in bench(*arguments, "--up", "+z").stdout


def test_runs_and_plans_take_it_too(tmp_path: Path) -> None:
    """With several sources it applies to recordings only; without recordings it is refused."""
    root = write(turned(room(3), Y_DOWN), tmp_path / "root/scene").parent
    cells = pb.cells("ours", "s3dis-sem", budget="smoke")

    def recorded_up(up: str) -> UpChoice:
        settings = pb.Settings(data={"s3dis": tmp_path}, pretrain_data={"rgbd-folder": root}, up=up)
        sources = resolve(cells, (), settings).sources
        assert sources.up_of(find(Dataset, "s3dis")) == "auto"
        return sources.up_of(DATASET)

    assert recorded_up("-y") == "-y" and recorded_up("auto") == "auto"
    with pytest.raises(WrongUse, match="--up -y: only layouts of recordings leave the up axis open; no data are given"):
        pb.plan(cells, settings=pb.Settings(up="-y"))


@pytest.mark.skipif(not (SHARED / "realdata").is_dir(), reason="needs the real samples (../shared/realdata)")
@pytest.mark.slow
def test_a_real_recording_of_7_scenes_comes_to_have_z_up(tmp_path: Path) -> None:
    """Its world is the frame of the first camera, which looked down. After turning, walls are vertical and the floor is horizontal."""
    folder = ready(SHARED / "realdata/rgbd_7scenes", tmp_path / "c")
    scene = read_manifest(folder).scenes[0]
    assert scene.world_up is not None and degrees_between(np.array(scene.world_up), np.array([0, -0.891, -0.453])) < 3
