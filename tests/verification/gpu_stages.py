"""`make verify-gpu-stages`: every stage on a GPU against the same stage on the CPU; writes docs/verification/gpu-stages.json.

Runs `bench run` on procedural data: every pre-training method, and every task from scratch. Batches and initial
weights are generated on the CPU from the seed, so the losses of the first step may differ only by rounding, and later losses may
diverge no faster than rounding grows. Needs the whole project installed with the extra dev, and a torch that finds a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain_bench.harness.contract.events import EVENTS_FILE, Step, read_events
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.running.layout import lay_out
from pretrain_bench.harness.store.store import Store
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_weights, save_weights
from tests.conftest import bench_command
from tests.verification import tasks
from tests.verification.report import ROOT, write_report

Cells = dict[str, tuple[str, ...]]
ALL: Cells = {"smoke": ("label_ratio=100%",), "smoke-tasks": ()}
"""Suites, and the cells of each that run."""
AGAIN: Cells = {"smoke": ("label_ratio=100%", "method=ours"), "smoke-tasks": ("task=s3dis-sem,sunrgbd-det",)}
"""Stages that run twice: sparse, dense 2D and detection stages."""
BOUNDS = {"first_loss": 1e-3, "first_gradient_norm": 1e-2, "early_loss": 0.1}
"""Bounds on relative differences from the CPU: loss and gradient norm of the first step, mean loss of the first five. A stage
above the last bound is also compared with the CPU's own variation, see NUDGES."""
NUDGES = (1e-6, 2e-6, 3e-6)
NUDGE_FACTOR = 3.0
"""A detector's next step depends on which proposals are near which object, so rounding grows in jumps. The reference is then the
stage on the CPU with initial weights perturbed at random by a few parts in a million: the GPU may differ by at most three times
the largest difference of the CPU from itself over these perturbations."""
EARLY = 5


def run_suites(cells: Cells, folder: Path, device: str, workers: int = 1) -> None:
    """Run the suites on one device into one store. Raises CalledProcessError if one fails."""
    for suite, filters in cells.items():
        only = [word for f in filters for word in ("--only", f)]
        how = ("--device", device, "--workers", str(workers), "--runs", str(folder))
        subprocess.run(bench_command("run", "--suite", suite, *how, *only), cwd=ROOT, check=True)


def stages(folder: Path) -> dict[str, tuple[Record, list[Step]]]:
    """Maps the name of a stage, such as "csc/pairs" or "scratch -> s3dis-sem", to its record and its steps."""
    store = Store(folder)
    found = {}
    for record in store.records():
        name = f"{record.method}/{record.stage}" if record.cell is None else f"{record.method} -> {record.cell.task}"
        found[name] = (record, steps_in(store.folder(record.kind, record.key)))
    return found


def steps_in(folder: Path) -> list[Step]:
    """The step events of a stage."""
    return [e for e in read_events(folder / EVENTS_FILE) if isinstance(e, Step)]


def apart(one: float, two: float) -> float:
    """Difference relative to the second."""
    return abs(one - two) / max(abs(two), 1e-12)


def compare(gpu: list[Step], cpu: list[Step]) -> dict[str, float]:
    """Differences of a stage's losses and gradients from the CPU's, and seconds per step (median) on both."""
    early = [float(np.mean([s.loss for s in steps[:EARLY]])) for steps in (gpu, cpu)]
    return {
        "first_loss": apart(gpu[0].loss, cpu[0].loss),
        "first_gradient_norm": apart(gpu[0].gradient_norm, cpu[0].gradient_norm),
        "early_loss": apart(*early),
        "gpu_step_seconds": float(np.median([s.seconds for s in gpu])),
        "cpu_step_seconds": float(np.median([s.seconds for s in cpu])),
    }


def same_input(record: Record) -> bool:
    """Whether the seed alone decides a stage's input; a fine-tuning or second stage starts from weights trained on its device."""
    return record.method == "scratch" or not record.parents


def same_bits(one: list[Step], two: list[Step]) -> bool:
    """Whether two runs of a stage had bit-identical losses."""
    return [s.loss for s in one] == [s.loss for s in two]


def account(record: Record) -> dict[str, float | None]:
    """A GPU stage's own account of its GPU use, and the measurement from outside."""
    return {
        "gpu_seconds": record.ledger.gpu_seconds,
        "gpu_mib": record.ledger.peak_gpu_memory_bytes / 2**20,
        "seen_gpu_seconds": record.measured.gpu_seconds,
        "seen_gpu_mib": record.measured.peak_gpu_memory_bytes / 2**20,
        "joules": record.measured.gpu_joules,
    }


def nudged(task: str, nudge: float) -> list[Step]:
    """Steps of the smoke stage from scratch on the CPU, with initial weights perturbed at random by a relative `nudge`."""
    first, last = tasks.stages(task, tasks.data_of(task, "smoke"), "smoke")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artifacts = tasks.make_weights(first, root / "init")
        rng = torch.Generator().manual_seed(0)
        weights = load_weights(artifacts / BACKBONE_FILE)
        changed = {
            name: value * (1 + nudge * torch.randn(value.shape, generator=rng)) if value.is_floating_point() else value
            for name, value in sorted(weights.items())
        }
        save_weights(changed, artifacts / BACKBONE_FILE)
        lay_out(root / "task", last, {first.spec.stage: artifacts}, None)
        command = [sys.executable, "-m", "pretrain_bench.methods.stage", "finetune", "--root", str(root / "task")]
        subprocess.run(command, cwd=ROOT, check=True)
        return steps_in(root / "task/out")


def yardstick(name: str, steps: list[Step]) -> float:
    """The largest difference of the CPU's early losses from those of the same stage with perturbed weights."""
    task = name.removeprefix("scratch -> ")
    return max(compare(nudged(task, nudge), steps)["early_loss"] for nudge in NUDGES)


def misses(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Failures: stages with equal input whose losses differ by more than the bounds, and stages that used no GPU."""
    apart_by = [
        f"{name}: {what} is {row[what]:.3g}"
        for name, row in rows.items()
        for what, bound in BOUNDS.items()
        if row["same_input"] and not row[what] <= bound
        if what != "early_loss" or not row[what] <= NUDGE_FACTOR * row.get("early_loss_nudged", 0.0)
    ]
    unused = [
        f"{name}: {what} is {row[what]}"
        for name, row in rows.items()
        for what in ("gpu_seconds", "gpu_mib")
        if not row[what]
    ]
    return apart_by + unused


def main() -> int:
    """Run, compare and write the report; returns 1 if a difference exceeds its bound, a stage is missing, or nothing was counted."""
    options = argparse.ArgumentParser()
    options.add_argument(
        "--folder", type=Path, help="where the runs are kept, and finished ones reused; else a temporary folder"
    )
    chosen = options.parse_args()
    what = "every stage on a GPU: first steps against the CPU's, use of the GPU, bits of a second run, the audit"
    if not torch.cuda.is_available():
        write_report("gpu-stages", what, "not run", why="no CUDA device was at hand")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        run_suites(ALL, folder / "cpu", "cpu", max(1, (os.cpu_count() or 1) // 2))
        run_suites(ALL, folder / "cuda", "cuda")
        run_suites(AGAIN, folder / "again", "cuda")
        cpu, gpu = stages(folder / "cpu"), stages(folder / "cuda")
        cpu_side = next(record for record, _ in cpu.values())
        rows: dict[str, Any] = {}
        bad = [f"{name}: not on both devices" for name in sorted(set(cpu) ^ set(gpu))]
        for name in sorted(n for n in cpu if n in gpu and cpu[n][1]):
            record, steps = gpu[name]
            row: dict[str, Any] = {**compare(steps, cpu[name][1]), **account(record)}
            row["same_input"] = same_input(record)
            if record.method == "scratch" and not row["early_loss"] <= BOUNDS["early_loss"]:
                row["early_loss_nudged"] = yardstick(name, cpu[name][1])
            row["metrics"] = {"gpu": record.metrics, "cpu": cpu[name][0].metrics}
            rows[name] = row
        bad += misses(rows)
        again = {name: same_bits(steps, gpu[name][1]) for name, (_, steps) in stages(folder / "again").items()}
        audit = subprocess.run(bench_command("audit", "--runs", str(folder / "cuda")), cwd=ROOT, check=False).returncode
        bad += [f"bench audit ends with {audit}"] * bool(audit)
        write_report(
            "gpu-stages", what, "failed" if bad else "ok", gpu=torch.cuda.get_device_name(0), bounds=BOUNDS,
            cpu_of=cpu_side.provenance.model_dump(include={"cpu", "numerics"}), misses=bad, stages=rows, same_bits_again=again,
            audit_exit_code=audit,
        )  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
