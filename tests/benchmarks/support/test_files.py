from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.files import copy_tree, link_or_copy, notice_of_missing_links, symlink_or_copy
from tests.conftest import NANO, Bench


def test_links_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EACCES, errno.EMLINK])
def test_copies_where_it_cannot(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no links here")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x" and not os.path.samefile(tmp_path / "a", tmp_path / "b")


def test_a_full_disk_is_no_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        link_or_copy(tmp_path / "a", tmp_path / "b")


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **named: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("link", "symlink", "chmod", "utime"):
        monkeypatch.setattr(os, name, refuse)


def test_folders_are_linked_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    symlink_or_copy(tmp_path / "a", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and notice_of_missing_links(tmp_path, "hard", "symbolic") is None
    refuse_links(monkeypatch)
    symlink_or_copy(tmp_path / "a", tmp_path / "copy")
    symlink_or_copy(tmp_path / "a/b/c", tmp_path / "file")
    copy_tree(tmp_path / "a", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink() and (tmp_path / "copy/b/c").read_text() == "x"
    assert (tmp_path / "file").read_text() == "x"
    before = sorted(tmp_path.iterdir())
    notice = notice_of_missing_links(tmp_path, "hard", "symbolic")
    assert (
        notice
        == f"{tmp_path}: no hard or symbolic links on this file system; files are copied, which takes time and space"
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow  # in the fast set, the tests above
def test_a_run_without_links_says_so_once_and_gives_the_same(
    s3dis_root: Path, cache: Path, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = [
        "run",
        "--method",
        "scratch",
        "--task",
        "s3dis-sem",
        *NANO,
        "--threads",
        "1",
        "--data",
        f"s3dis={s3dis_root}",
        "--json",
    ]
    plain = json.loads(bench(*job, "--runs", "plain").stdout)
    refuse_links(monkeypatch)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    job.remove("--json")
    done = bench(*job, "--runs", "copied")
    assert done.stderr.count("no symbolic or hard links on this file system") == 1
    assert done.stderr.count("no hard links on this file system") == 1, "in the cache"
    (record,) = (tmp_path / "copied/finetune").glob("*/record.json")
    assert json.loads(record.read_text())["metrics"] == plain[-1]["record"]["metrics"]
