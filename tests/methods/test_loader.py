"""Prefetching of batches by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import synchronize

import numpy as np
import psutil
import pytest
import torch

from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.training import loader
from pretrain_bench.methods.training.loader import BATCHES_AHEAD, LoaderFailed, batches
from tests.conftest import REPOSITORY

CPU = torch.device("cpu")


def make(step: int) -> tuple[int, torch.Tensor, list[np.ndarray], int]:
    rng = np.random.default_rng(step)
    return step, torch.from_numpy(rng.normal(size=5)), [rng.integers(0, 9, 3)], torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing_but_the_process(workers: int) -> None:
    alone, ahead = list(batches(make, range(4, 11), 0, CPU)), list(batches(make, range(4, 11), workers, CPU))
    assert [b[0] for b in ahead] == [b[0] for b in alone] == list(range(4, 11))
    for one, two in zip(alone, ahead, strict=True):
        assert (
            torch.equal(one[1], two[1]) and isinstance(two[2][0], np.ndarray) and np.array_equal(one[2][0], two[2][0])
        )
        assert two[3] == 1, "a worker computes alone"
    assert list(batches(make, range(3, 3), workers, CPU)) == []


def test_an_error_of_ours_comes_through_as_it_is() -> None:
    def broken(step: int) -> int:
        if step == 2:
            raise DataError("scene/xyz.npy: no such file")
        return step

    others = set(multiprocessing.active_children())
    for workers in (0, 2):
        seen = []
        with pytest.raises(DataError, match=r"^scene/xyz\.npy: no such file$") as caught:
            for batch in batches(broken, range(5), workers, CPU):
                seen.append(batch)
        assert seen == [0, 1]
        assert set(multiprocessing.active_children()) <= others, "workers end at once, also while the error is held"
        del caught


@pytest.mark.slow
def test_workers_run_ahead_by_a_bounded_number_and_end_with_the_loop(tmp_path) -> None:
    def leave_a_mark(step: int) -> int:
        (tmp_path / str(step)).touch()
        return os.getpid()

    ahead = batches(leave_a_mark, range(100), 2, CPU)
    worker = next(ahead)
    time.sleep(0.5)
    assert worker != os.getpid()
    assert 2 <= len(list(tmp_path.iterdir())) <= 1 + 2 * BATCHES_AHEAD + 1
    del ahead
    for _ in range(100):
        if not psutil.pid_exists(worker):
            break
        time.sleep(0.05)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_a_soft_stop_of_the_whole_group_does_not_kill_the_workers() -> None:
    """The executor sends SIGTERM to the process group; the loop ends by itself, with complete batches."""
    code = """
import os, signal, time, torch
from pretrain_bench.methods.training.loader import batches
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
for batch in batches(lambda step: step, range(100000), 2, torch.device("cpu")):
    if batch == 5:
        print("ready", flush=True)
    time.sleep(0.01)
    if stop:
        print("stopped at", batch, flush=True)
        break
print("whole")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"
    os.killpg(process.pid, signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and out.splitlines()[-1] == "whole", errors


def test_a_worker_that_hangs_or_is_killed_ends_the_loop_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    workers: list[int] = []

    def first_then(action: str) -> None:
        def broken(step: int) -> int:
            if step:
                time.sleep(600 if action == "hang" else 0.3)  # the first batch is being prepared meanwhile
                os.kill(os.getpid(), signal.SIGKILL)
            return os.getpid()

        for batch in batches(broken, range(3), 1, CPU):
            workers.append(batch)

    with pytest.raises(LoaderFailed, match=r"^step 2: a loader worker was killed, perhaps for lack of memory: "):
        first_then("die")
    monkeypatch.setattr(loader, "MAX_WAIT_SECONDS", 1.0)
    with pytest.raises(LoaderFailed, match=r"^step 2: no batch for 1 s: a loader worker hangs; "):
        first_then("hang")
    assert len(workers) == 2
    for worker in workers:
        assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_batches_take_no_shared_memory() -> None:

    def big(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((1 << 20,), float(step)), torch.full((4, 4), step, dtype=torch.bfloat16).t()

    for number, (dense, turned) in enumerate(batches(big, range(4), 2, CPU)):
        assert dense[-1] == number and turned.dtype == torch.bfloat16 and turned[0, 0] == number
        assert turned.stride() == (1, 4), "laid out as without workers"
        assert not dense.is_shared() and not turned.is_shared()


def test_without_semaphores_the_loop_prepares_its_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synchronize.SemLock, "__init__", none_left)
    warnings: list[str] = []
    made = list(batches(lambda step: os.getpid(), range(3), 2, CPU, warnings.append))
    assert made == [os.getpid()] * 3
    assert warnings == ["loader workers cannot be started (No space left on device): each step waits for its batch"]
