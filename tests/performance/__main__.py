"""`make perf`: the speed of the sparse engine and of the input, as ratios within this run; a table, and perf.json at the root.

Rows that need MinkowskiEngine are left out if it is not installed; `--require-all` makes that a failure. `--record` appends the
ratios to docs/performance-history.csv; the column `last` has the latest ratio there of this kind of CPU and torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pretrain_bench.harness.cli.console import table
from pretrain_bench.harness.executors.base import library_variables
from pretrain_bench.harness.store.provenance import provenance
from tests.performance.history import append_rows, last_ratios

ROOT = Path(__file__).parent.parent.parent
THREADS = 2
Row = dict[str, Any]


def measure(backend: str, work: str, threads: int = THREADS) -> dict[str, float]:
    """One measurement in a fresh process, with the variables of a stage with a fixed number of threads."""
    environment = {**os.environ, **library_variables(threads)}
    command = [sys.executable, "-m", "tests.performance.measure", backend, work, str(threads)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def input_rows() -> list[Row]:
    """The input pipeline on one core: a sample of 100,000 points against 60 ms and against plain loops, and reading text."""
    command = [sys.executable, "-m", "tests.performance.input"]
    environment = {**os.environ, **library_variables(1)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return [
        row("augment + voxelise 100k points", found["sample"], 0.060, "CPU-s, against 60 ms", 1.0),
        row("the same, against plain loops", found["sample"], found["plain"], "CPU-s", 1.0),
        row("S3DIS text, share of 30 MB/s", found["text_rate"] / 1e6, 30.0, "MB/s", 1.0, at_least=True),
    ]


def harness_rows() -> list[Row]:
    """The harness itself, against bounds on waiting times."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.performance.harness"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return [
        row("bench --help", found["help"], 0.3, "CPU-s, against 0.3 s", 1.0),
        row("shell completion", found["completion"], 0.3, "CPU-s, against 0.3 s", 1.0),
        row("plan, 10,000 cells and records", found["plan"], 2.0, "CPU-s, against 2 s", 1.0),
        row("overhead of a stage, executor local", found["overhead"], 0.05, "CPU-s, against 50 ms", 1.0),
        row("bench status, 10,000 records", found["status"], 1.0, "CPU-s, against 1 s", 1.0),
    ]


def products_of(maps: dict[str, float], gemm: dict[str, float]) -> float:
    """CPU-seconds of the products of a training step at the machine's GEMM rate: backward takes two per product of forward."""
    return 3 * maps["gflop"] / gemm["gflops_per_cpu_second"]


def row(name: str, ours: float, reference: float, unit: str, must: float, at_least: bool = False) -> Row:
    """One row of perf.json: the ratio ours / reference against its bound."""
    ratio = ours / reference
    ok = ratio >= must if at_least else ratio <= must
    return {"name": name, "ours": ours, "reference": reference, "ratio": ratio, "unit": unit, "must": must, "ok": ok}


def main() -> int:
    """Measure, print and write; returns 1 if a row misses its bound, or is required but missing."""
    reference = measure("torch", "reference")
    quarter = {threads: measure("torch", "quarter", threads) for threads in (THREADS, 1)}
    maps, gemm = measure("torch", "maps"), measure("torch", "gemm")
    rate = maps["gflop"] / reference["forward_wall"]
    rows = [
        row("forward, share of the fp32 GEMM rate", rate, gemm["gflops"], "GFLOP/s", 0.45, at_least=True),
        row("forward + backward, against its products", reference["step_cpu"], products_of(maps, gemm), "CPU-s", 1.4),
        row("kernel maps of the whole network", maps["maps_wall"], 1.0, "s, against one second", 0.25),
    ]
    missing = []
    if importlib.util.find_spec("MinkowskiEngine") is not None:
        other = measure("minkowski", "reference")
        rows += [
            row("forward + backward, CPU seconds", reference["step_cpu"], other["step_cpu"], "CPU-s", 0.8),
            row("forward + backward, wall time", reference["step_wall"], other["step_wall"], "s", 0.8),
            row("peak memory of a training step", reference["peak_mib"], other["peak_mib"], "MiB", 1.0),
        ]
        for threads, ours in quarter.items():
            small = measure("minkowski", "quarter", threads)
            name = f"quarter-width step at 5k voxels, {threads} thread{'s' * (threads > 1)}"
            rows.append(row(name, ours["step_cpu"], small["step_cpu"], "CPU-s", 1.0))
        if "amx_bf16" in Path("/proc/cpuinfo").read_text():
            half = measure("torch", "reference-bf16")
            rows.append(row("bf16 training step, CPU seconds", half["step_cpu"], other["step_cpu"], "CPU-s", 0.35))
        else:
            print("bf16 training step: this CPU has no AMX, so the row does not apply")
    else:
        missing.append("MinkowskiEngine is not installed: the rows against it are left out (`make perf-minkowski`)")
    rows += [*input_rows(), *harness_rows()]
    machine = provenance({})
    print(f"{machine.cpu}, {THREADS} threads, torch {machine.packages['torch']}; {maps['gflop']:.1f} GFLOP forward")
    last = last_ratios(machine)
    heads = ("quantity", "ours", "reference", "ratio", "last", "must", "ok")
    print(table(heads, [_cells(r, last.get(r["name"])) for r in rows]))
    seconds = ", ".join(
        f"{k.replace('_', ' ')} {reference[k]:.2f} s" for k in ("forward_cpu", "forward_wall", "step_cpu", "step_wall")
    )
    print(f"reference work: {seconds}; peak {reference['peak_mib']:.0f} MiB")
    for line in missing:
        print(f"* {line}")
    (ROOT / "perf.json").write_text(json.dumps(rows, indent=1) + "\n")
    if "--record" in sys.argv:
        append_rows(rows, machine, datetime.now(UTC).date().isoformat())
    failed = any(not r["ok"] for r in rows) or ("--require-all" in sys.argv and bool(missing))
    return int(failed)


def _cells(one: Row, last: float | None) -> tuple[str, ...]:
    sign = ">=" if "share" in one["name"] else "<="
    return (
        one["name"], f"{one['ours']:.2f}", f"{one['reference']:.2f}", f"{one['ratio']:.2f}",
        "" if last is None else f"{last:.2f}", f"{sign} {one['must']:.2f}",
        "yes" if one["ok"] else "NO",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
