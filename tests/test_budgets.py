"""Runs under currencies that are counted during training, from the command line to the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NANO, Bench, run_records

FLOPS = 3e8


def budget(path: Path, currency: str, amount: float) -> list[str]:
    """Options for a nano run whose pre-training uses exactly this amount."""
    caps = "wall_seconds: 300, memory_mib: 8192, disk_mib: 1024"
    path.write_text(
        "name: counted\nversion: 1\ndefault_profile: smoke\n"
        f"pretrain: {{currency: {currency}, uniformity: exactly, {currency}: {amount:.0f}, {caps}}}\n"
        f"finetune: {{currency: optimizer_steps, optimizer_steps: 4, {caps}}}\n"
    )
    return ["--budget", str(path), *NANO[2:]]


@pytest.mark.slow
def test_equal_flops_for_methods_of_unequal_steps(bench: Bench, tmp_path: Path) -> None:
    limited = budget(tmp_path / "flops.yaml", "flops", FLOPS)
    methods = ["--method", "ours", "--method", "csc"]
    bench("run", *methods, "--task", "s3dis-sem", *limited, "--threads", "1", "--runs", str(tmp_path / "runs"))
    ledgers: dict[str, list[dict]] = {}
    for record in run_records(tmp_path / "runs"):
        if record["kind"] == "pretrain":
            ledgers.setdefault(record["method"], []).append(record["ledger"])
    for method, stages in ledgers.items():
        share = FLOPS / len(stages)
        for ledger in stages:
            step = ledger["flops"] / ledger["optimizer_steps"]
            assert share <= ledger["flops"] < share + 2 * step, method
    steps = {method: sum(s["optimizer_steps"] for s in stages) for method, stages in ledgers.items()}
    assert set(steps) == {"ours", "csc"} and len(set(steps.values())) == 2
    audit = bench("audit", "--runs", str(tmp_path / "runs"))
    assert "budget kept" in audit.stdout


def test_gpu_seconds_are_refused_on_a_cpu(bench: Bench, tmp_path: Path) -> None:
    limited = budget(tmp_path / "gpu.yaml", "gpu_seconds", 60)
    refused = bench("run", "--method", "csc", "--task", "s3dis-sem", "--device", "cpu", *limited, code=2)
    assert "currency 'gpu_seconds': 'csc' would run on the CPU" in refused.stderr
