"""Values in a wrong scale, unit or order are converted or refused, and reported once, with their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pretrain_bench.benchmarks.datasets import images, value_checks
from pretrain_bench.benchmarks.datasets.layout import Manifest, read_manifest
from pretrain_bench.benchmarks.datasets.prepare import prepare
from pretrain_bench.benchmarks.datasets.value_checks import Finding, Problem
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from tests.tiny_data import prepared, write_kitti
from tests.verification.tiny_inputs import WRITERS
from tests.verification.value_mutations import KITTI, SCENE, SUN, mat, ply, room, scan, stream

COLOURS = np.random.default_rng(1).integers(0, 256, (200, 3)).astype(np.float64)
Edit = Callable[[Path], None]


def ready(layout: str, root: Path, edit: Edit | None = None, strict: bool = False) -> tuple[Path, Manifest]:
    """A tiny input, edited and prepared."""
    WRITERS[layout](root / "data", 3)
    if edit:
        edit(root / "data")
    dataset = find(Dataset, layout)
    folder = prepare(dataset, root / "data", root / "c", frame_stride=1, strict=strict, progress=lambda names: names)
    return folder, read_manifest(folder)


def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("stored", "usual", "kind"),
    [
        (COLOURS, 255, None),
        (COLOURS.astype(np.uint8), 255, None),
        (COLOURS / 255, 1, None),
        (COLOURS / 255, 255, "colours are 0 to 1, not 0 to 255; converted"),
        ((COLOURS / 255).round(4), 255, "colours are 0 to 1, not 0 to 255; converted"),
        (COLOURS * 257, 255, "colours are of 16 bits, not 0 to 255; converted"),
        ((COLOURS * 256).astype(np.uint16), 255, "colours are of 16 bits, not 0 to 255; converted"),
        (COLOURS, 1, "colours are 0 to 255, not 0 to 1; converted"),
    ],
)
def test_colours_of_every_scale_come_out_alike(stored: NDArray, usual: int, kind: str | None) -> None:
    problems: list[Problem] = []
    assert np.array_equal(value_checks.byte_colours([stored], ["a.ply"], problems, usual), COLOURS)
    assert [p.what for p in problems if isinstance(p, Finding)] == ([kind] if kind else [])
    if kind:
        assert f"{stored.min():.4g} to {stored.max():.4g}" in str(problems[0])


@pytest.mark.parametrize("stored", [-COLOURS, COLOURS * 4, COLOURS * 1000, COLOURS * np.nan])
def test_colours_of_no_scale_are_refused(stored: NDArray) -> None:
    with pytest.raises(DataError, match=r"a\.ply: "):
        value_checks.byte_colours([stored], ["a.ply"], [])


def test_a_white_object_of_a_room_in_0_to_1_stays_white() -> None:
    colours = value_checks.byte_colours([COLOURS / 255, np.ones((5, 3))], ["a", "b"], [])
    assert (colours[-5:] == 255).all()


def test_a_few_strays_are_clipped_and_reported() -> None:
    stored, problems = COLOURS.copy(), list[Problem]()
    stored[0] = (256, -1, 3)
    assert value_checks.byte_colours([stored], ["a"], problems)[0].tolist() == [255, 0, 3]
    assert "2 values" in str(problems[0])


@pytest.mark.parametrize(
    ("layout", "edit", "file"),
    [
        ("s3dis", lambda r: room(r / "Area_1/office_1/Annotations", lambda a, _: a / 255, random(), slice(3, 6)), "Area_1__office_1/rgb"),
        ("scannet", lambda r: ply(r / f"{SCENE}_vh_clean_2.ply", lambda a, _: a / 255, random(), "rgb"), "scene0000_00/rgb"),
        ("scannet", lambda r: ply(r / f"{SCENE}_vh_clean_2.ply", lambda a, _: a * 257, random(), "rgb"), "scene0000_00/rgb"),
        ("sunrgbd", lambda r: mat(r / f"{SUN}/depth/000001.mat", lambda a, _: a * 255, random(), slice(3, 6)), "000001/rgb"),
        ("semantickitti", lambda r: scan(r / f"{KITTI}/velodyne/000001.bin", lambda a, _: a * 255, random(), slice(3, 4)), "00__000001/remission"),
    ],
)  # fmt: skip
def test_a_reader_gives_what_the_right_scale_gives(layout: str, edit: Edit, file: str, tmp_path: Path) -> None:
    sound, manifest = ready(layout, tmp_path / "sound")
    assert not manifest.problems
    folder, edited = ready(layout, tmp_path / "edited", edit)
    one, two = (np.load(f / f"unlabelled/{file}.npy") for f in (sound, folder))
    assert np.allclose(one, two, atol=1e-6) and len(edited.problems) == 1 and "; converted" in edited.problems[0]
    with pytest.raises(DataError, match="; converted"):
        ready(layout, tmp_path / "strict", edit, strict=True)


def test_one_kind_is_one_line_for_a_dataset(tmp_path: Path) -> None:
    def edit(root: Path) -> None:
        for folder in root.glob("Area_*/*/Annotations"):
            room(folder, lambda a, _: a / 255, random(), slice(3, 6))

    _, manifest = ready("s3dis", tmp_path, edit)
    (line,) = manifest.problems
    assert line.startswith(
        "colours are 0 to 1, not 0 to 255; converted: 8 times, first Area_1/office_1/Annotations/ceiling_1.txt ("
    )


def test_pictures_of_16_bits_are_converted_and_black_ones_reported(tmp_path: Path) -> None:
    grey = np.random.default_rng(2).integers(0, 256, (30, 40)).astype(np.uint16)
    Image.fromarray(grey * 257).save(tmp_path / "a.png")
    assert images.colour_bits(tmp_path / "a.png") == 16 and images.colour_bits(b"jpeg") == 8
    assert np.array_equal(images.decode_colour(tmp_path / "a.png", "a.png"), np.repeat(grey[:, :, None], 3, axis=2))

    def edit(root: Path) -> None:
        Image.fromarray(grey * 257).save(root / "room_a/color/0.png")
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "room_b/color/2.png")

    _, manifest = ready("rgbd-folder", tmp_path, edit)
    assert [p.partition(" (")[0] for p in manifest.problems] == [
        "room_a/color/0.png: colour picture of more than 8 bits; converted to 8",
        "room_b/color/2.png: there are no colours between 1 and 255; they were clipped",
    ]


@pytest.mark.parametrize("offset", [(500_000.0, 4_649_776.0, 300.0), (-20_000_000.0, 0.0, 0.0)])
def test_a_scene_far_from_the_origin_keeps_its_shape(offset: tuple[float, ...], tmp_path: Path) -> None:
    def far(a: NDArray, _: np.random.Generator) -> NDArray:
        return a + offset

    for layout, edit, scene in (
        ("s3dis", lambda r: room(r / "Area_1/office_1/Annotations", far, random()), "Area_1__office_1"),
        ("scannet", lambda r: ply(r / f"{SCENE}_vh_clean_2.ply", far, random()), "scene0000_00"),
    ):
        sound, _ = ready(layout, tmp_path / layout / "sound")
        folder, manifest = ready(layout, tmp_path / layout / "far", edit)
        one, two = (np.load(f / f"unlabelled/{scene}/xyz.npy") for f in (sound, folder))
        shift = np.median(two, axis=0) - np.median(one, axis=0)
        near = np.abs((one + shift)[:, None] - two).max(axis=2).min(axis=1)
        assert near.max() < 0.011 and len(two) >= 0.97 * len(one), "at most another point of a voxel of 1 cm"
        assert np.abs(two).max() < 10
        assert "coordinates lie far from the origin" in manifest.problems[0]
        if layout == "scannet":  # the alignment moves with the points
            boxes, first = (np.load(f / f"labelled/{scene}/boxes.npy") for f in (folder, sound))
            assert np.allclose(boxes[:, 3:6], first[:, 3:6], atol=1e-4)
            alignment = np.load(folder / f"labelled/{scene}/alignment.npy")
            assert np.allclose(two @ alignment[:3, :3].T + alignment[:3, 3],
                               (one + offset) @ [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]] + (1, 2, 0.1), atol=1e-2)  # fmt: skip


@pytest.mark.parametrize("factor", [0.001, 1000])
def test_units_are_reported(factor: float, tmp_path: Path) -> None:
    _, manifest = ready(
        "s3dis", tmp_path, lambda r: room(r / "Area_1/office_1/Annotations", lambda a, _: a * factor, random())
    )
    (line,) = [p for p in manifest.problems if "implausible size" in p]
    assert f"{4 * factor:.0g}"[0] in line and "expected 0.5 to 100 m, coordinates are metres" in line
    problems: list[Problem] = []
    value_checks.check_extent(np.random.default_rng(0).uniform(0, 80, (50, 3)), "scan of a laser", "a", problems)
    value_checks.check_extent(np.random.default_rng(0).uniform(0, 4, (50, 3)), "room", "a", problems)
    assert not problems


TURN = np.array([[0.8, -0.6, 0, 1.5], [0.6, 0.8, 0, -2], [0, 0, 1, 0.3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (TURN.T, "column-major, its translation is in the last row (1.5 -2 0.3 1); transpose it"),
        (TURN * [[1], [1], [1], [2]], "the last row of pose is 0 0 0 2, expected 0 0 0 1"),
        (TURN * [1, -1, 1, 1], "mirrors (determinant -1)"),
        (TURN * [1, 1.1, 1, 1], "is not a rotation, it is 0.21 from orthonormal (columns of length 1 1.1 1)"),
        (TURN * np.nan, "is not a rotation"),
    ],
)
def test_a_matrix_that_is_not_rigid_is_refused(matrix: NDArray, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        value_checks.rigid(matrix, "a.txt", "pose")
    assert str(caught.value).startswith("a.txt: ") and reason in str(caught.value)
    assert value_checks.rigid(TURN, "a.txt", "pose") is TURN


K = np.array([[500.0, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (K.T, "transposed, their last row is 319.5 239.5 1; expected 0 0 1"),
        (-K, "focal lengths must be positive"),
        (K * [[4], [1], [1]], "not intrinsics of a camera"),
        (K * 2, "last row of the intrinsics is 0 0 2"),
    ],
)
def test_intrinsics_that_are_none_are_refused(matrix: NDArray, reason: str) -> None:
    with pytest.raises(DataError, match=r"k\.txt: ") as caught:
        value_checks.intrinsic(matrix, "k.txt")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((640, 480), ""),
        ((200, 150), "lies outside the picture"),
        ((1296, 968), "picture of another size (principal point 319.5, 239.5; focal length 500; picture 1296x968, expected about 640x480)"),
    ],
)  # fmt: skip
def test_intrinsics_are_those_of_the_picture(size: tuple[int, int], reason: str) -> None:
    problems: list[Problem] = []
    value_checks.check_camera(K, size, "k.txt", problems)
    assert bool(problems) == bool(reason) and reason in "".join(map(str, problems))
    value_checks.check_camera(K * [[0.001], [1], [1]], (640, 480), "k.txt", problems := [])
    assert problems


def test_poses_and_intrinsics_of_recordings(tmp_path: Path) -> None:
    """Transposed poses in one recording, a mirrored pose in the other."""

    def edit(root: Path) -> None:
        for path in (root / "room_a/pose").iterdir():
            np.savetxt(path, np.loadtxt(path).T)
        path = root / "room_b/pose/1.txt"
        np.savetxt(path, np.loadtxt(path) * [1, -1, 1, 1])

    _, manifest = ready("rgbd-folder", tmp_path / "poses", edit)
    assert [(s.name, s.frames) for s in manifest.scenes] == [("room_b", 2)]
    assert any("room_a is left out" in p for p in manifest.problems)
    assert any("room_b/pose/1.txt" in p and "determinant -1" in p for p in manifest.problems)
    for layout, file, change in (
        ("rgbd-folder", "room_a/intrinsic/intrinsic_depth.txt", lambda p: np.savetxt(p, np.loadtxt(p).T)),
        ("scannet", f"{SCENE}.sens", lambda p: stream(p, lambda a, _: a.T, random(), "intrinsic")),
        ("scannet", f"{SCENE}.sens", lambda p: stream(p, lambda a, _: a.T, random(), "pose")),
    ):
        with pytest.raises(DataError, match="transpose"):
            ready(
                layout,
                tmp_path / f"{layout}{change.__code__.co_consts}",
                lambda r, c=change, f=file: c(r / f),
                strict=True,
            )  # type: ignore[misc]


def test_files_whose_set_was_lost_are_named(tmp_path: Path) -> None:
    for layout, file, line in (
        (
            "semantickitti",
            f"{KITTI}/velodyne/000001.bin",
            "labels/000001.label: file of labels/ without a matching file in velodyne/",
        ),
        ("sunrgbd", f"{SUN}/depth/000001.mat", "000001.jpg: file of image/ without a matching file in depth/"),
        ("rgbd-folder", "room_a/color/1.png", "room_a/depth/1.png: file of depth/ without a matching file in color/"),
        ("semantickitti", f"{KITTI}/image_2/000001.png", "1 of 2 scans have no picture in image_2, first 00__000001"),
        ("scannet", f"{SCENE}.sens", "1 of 2 scenes have no recording (.sens), first scene0000_00"),
    ):
        root = tmp_path / Path(file).name
        _, manifest = ready(layout, root, lambda r, f=file: (r / f).unlink())  # type: ignore[misc]
        assert any(line in p for p in manifest.problems), manifest.problems


@pytest.mark.parametrize(("label", "problems"), [(70, 0), (71, 1)])
def test_plants_may_lie_below_a_road_and_trunks_may_not(label: int, problems: int, tmp_path: Path) -> None:
    """On a slope, most vegetation in a scan may be below the road."""
    root = write_kitti(tmp_path / "k", ("00/000000",))
    points = np.c_[np.random.default_rng(0).uniform(-9, 9, (50, 2)), np.repeat([-4.0, 0.0], 25), np.full(50, 0.5)]
    points[::2, 3] = 0.25
    points.astype("<f4").tofile(root / "dataset/sequences/00/velodyne/000000.bin")
    np.repeat([label, 40], 25).astype("<u4").tofile(root / "dataset/sequences/00/labels/000000.label")
    lines = prepared("semantickitti", root, tmp_path).manifest.problems
    assert len([line for line in lines if "z is not up: expected buildings, trunks" in line]) == problems
