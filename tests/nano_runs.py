"""Runs of the main workflow at its smallest size."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import NANO, bench_command, run_records


def command(roots: list[str], runs: Path, *more: str, methods: tuple[str, ...] = ("ours", "scratch")) -> list[str]:
    named = [x for m in methods for x in ("--method", m)]
    return ["run", *named, "--task", "s3dis-sem", *NANO, *roots, "--runs", str(runs), "--threads", "1", *more]


def run_whole(roots: list[str], folder: Path, methods: tuple[str, ...] = ("ours", "scratch")) -> Path:
    """A store in which methods have run once without interruption."""
    runs = folder / "whole"
    done = subprocess.run(bench_command(*command(roots, runs, methods=methods)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return runs


def artifact_hashes(runs: Path) -> dict[str, dict[str, str]]:
    return {r["key"]: {k: v["sha256"] for k, v in r["artifacts"].items()} for r in run_records(runs)}
