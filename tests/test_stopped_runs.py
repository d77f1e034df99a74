"""Runs that are killed, interrupted or over a limit: recorded, and resumed to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import NANO, Bench, bench_command, run_records
from tests.nano_runs import artifact_hashes, command, run_whole

BOTH, ALONE = ("ours", "scratch"), ("scratch",)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "methods"), [(4.5, ALONE), *((moment, BOTH) for moment in (2.0, 6.5, 12.0))])
def test_kill_nine_at_any_moment_is_resumed(
    moment: float, methods: tuple[str, ...], roots: list[str], bench: Bench, tmp_path: Path
) -> None:
    runs, whole = tmp_path / "runs", run_whole(roots, tmp_path, methods)
    process = subprocess.Popen(
        bench_command(*command(roots, runs, methods=methods)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    process.kill()
    process.wait()
    for record in run_records(runs):
        assert record["outcome"] == "ok", "what is visible is whole"
    bench(*command(roots, runs, methods=methods))
    assert artifact_hashes(runs) == artifact_hashes(whole)
    assert not list(runs.glob(".partial/[!.]*"))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_killed_stage_is_recorded_as_crashed_and_retried_on_request(
    roots: list[str], bench: Bench, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    local = command(roots, runs, "--executor", "local", methods=("scratch",))
    process = subprocess.Popen(bench_command(*local), stderr=subprocess.PIPE, text=True)
    child = wait_for_child(runs)
    os.kill(child, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and "crashed: the stage ended by signal 9" in stderr
    (failed,) = run_records(runs)
    assert failed["outcome"] == "crashed" and failed["artifacts"] == {}
    assert f"its log: pretrain/{failed['key']}/log.txt in the folder of runs" in " ".join(stderr.split())
    shown = bench("show", failed["key"], "--runs", str(runs)).stdout
    assert "log.txt" in shown and "its last step" not in shown
    again = bench(*command(roots, runs, methods=("scratch",)), code=1)
    assert "crashed (reused)" in again.stdout and "--retry failed runs it again" in again.stderr
    report = bench("report", "--runs", str(runs))
    assert "Pre-training failed: scratch/init" in report.stdout
    bench(*command(roots, runs, "--retry", "failed", methods=("scratch",)))
    counted = next(r for r in run_records(runs) if r["stage"] == "init")
    assert (counted["outcome"], counted["attempt"]) == ("ok", 2)
    attempts = sorted((runs / "pretrain" / counted["key"]).glob("attempts/*/record.json"))
    assert [json.loads(p.read_text())["outcome"] for p in attempts] == ["crashed", "ok"]
    finetune = next(r for r in run_records(runs) if r["kind"] == "finetune")
    assert finetune["outcome"] == "ok" and finetune["metrics"]["miou_voxel_final"] is not None


def wait_for_child(runs: Path) -> int:
    """The process id of the stage that is running in a store."""
    for _ in range(600):
        noted = list(runs.glob(".partial/*/child.json"))
        if noted:
            try:
                return int(json.loads(noted[0].read_text())["pid"])
            except ValueError:
                pass
        time.sleep(0.05)
    raise AssertionError("no stage has started")


@pytest.mark.parametrize(
    ("number", "methods"),
    [
        pytest.param(signal.SIGINT, ALONE, id="ctrl-c", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, BOTH, id="kill in the background", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_or_kill_keeps_the_checkpoint_and_explains_how_to_resume(
    number: signal.Signals, methods: tuple[str, ...], roots: list[str], bench: Bench, tmp_path: Path
) -> None:
    def as_a_shell_does() -> None:
        # Background jobs ignore SIGINT, and the tests themselves may run in the background.
        signal.signal(signal.SIGINT, signal.SIG_IGN if number == signal.SIGTERM else signal.default_int_handler)

    runs = tmp_path / "runs"
    process = subprocess.Popen(
        bench_command(*command(roots, runs, "--workers", "1", methods=methods)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_a_shell_does,
    )
    wait_for_child(runs)
    for _ in range(1200):
        if any(b'"step"' in path.read_bytes() for path in runs.glob(".partial/*/root/out/events.jsonl")):
            break
        time.sleep(0.05)
    child = wait_for_child(runs)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.strip().splitlines()[-1].endswith("cancelled; the same command resumes from its last checkpoint")
    assert "Traceback" not in stderr and not Path(f"/proc/{child}").exists()
    assert list(runs.glob(".partial/*/root/out/checkpoint.pt")) and list(runs.glob(".partial/*/attempts/1/record.json"))
    bench(*command(roots, runs, methods=methods))
    assert artifact_hashes(runs) == artifact_hashes(run_whole(roots, tmp_path, methods))


def run_scratch(
    bench: Bench, roots: list[str], budget: Path, profile: Path, runs: Path, *more: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run scratch under a budget and a profile of the test."""
    named = ["--method", "scratch", "--task", "s3dis-sem", "--budget", str(budget), "--profile", str(profile)]
    return bench("run", *named, *roots, "--runs", str(runs), *more, code=code)


@pytest.mark.slow
def test_wall_time_ends_a_stage_softly_and_its_last_step_counts(roots: list[str], bench: Bench, tmp_path: Path) -> None:
    budget = tmp_path / "short.yaml"
    half = "{currency: optimizer_steps, optimizer_steps: 100000, wall_seconds: %s, grace_seconds: 60}"
    budget.write_text(f"name: short\nversion: 1\npretrain: {half % 20}\nfinetune: {half % 8}\n")
    profile = tmp_path / "long.yaml"
    text = (
        Path(NANO[3])
        .read_text()
        .replace("s3dis-sem: {steps: 4", "s3dis-sem: {steps: 100000")
        .replace("validate_every: 2", "validate_every: 5000")
    )
    profile.write_text(text)
    runs = tmp_path / "runs"
    run_scratch(bench, roots, budget, profile, runs, "--threads", "1")
    record = next(r for r in run_records(runs) if r["stage"] == "finetune")
    assert (record["outcome"], record["stopped"]) == ("ok", "soft_limit")
    assert 0 < record["ledger"]["optimizer_steps"] < 100000
    assert record["metrics"]["miou_voxel_final"] is not None


def test_memory_over_the_cap_is_oom_host(roots: list[str], bench: Bench, tmp_path: Path) -> None:
    budget = tmp_path / "small.yaml"
    half = "{currency: optimizer_steps, optimizer_steps: 4, memory_mib: 100}"
    budget.write_text(f"name: small\nversion: 1\npretrain: {half}\nfinetune: {half}\n")
    runs = tmp_path / "runs"
    done = run_scratch(bench, roots, budget, Path(NANO[3]), runs, code=1)
    assert "oom_host: stopped by its memory limit" in done.stderr
    assert [r["outcome"] for r in run_records(runs)] == ["oom_host"]
