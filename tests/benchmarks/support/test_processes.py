from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import synchronize

import psutil
import pytest

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot
from pretrain_bench.benchmarks.support.processes import process_pool
from tests.conftest import REPOSITORY


def test_workers_end_with_a_parent_that_is_killed() -> None:
    code = """
import os, time
from pretrain_bench.benchmarks.support.processes import process_pool
with process_pool(2) as pool:
    print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(p) for p in parent.stdout.readline().split()]
    assert workers and all(psutil.pid_exists(p) for p in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_worker_that_is_killed_is_named() -> None:
    with pytest.raises(EnvironmentCannot, match="a worker process was killed"), process_pool(1) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_without_semaphores_the_error_names_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synchronize.SemLock, "__init__", none_left)
    with (
        pytest.raises(EnvironmentCannot, match=r"cannot be started: No space left on device; .*/dev/shm must"),
        process_pool(2),
    ):
        pass
