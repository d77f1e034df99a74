"""A suite of sleeping stages through the real scheduler, executor and store, with faults. `make verify-faults` runs longer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pretrain_bench.harness.executors.bubblewrap import why_not
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.store import Store
from tests.conftest import Bench
from tests.faults import injection
from tests.faults.suite import SLEEPER, planned
from tests.verification.report import ROOT

SEED = 20261123


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TEST_SLEEP", "0.3")


@pytest.mark.slow  # in the fast set, tests/harness/executors/test_warm_python.py kills a harness and a stage
@pytest.mark.parametrize(
    ("executor", "times"),
    [("local", 3), pytest.param("bubblewrap", 2, marks=pytest.mark.skipif(bool(why_not()), reason=why_not()))],
)
def test_killed_at_random_moments(
    executor: str, times: int, s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_EXECUTOR", executor)
    print(f"seed {SEED}")
    assert sum(injection.kill_at_random(tmp_path, s3dis_root, times=times, seed=SEED).values()) == times
    assert injection.finish(tmp_path / "store0", s3dis_root).split() == ["30", "30"], "nothing is left to do"


@pytest.mark.slow
def test_two_processes_share_a_suite(s3dis_root: Path, tmp_path: Path) -> None:
    both = [injection.start(tmp_path, s3dis_root, "2") for _ in range(2)]
    outputs = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    reused = [int(out.split()[1]) for out, _ in outputs]
    assert sum(30 - r for r in reused) == 30 and min(30 - r for r in reused) > 0, "each ran some, together each once"
    injection.check_whole(tmp_path)


@pytest.mark.slow
def test_two_interruptions_leave_a_whole_store(s3dis_root: Path, tmp_path: Path) -> None:
    planned(str(s3dis_root))  # data are prepared, so that a stage is interrupted
    code, message = injection.interrupt_twice(tmp_path, s3dis_root)
    # The second may arrive after everything is written, when the exiting Python has restored the default handler.
    assert code in (1, -signal.SIGINT) and "the same command resumes" in message, message
    injection.finish(tmp_path, s3dis_root)
    injection.check_whole(tmp_path)


def test_two_interruptions_while_data_are_prepared(
    s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second arrives while the first waits for the workers; no process keeps waiting, and the same command resumes."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    command = [
        sys.executable, "-m", "pretrain_bench.harness.cli.app", "run", "--method", "scratch", "--task", "s3dis-sem", "--budget", "smoke",
        "--data", f"s3dis={s3dis_root}", "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    injection.wait_for_a_stage(process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers and not (tmp_path / "runs").exists(), "data are being prepared, no stage runs yet"
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (1, -signal.SIGINT), error
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive and gone


@pytest.mark.slow
def test_rubbish_in_the_store_hurts_nobody(s3dis_root: Path, tmp_path: Path, bench: Bench) -> None:
    process = injection.start(tmp_path, s3dis_root)
    injection.wait_for_a_stage(process)
    time.sleep(0.7)
    process.kill()
    process.communicate()
    injection.plant_rubbish(tmp_path)
    injection.finish(tmp_path, s3dis_root)
    links = chain.read(tmp_path)
    assert links is not None and not links.faults, "the half line was cut off"
    text = bench("status", "--runs", str(tmp_path)).stdout
    assert "interrupted" in text and "30 ok" in text
    bench("clean", "--abandoned", "--runs", str(tmp_path))
    assert "nothing runs" in bench("status", "--runs", str(tmp_path)).stdout
    injection.check_whole(tmp_path)


def test_a_jump_of_the_clock_ends_nothing(s3dis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, real = time.monotonic(), time.time

    def jumping() -> float:
        return real() + (86400 * 365 if int((time.monotonic() - began) * 5) % 2 else -86400)

    monkeypatch.setattr(time, "time", jumping)
    cells = planned(str(s3dis_root), seeds=1)[:3]
    runner = StageRunner(Store(tmp_path), LocalExecutor(SLEEPER), Silent(), RunOptions())
    reports = run_cells(cells, runner, Capacity(4, 1 << 20))
    assert {r.record.outcome for r in reports} == {"ok"}
    assert all(0 <= r.record.measured.wall_seconds < 60 for r in reports)


@pytest.mark.slow
def test_killed_between_the_chain_and_the_rename(s3dis_root: Path, tmp_path: Path) -> None:
    """A moment that random kills rarely hit: after a run was added to the chain, before it was renamed into place."""
    code = (
        "import os, sys\n"
        "from pretrain_bench.harness.store import store\n"
        "real = store.Store._publish\n"
        "def stop(self, kind, key):\n    os.kill(os.getpid(), 9)\n"
        "store.Store._publish = stop\n"
        "import tests.faults.suite as suite\n"
        f"sys.argv = ['suite', {str(tmp_path)!r}, {str(s3dis_root)!r}]\n"
        "suite.main()\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=injection.REPOSITORY, capture_output=True, check=False)
        assert done.returncode == -9
    assert list(tmp_path.glob(".partial/*/complete-*"))
    injection.finish(tmp_path, s3dis_root)
    injection.check_whole(tmp_path)
