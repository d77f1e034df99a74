"""Unreadable files are named, and never treated as empty or reported as unwritable."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain_bench.benchmarks.datasets import writers
from pretrain_bench.benchmarks.support import reading
from pretrain_bench.benchmarks.support.errors import BenchError, DataError, EnvironmentCannot
from tests.tiny_data import TEST, TRAIN, prepared, write_kitti, write_scannet

WRITERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "scannet": (write_scannet, f"scans/{TRAIN[1]}"),
    "semantickitti": (write_kitti, "dataset/sequences/00"),
}


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> None:
    """The folder exists, but the system refuses to list it."""
    scandir = os.scandir

    def listing(path: str | Path | int = ".") -> object:
        if not isinstance(path, int) and Path(path) == folder:
            raise OSError(number, os.strerror(number), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_cannot_be_listed_is_an_error(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, below = WRITERS[name]
    root = write(tmp_path / "data")
    refuse(monkeypatch, root / below, number)
    with pytest.raises(DataError) as caught:
        prepared(name, root, tmp_path / "cache")
    text = str(caught.value)
    assert text.startswith(f"{root / below}: cannot be read: {os.strerror(number)}")
    assert "written" not in text and "cache" not in text
    advice = {errno.EACCES: "make it readable", errno.ESTALE: "mount it again"}.get(number, "")
    assert advice in text


def test_a_link_to_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    root = write_scannet(tmp_path / "data", (TRAIN[0],))
    (root / "scans" / TRAIN[1]).symlink_to("/mnt/not-mounted/scene")
    with pytest.raises(DataError, match=f"{TRAIN[1]}: a link to /mnt/not-mounted/scene, which does not exist"):
        prepared("scannet", root, tmp_path / "cache")


def test_a_file_that_fails_while_it_is_read_leaves_its_scene_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_scannet(tmp_path / "data", (TRAIN[0], TEST[0]), frames=True)
    picture, whole = root / "scans" / TRAIN[0] / "color/1.jpg", Path.read_bytes

    def read(path: Path) -> bytes:
        if path == picture:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    monkeypatch.setattr(writers.images, "decode_colour", lambda *_: noise)  # it would run into the error first
    monkeypatch.setattr(writers.images, "colour_bits", lambda _: 8)
    data = prepared("scannet", root, tmp_path / "cache")
    assert data.scenes == (TEST[0],)
    assert data.manifest.problems == (
        f"scene {TRAIN[0]} is left out: scans/{TRAIN[0]}/color/1.jpg: cannot be read: Input/output error",
    )


def test_an_error_is_one_of_reading_or_of_writing(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "cache/prepared/x"
    target.parent.mkdir(parents=True)

    def kind(number: int, name: Path | None) -> type[BenchError]:
        error = OSError(number, os.strerror(number), *([str(name)] if name else []))
        return type(reading.read_or_write_error(error, source, target, "preparing"))

    assert kind(errno.EACCES, source / "a.txt") is DataError
    assert kind(errno.EACCES, target / "a.npy") is EnvironmentCannot
    assert kind(errno.EIO, None) is DataError, "the cache can be written"
    assert kind(errno.ENOSPC, None) is EnvironmentCannot
    inside = source / "cache/prepared/x"
    error = OSError(errno.EACCES, "no", str(inside / "a.npy"))
    assert type(reading.read_or_write_error(error, source, inside, "preparing")) is EnvironmentCannot
