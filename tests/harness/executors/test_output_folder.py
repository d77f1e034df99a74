"""The owner can read and remove the output of a stage, whatever file modes it set."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from pretrain_bench.harness.executors.output_folder import plain_modes

LOCKED = """
import os, sys
from pathlib import Path
from pretrain_bench.harness.executors.output_folder import plain_modes
if os.getuid() == 0:
    os.setuid(12345)
out = Path(sys.argv[1]) / "own"
(out / "artifacts/deep").mkdir(parents=True)
(out / "artifacts/deep/a.npz").write_text("x")
for path in (out / "artifacts/deep/a.npz", out / "artifacts/deep", out / "artifacts", out):
    path.chmod(0)
plain_modes(out)
print((out / "artifacts/deep/a.npz").read_text())
"""


def test_modes_become_plain_and_links_are_not_followed(tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    (out / "artifacts").mkdir(parents=True)
    mine.write_text("x")
    mine.chmod(0o600)
    for name, mode in (("artifacts/a", 0o6777), ("b", 0)):
        (out / name).write_text("x")
        (out / name).chmod(mode)
    (out / "link").symlink_to(mine)
    os.link(mine, out / "other-name")
    (out / "artifacts").chmod(0o7000)
    plain_modes(out)
    modes = {p.name: stat.S_IMODE(p.lstat().st_mode) for p in out.rglob("*") if not p.is_symlink()}
    assert modes == {"artifacts": 0o755, "a": 0o644, "b": 0o644, "other-name": 0o600}
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600


def test_a_user_reads_what_a_stage_locked(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in list(tmp_path.parents)[:3]:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", LOCKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "x\n", done.stderr
