"""PyTorch files are measured before torch unpacks them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretrain_bench.benchmarks.input.annotations import read_label_rows
from pretrain_bench.benchmarks.support import archives
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.imported.reading import read_checkpoint


@pytest.mark.parametrize("read", [read_checkpoint, read_label_rows])
def test_a_small_file_that_unpacks_to_much_is_refused_with_both_sizes(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 1 << 20)
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"scene": torch.zeros(1 << 19, dtype=torch.int64)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    read(plain)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(DataError, match=rf"its {packed.stat().st_size:,} bytes unpack to 4,19\d,\d\d\d"):
        read(packed)


@pytest.mark.parametrize("read", [read_checkpoint, read_label_rows])
def test_an_archive_that_cannot_be_listed_is_refused(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python does not list members that need a later zip version; torch ignores the version."""
    path = tmp_path / "later.pth"
    torch.save({"scene": torch.zeros(4, dtype=torch.int64)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99  # version needed to extract
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(DataError, match="its list of members cannot be read"):
        read(path)
