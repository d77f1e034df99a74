from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import s3dis
from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.planning.catalog import find
from tests.conftest import SHARED

DATASET = find(Dataset, "s3dis")


def room(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.encode("latin-1"))
    return folder


def read(folder: Path, strict: bool = False) -> s3dis.Room:
    return s3dis.read_room(folder, DATASET.raw_classes, DATASET.classes, strict)


def test_classes_instances_and_lowest_point_of_a_voxel(tmp_path: Path) -> None:
    folder = room(
        tmp_path,
        wall_1="0.001 0 0 1 2 3\n0.002 0 0 9 9 9\n1 1 1 4 5 6\n",
        chair_2="2 2 2 7 8 9\n1.004 1.004 1.004 0 0 0\n",
        stairs_1="3 3 3 1 1 1\n",
    )
    found = read(folder)
    # Files in sorted order: chair, stairs, wall. The voxel at (1, 1, 1) m contains chair and wall, so its label is ignored.
    # Points are sorted by voxel, so their order does not reveal the files.
    assert found.rgb.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1]]
    chair, wall = DATASET.classes.index("chair"), DATASET.classes.index("wall")
    assert found.semantic.tolist() == [wall, IGNORE, chair, IGNORE]
    assert found.instance.tolist() == [2, 2, 0, 1]
    assert found.problems == []


@pytest.mark.parametrize(
    "line",
    [
        "1 2 3 4 5 x6",
        "1 2 3 4 5",
        "1 2 3 4 5 6 7",
        "1 2 3 185\x10187 5",
        "nan 1 2 3 4 5",
        "1 2 inf 3 4 5",
        "1 2 3 4 5 6 7 8 9 1 2 3",
    ],
)
def test_a_bad_line_costs_one_point_and_is_named(tmp_path: Path, line: str) -> None:
    folder = room(tmp_path / "Area_1" / "r" / "Annotations", wall_1=f"0 0 0 1 2 3\n{line}\n1 1 1 1 2 3\n")
    found = read(folder)
    assert len(found.xyz) == 2
    (problem,) = found.problems
    assert problem.startswith(f"{folder / 'wall_1.txt'}, line 2: ") and "is not six numbers" in problem
    with pytest.raises(DataError, match=r"wall_1\.txt, line 2"):
        read(folder, strict=True)


@pytest.mark.parametrize(
    "text", ["0 0 0 1 2 3\r\n1 1 1 1 2 3\r\n", "0 0 0 1 2 3 \n1 1 1 1 2 3", "0\t0\t0\t1\t2\t3\n\n1 1 1 1 2 3\n"]
)
def test_harmless_spellings(tmp_path: Path, text: str) -> None:
    found = read(room(tmp_path, wall_1=text))
    assert found.rgb.tolist() == [[1, 2, 3], [1, 2, 3]] and not found.problems


def test_a_file_that_ends_within_a_line_was_cut_off(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wall_1\.txt, line 2: the file ends within a line"):
        read(room(tmp_path, wall_1="0 0 0 1 2 3\n1 1 1"))


def test_many_bad_lines_are_no_typing_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 10 bad lines"):
        read(room(tmp_path, wall_1="0 0 0 1 2 3\n" + "oops\n" * 20))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"wall_1": ""}, "empty"),
        ({"wall_1": "a\n"}, "no line of six numbers"),
        ({"piano_1": "0 0 0 1 2 3\n"}, "'piano'"),
        ({}, "no annotation file"),
    ],
)
def test_unusable_rooms(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(room(tmp_path, **files))


def test_coordinates_that_cannot_be_metres(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than can be numbered; check the voxel size.*coordinates are metres"):
        read(room(tmp_path, wall_1="0 0 0 1 2 3\n1e7 1e7 1e7 1 2 3\n"))


def test_no_room_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no S3DIS room found; expected Area_"):
        s3dis.find_rooms(tmp_path)


def test_the_slow_path_reads_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    table = np.concatenate([rng.uniform(-30, 30, (500, 3)).round(3), rng.integers(0, 256, (500, 3))], axis=1)
    path = tmp_path / "wall_1.txt"
    np.savetxt(path, table, fmt="%.3f %.3f %.3f %d %d %d")
    quick, none = s3dis.read_points(path)
    slow, _ = s3dis._read_line_by_line(path, path.read_bytes(), strict=True)
    assert (quick == slow).all() and np.array_equal(quick, table) and not none


def test_real_rooms() -> None:
    root = SHARED / "realdata/s3dis"
    if not root.is_dir():
        pytest.skip("needs the real S3DIS sample (../shared/realdata), which the project may not carry")
    rooms = s3dis.find_rooms(root)
    assert len(rooms) == 4
    found = read(rooms["Area_5", "conferenceRoom_1"], strict=True)
    assert len(set(found.semantic.tolist()) - {IGNORE}) == 9
    assert np.ptp(found.xyz, axis=0).max() < 30
