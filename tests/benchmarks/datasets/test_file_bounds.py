"""Small files that would expand in memory, never end, or lead out of their folder are refused first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pretrain_bench.benchmarks.datasets import images, sunrgbd
from pretrain_bench.benchmarks.datasets.check import verify
from pretrain_bench.benchmarks.datasets.layout import MANIFEST, FileEntry, Manifest, SceneEntry, read_manifest
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.benchmarks.support.user_files import MOST_TEXT_BYTES, read_text


def test_a_picture_is_measured_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 100_000
    for decode in (images.decode_colour, images.decode_depth):
        with pytest.raises(DataError, match="the picture is 13000x13000, expected at most 50,000,000 pixels"):
            decode(path, "large.png")


def test_a_matlab_file_is_measured_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "000001.mat"
    savemat(path, {"instance": np.zeros((1 << 18, 1))}, do_compression=True)
    assert path.stat().st_size < 10_000 and len(sunrgbd.load_mat(path, "instance")) == 1 << 18
    monkeypatch.setattr(sunrgbd, "MOST_MAT_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"000001\.mat: unpacks to more than 1 MiB"):
        sunrgbd.load_mat(path, "instance")


def test_a_text_of_numbers_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "pose.txt"
    path.write_bytes(b"")
    os.truncate(path, MOST_TEXT_BYTES + 1)
    with pytest.raises(DataError, match=r"pose\.txt: a text of 67,108,865 bytes; expected a file of at most 64 MiB"):
        read_text(path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: not a plain file"):
        read_text(tmp_path / "pipe.txt")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_among_prepared_files_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "unlabelled/room/xyz.npy"
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    entry = FileEntry(bytes=1, sha256="0")
    manifest = Manifest(dataset="s3dis", synthetic=False, scenes=(), files={"unlabelled/room/xyz.npy": entry})
    assert verify(tmp_path, manifest, lambda items: items) == [
        "unlabelled/room/xyz.npy: cannot be read: not a plain file"
    ]


@pytest.mark.parametrize("name", ["../../planted", "/planted", "a/b", "..", ""])
def test_a_scene_of_prepared_data_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    entry = SceneEntry(name="room").model_copy(update={"name": name})
    manifest = Manifest(dataset="s3dis", synthetic=False, scenes=(), files={}).model_copy(update={"scenes": (entry,)})
    (tmp_path / MANIFEST).write_text(manifest.model_dump_json())
    with pytest.raises(DataError, match=r"manifest\.json: not a manifest of this version"):
        read_manifest(tmp_path)
