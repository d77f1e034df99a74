"""A folder on a file system of limited size: its files are copied back, also after a kill."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.harness.executors import disk_quota as limited
from pretrain_bench.harness.executors.disk_quota import can_limit, recover, size_limited

MIB = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file; skips if this user may not mount."""
    out = tmp_path / "out"
    (out / "inner").mkdir(parents=True)
    (out / "inner/before").write_text("kept")
    if not can_limit():
        pytest.skip("mounting takes root")
    with size_limited(out, MIB) as mounted:
        if not mounted:
            pytest.skip("this machine has no loop devices")
    assert not os.path.ismount(out)
    return out


def left(folder: Path) -> list[str]:
    """Files left beside the folder afterwards."""
    return sorted(p.name for p in folder.parent.iterdir())


def test_it_comes_back_as_it_was_left(folder: Path) -> None:
    with size_limited(folder, MIB) as mounted:
        assert mounted and os.path.ismount(folder)
        assert (folder / "inner/before").read_text() == "kept", "what an earlier attempt left is there"
        assert not (folder / "lost+found").exists()
        (folder / "inner/before").unlink()
        (folder / "after").write_bytes(b"x" * 1000)
        os.link(folder / "after", folder / "twice")
    assert not os.path.ismount(folder) and left(folder) == ["out"]
    assert sorted(p.name for p in folder.rglob("*")) == ["after", "inner", "twice"]
    assert (folder / "after").stat().st_nlink == 2, "names stay what they were"


def test_it_cannot_grow(folder: Path) -> None:
    with size_limited(folder, MIB), pytest.raises(OSError) as full, (folder / "big").open("wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    assert full.value.errno == errno.ENOSPC
    assert list(folder.iterdir()) == [], "more than its cap does not come back"


def test_a_file_with_holes_does_not_come_back(folder: Path) -> None:
    with size_limited(folder, MIB), (folder / "holes").open("wb") as file:
        file.truncate(1 << 40)
    assert list(folder.iterdir()) == []


def test_what_cannot_be_copied_back_stays_for_the_next_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""
    with pytest.raises(EnvironmentCannot, match="because the disk is full"), size_limited(folder, MIB):
        (folder / "checkpoint").write_text("step 7")
        monkeypatch.setattr(limited, "_succeeds", lambda *command: False)
    monkeypatch.undo()
    recover(folder)
    assert (folder / "checkpoint").read_text() == "step 7" and left(folder) == ["out"]


@pytest.mark.parametrize("unmounted", [False, True])
def test_after_a_kill_it_is_found_again(folder: Path, unmounted: bool) -> None:
    """After a kill inside the block, even if the machine was rebooted since."""
    code = (
        "import os, signal, sys; from pathlib import Path; from pretrain_bench.harness.executors.disk_quota import size_limited\n"
        f"folder = Path(sys.argv[1])\nwith size_limited(folder, {MIB}):\n"
        "    (folder / 'checkpoint').write_text('step 7'); os.sync(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == -9
    assert os.path.ismount(folder)
    if unmounted:
        subprocess.run(["umount", str(folder)], check=True)
        assert not (folder / "checkpoint").exists()
    recover(folder)
    assert not os.path.ismount(folder) and left(folder) == ["out"]
    assert (folder / "checkpoint").read_text() == "step 7" and (folder / "inner/before").read_text() == "kept"
    recover(folder)
    assert left(folder) == ["out"], "nothing to do leaves nothing behind"
