"""Untrusted files: only regular files are opened, without following links, and reads are bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from pretrain_bench.benchmarks.specs.base import FileName
from pretrain_bench.benchmarks.support.foreign_files import (
    is_plain,
    open_plain,
    plain_size_and_sha256,
    read_json,
    read_plain,
    remove_plain,
)


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"x": 1}')
    assert read_json(path, below=tmp_path) == {"x": 1} and read_plain(path, 8) == b'{"x": 1}'
    assert is_plain(path, tmp_path) and plain_size_and_sha256(path, tmp_path, 8)[0] == 8
    remove_plain(path, tmp_path)
    remove_plain(path, tmp_path)
    assert not path.exists()


def test_nothing_else_is(tmp_path: Path) -> None:
    private = tmp_path / "home/private"
    private.parent.mkdir()
    private.write_text("secret")
    root = tmp_path / "runs"
    root.mkdir()
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    (root / "link").symlink_to(private)
    (root / "zero").symlink_to("/dev/zero")
    (root / "inner").symlink_to(private.parent)
    for name in ("pipe", "folder", "link", "zero", "inner/private", "../home/private"):
        path = root / name
        assert not is_plain(path, root) or name.startswith(".."), name
        with pytest.raises((OSError, ValueError)):
            read_plain(path, below=root)
        with pytest.raises((OSError, ValueError)):
            plain_size_and_sha256(path, root, 100)
    for name in ("inner/private", "../home/private"):
        with pytest.raises((OSError, ValueError)):
            remove_plain(root / name, root)
    assert private.read_text() == "secret"
    with pytest.raises(OSError, match="not a plain file"):
        open_plain(Path("/dev/zero"))


def test_sizes_are_capped_before_the_content_is_read(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_plain(sparse, 1000)
    assert plain_size_and_sha256(sparse, tmp_path, 1000) == (1 << 40, ""), "not hashed either"
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="recursion"):
        read_json(deep)


def test_names_stay_below_their_folder() -> None:
    names: TypeAdapter[str] = TypeAdapter(FileName)
    for good in ("backbone.safetensors", "predictions/final/Area_5 hall.npz", "..a", "ünïcode"):
        assert names.validate_python(good) == good
    for bad in ("", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "a\\b", "a\nb", "\x1b[2J", "x" * 1025):
        with pytest.raises(ValidationError):
            names.validate_python(bad)
