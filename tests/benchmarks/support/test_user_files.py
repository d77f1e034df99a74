"""Files that operating systems leave in folders, and texts that are not UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.datasets.layouts.registry import READERS
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.files import replacing
from pretrain_bench.benchmarks.support.user_files import by_lower_name, decode, list_folder, read_text
from pretrain_bench.harness.planning.catalog import find

SYSTEM = ("._wall_1.txt", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "lost+found")


def test_files_of_the_system_are_passed_over_and_suffixes_have_any_case(tmp_path: Path) -> None:
    for name in (*SYSTEM, "b.TXT", "a.txt", "c.png"):
        (tmp_path / name).write_text("")
    assert [p.name for p in list_folder(tmp_path)] == ["a.txt", "b.TXT", "c.png"]
    assert [p.name for p in list_folder(tmp_path, ".txt")] == ["a.txt", "b.TXT"]
    assert by_lower_name(tmp_path)["b.txt"].name == "b.TXT"
    assert list_folder(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied; make it readable"):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")],
)
def test_other_encodings_are_named(encoding: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("1.0 2.0 3.0\n" * 5, encoding=encoding)
    with pytest.raises(DataError, match=rf"x\.txt: the text is encoded in {named}; save it in UTF-8"):
        read_text(path)


def test_latin_1_is_named_with_its_line_and_a_byte_order_mark_is_passed_over() -> None:
    with pytest.raises(DataError, match="line 2: byte 0xf6 is not UTF-8"):
        decode("a\nGröße\n".encode("latin-1"), Path("x.txt"))
    assert decode("\ufeffGröße".encode(), Path("x.txt")) == "Größe"


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "folder"):
        pass
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["folder"]
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "x").read_text() == "whole" and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("s3dis", "Area_1/office_1/Annotations"),
        ("scannet", "scans/scene0000_00"),
        ("semantickitti", "sequences/00/velodyne"),
        ("sunrgbd", "sunrgbd_trainval/depth"),
    ],
)
def test_a_root_that_is_a_folder_too_high_or_too_low_is_named(name: str, inside: str, tmp_path: Path) -> None:
    (tmp_path / "a/b" / inside).mkdir(parents=True)
    find_scenes = READERS[name].find
    dataset = find(Dataset, name)
    with pytest.raises(DataError, match=rf"below it; give {tmp_path}/a/b, which holds some$"):
        find_scenes(dataset, tmp_path)
    low = tmp_path / "a/b" / Path(inside).parts[0] / "empty"
    low.mkdir()
    with pytest.raises(DataError, match=rf"; give {tmp_path}/a/b(/scans)?, which holds some$"):
        find_scenes(dataset, low)
