from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.files import link_or_copy


def test_links_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV])
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
