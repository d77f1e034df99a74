"""Ownership on a shared file system: taken over only from an owner known to be gone, by a single process, and never published
after it was lost. Other machines are owner files with another host and boot, as this machine sees them."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.locks import exclusive, holder, owner_file


def elsewhere(path: Path, seconds: float = 0, **changes: object) -> Path:
    """An owner file of another machine, last touched `seconds` ago."""
    owner = ownership._this_process().model_copy(
        update={"host": "n7", "boot": "other", "pid": os.getpid(), "token": "t", **changes}
    )
    path.write_text(owner.model_dump_json())
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.mark.parametrize(
    ("seconds", "answers", "job", "ended", "gone"),
    [
        (0, False, None, False, False),
        (1000, True, None, False, False),
        (1000, False, None, False, True),
        (60, False, "slurm:3", True, True),
        (60, False, "slurm:3", False, False),
        (5, False, "slurm:3", True, False),
        (1000, True, "slurm:3", True, True),
    ],
)
def test_another_machines_owner_is_replaced_only_when_it_is_known_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, answers: bool, job: str, ended: bool, gone: bool
) -> None:
    monkeypatch.setattr(ownership, "_answers", lambda host, period: answers)
    path = elsewhere(tmp_path / "lock.owner", seconds, job=job)
    assert (ownership.owner(path, lambda name: ended and name == "slurm:3") is None) == gone
    by = ownership.claim(path, lambda name: ended)
    assert (by is None) == gone and (gone or "n7, pid" in str(by))
    assert (ownership._read(path).token == "t") != gone  # type: ignore[union-attr]
    ownership.release(path)
    assert path.exists() != gone


def test_on_this_machine_the_process_decides_however_old_its_heartbeat_is(tmp_path: Path) -> None:
    path = tmp_path / "lock.owner"
    code = "import sys; from pathlib import Path; from pretrain_bench.benchmarks.support import ownership as o;" \
        "print(o.claim(Path(sys.argv[1])), flush=True); sys.stdin.read()"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"None\n"
    os.utime(path, (1, 1))
    assert f"pid {process.pid}" in str(ownership.claim(path)) and f"remove {path}" in str(ownership.owner(path))
    process.kill()
    process.communicate()
    assert ownership.owner(path) is None and ownership.claim(path) is None
    ownership.release(path)
    assert not path.exists()


def test_an_owner_from_before_the_machine_started_again_is_gone(tmp_path: Path) -> None:
    here = ownership._this_process().host
    assert ownership.owner(elsewhere(tmp_path / "lock.owner", host=here)) is None


def test_a_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(ownership, "_hearts", ownership._Hearts())
    path = tmp_path / "lock.owner"
    assert ownership.claim(path) is None
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 20
    while path.stat().st_mtime < 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ownership.release(path)


def test_what_was_taken_over_is_not_published(tmp_path: Path) -> None:
    path = tmp_path / "lock.owner"
    assert ownership.claim(path) is None
    ownership.check_owned(path)
    elsewhere(path)
    with pytest.raises(EnvironmentCannot, match="another one took over its stage \\(n7"):
        ownership.check_owned(path)
    ownership.release(path)
    assert path.exists(), "the file of the new owner stays"


def _contend(folder: Path, rounds: int) -> None:
    """Take the lock repeatedly without flock, and fail if another process holds it at the same time."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    fcntl.flock = unsupported  # type: ignore[assignment]
    for _ in range(rounds):
        with exclusive(folder / "lock"):
            inside = folder / "inside"
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            count = folder / "count"
            count.write_text(str(int(count.read_text()) + 1))
            inside.unlink()


def test_one_at_a_time_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "count").write_text("0")
    elsewhere(
        owner_file(tmp_path / "lock"), host=ownership._this_process().host
    )  # a dead owner that all of them try to replace
    monkeypatch.setattr("pretrain_bench.benchmarks.support.locks.WAIT_SECONDS", 0.001)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_contend, args=(tmp_path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers] == [0, 0, 0] and (tmp_path / "count").read_text() == "60"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "lock"]


def test_an_owner_on_another_machine_holds_the_lock(tmp_path: Path) -> None:
    elsewhere(owner_file(tmp_path / "lock"))
    (tmp_path / "lock").touch()
    assert "n7" in str(holder(tmp_path / "lock"))
    reported: list[str] = []

    def waiting(by: str) -> None:
        reported.append(by)
        owner_file(tmp_path / "lock").unlink()

    with exclusive(tmp_path / "lock", waiting):
        pass
    assert len(reported) == 1 and "n7" in reported[0]


def test_a_lock_of_this_machine_tells_of_processes_in_other_containers(tmp_path: Path) -> None:
    """Their host names and process ids mean nothing here, but if they still ran they would hold the lock."""
    path = elsewhere(tmp_path / "lock.owner", boot=ownership._boot(), namespace="pid:[1]")
    assert ownership.owner(path) == str(ownership._read(path))
    assert ownership.owner(path, locked_here=True) is None
    assert ownership.claim(path) is not None
    assert ownership.claim(path, locked_here=True) is None
    ownership.release(path)


def test_a_pipe_in_place_of_an_owner_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock.owner"
    os.mkfifo(path)
    assert ownership.claim(path) == "another process"


@pytest.mark.parametrize("unnamed", [True, False])
def test_an_owner_file_is_never_seen_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    """If the system supports unnamed files, a kill between creating and writing leaves nothing; elsewhere readers wait."""
    if not unnamed:
        monkeypatch.setattr(ownership, "_link_new", lambda path, content: (_ for _ in ()).throw(OSError("not here")))

    def killed(*arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.write" if unnamed else "builtins.open", killed)
        with pytest.raises(KeyboardInterrupt):
            ownership.claim(tmp_path / "lock.owner")
    assert (tmp_path / "lock.owner").exists() != unnamed
    assert (ownership.claim(tmp_path / "lock.owner") is None) == unnamed
    ownership.release(tmp_path / "lock.owner")
