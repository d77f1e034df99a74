"""Probes as a user types them: shared stages, advice, audit, rerun and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import NANO, Bench, run_records

pytestmark = pytest.mark.slow


def test_linear_and_decoder_probes_are_run_audited_and_reported(s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    common = [
        "--task",
        "s3dis-sem",
        "--data",
        f"s3dis={s3dis_root}",
        "--runs",
        runs,
        "--threads",
        "1",
        "--method",
        "scratch",
    ]
    linear = ["run", *common, "--budget", "smoke", "--protocol", "linear"]
    done = bench(*linear, "--label-ratio", "50%", "--label-ratio", "100%")
    records = run_records(tmp_path / "runs")
    assert sorted(r["kind"] for r in records) == ["features", "finetune", "finetune", "pretrain"], (
        "features serve both ratios"
    )
    probes = [r for r in records if r["cell"]]
    assert all(r["metrics"]["miou_voxel_final"] and r["ledger"]["optimizer_steps"] == 0 for r in probes)
    assert all(r["cell"]["protocol"] == "linear" for r in probes) and "next: add --method scratch" not in done.stdout
    assert "nothing to do: every stage was done before" in bench(*linear, "--label-ratio", "100%").stdout
    bench("run", *common, *NANO, "--protocol", "decoder")
    # Only one room of the official test split exists, which the audit reports; all other checks pass.
    audit = json.loads(bench("audit", "--runs", runs, "--json", "--rerun", probes[0]["key"], code=1).stdout)
    assert {f["check"] for f in audit if f["verdict"] == "failed"} == {"the whole test split is scored"}
    held = {f["check"]: f["detail"] for f in audit if f["verdict"] == "ok"}
    assert held["metrics recomputed from predictions"] == "3" and held["run again"] == "3", (
        "bit-identical, features included"
    )
    bench("report", "--runs", runs, "--out", str(tmp_path / "report"), "--no-scenes")
    assert "| decoder " in (tmp_path / "report/tables/probes.md").read_text()
    shown = bench("show", probes[0]["key"], "--runs", runs).stdout
    assert "protocol" in shown and "linear" in shown
    refused = bench("run", *common, "--budget", "smoke", "--protocol", "linear", "--task", "s3dis-inst", code=2)
    assert "task 's3dis-inst' is of kind instance; only semantic tasks are probed" in refused.stderr


def test_a_probe_alone_gets_advice_on_companions(
    s3dis_root: Path, rgbd_root: Path, bench: Bench, tmp_path: Path
) -> None:
    done = bench(
        "run", "--method", "ours", "--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--pretrain-data",
        f"rgbd-folder={rgbd_root}", "--runs", str(tmp_path / "runs"), "--threads", "1", "--protocol", "linear",
    )  # fmt: skip
    assert "next: add --method scratch to the same command: linear probes are compared with" in done.stdout
