"""Probes as a person types them: shared stages, advice, audit, repetition, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import NANO, Bench, run_records

pytestmark = pytest.mark.slow


def test_linear_and_decoder_probes_are_run_audited_and_reported(s3dis_root: Path, bench: Bench, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    common = ["--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--runs", str(runs), "--threads", "1"]
    probes = ["--method", "scratch", *common, "--protocol", "linear", "--protocol", "decoder"]
    done = bench("run", *probes, "--label-ratio", "50%", "--label-ratio", "100%")
    records = run_records(runs)
    assert sorted(r["kind"] for r in records) == ["features", *["finetune"] * 4, "pretrain"], (
        "features serve both ratios"
    )
    assert all(r["outcome"] == "ok" for r in records)
    linear = [r for r in records if r["cell"] and r["cell"].get("protocol") == "linear"]
    assert all(r["metrics"]["miou_voxel_final"] and r["ledger"]["optimizer_steps"] == 0 for r in linear)
    assert "next: bench run --method scratch" not in done.stdout
    again = bench("run", *probes, "--label-ratio", "100%")
    assert "nothing to do: every stage was done before" in again.stdout
    audit = json.loads(bench("audit", "--runs", str(runs), "--json", "--rerun", linear[0]["key"]).stdout)
    assert not [f for f in audit["findings"] if f["verdict"] == "fail"]
    bench("report", "--runs", str(runs), "--out", str(tmp_path / "report"), "--no-scenes")
    assert "| decoder " in (tmp_path / "report" / "probes.md").read_text()
    shown = bench("show", linear[0]["key"], "--runs", str(runs)).stdout
    assert "protocol" in shown and "linear" in shown
    assert bench("plan", "probe-tiny", "--runs", str(runs)).stdout.count("features") > 10
    refused = bench("run", "--method", "scratch", *common, "--protocol", "linear", "--task", "s3dis-inst", code=2)
    assert "task 's3dis-inst' is of kind instance; only semantic tasks are probed" in refused.stderr


def test_a_probe_alone_is_told_what_belongs_beside_it(
    s3dis_root: Path, rgbd_root: Path, bench: Bench, tmp_path: Path
) -> None:
    done = bench(
        "run", "--method", "ours", "--task", "s3dis-sem", *NANO, "--data", f"s3dis={s3dis_root}", "--pretrain-data",
        f"rgbd-folder={rgbd_root}", "--runs", str(tmp_path / "runs"), "--threads", "1", "--protocol", "linear",
    )  # fmt: skip
    assert "next: bench run --method scratch --task s3dis-sem --protocol linear --label-ratio 100%" in done.stdout
