"""`make verify-gpu-headline`: a few steps of every stage of the headline profile, at full size, on one GPU; writes
docs/verification/gpu-headline.json.

Shows that full-size steps fit the GPU, their cost, whether the GPU waits for data, and how accurate `bench plan` is. The data
are procedural, of size `full`: with the density of real sensors, but few scenes. Needs the whole project installed with the
extra dev, and a torch that finds a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.checkpoint import IMPORTED
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.contract.events import EVENTS_FILE, Ledger, Step, Usage, read_events
from pretrain_bench.harness.executors.base import library_variables
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.estimate import History, steps_of
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.resolved_suite import MAX_DEFAULT_THREADS
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage
from pretrain_bench.harness.running.layout import lay_out
from tests.verification.report import ROOT, write_report

BUDGET = "extends: paper\nname: few\nversion: 1\npretrain: {optimizer_steps: 16}\nfinetune: {optimizer_steps: 8}\n"
PROFILE = "extends: headline\nname: headline-full\nversion: 1\nworld: full\n"
SOURCE = "synth-scannet"
WARM_UP = 2
"""Steps at the start that are not counted, while kernels load and loader workers start."""
PLAN_FACTOR = 3.0
"""The largest factor by which an estimate of `bench plan` may be off."""
WHAT = "a few steps of every stage of the headline profile at full size on one GPU: memory, time, and how near `bench plan` comes"


def planned_stages(budget: Budget, profile: Profile, machine: Machine) -> dict[str, PlannedStage]:
    """All pre-training stages, and each task from scratch, by name, in order of their dependencies."""
    tasks = {name: find(Task, name) for name in available(Task)}
    names = {task.dataset: str(find(Dataset, task.dataset).stand_in) for task in tasks.values()}

    def prepared(name: str) -> PreparedDataset:
        return DataSources(frame_stride=profile.frame_stride, world=profile.world).prepare(name, strict=True, say=print)

    with ThreadPoolExecutor(len(names)) as side_by_side:
        data = dict(zip(names, side_by_side.map(prepared, names.values()), strict=True))
    data[SOURCE] = data["scannet"]
    found: dict[str, PlannedStage] = {}
    trained = [m for m in available(Method) if m != IMPORTED]
    for method, task in [(m, "s3dis-sem") for m in trained] + [("scratch", t) for t in tasks]:
        cell = Cell(method=method, pretrain_dataset=SOURCE, task=task, budget=budget.name, profile=profile.name)
        for planned in stages_of(cell, CellSpecs(find(Method, method), tasks[task], budget, profile), data, machine):
            if planned.cell is None or method == "scratch":
                found.setdefault(planned.title, planned)
    return found


def run_stage(root: Path, planned: PlannedStage, parents: dict[str, Path], seconds: float) -> int | None:
    """Run a stage and ask it to finish after `seconds`; returns its exit code, or None if it had to be killed."""
    lay_out(root, planned, parents, None)
    command = [sys.executable, "-m", "pretrain_bench.methods.stage", planned.spec.kind, "--root", str(root)]
    with (root / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **library_variables(planned.spec.threads)}
        )
        for patience, number in ((seconds, signal.SIGTERM), (120.0, signal.SIGKILL)):
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        process.wait()
    return None


def measured(root: Path, planned: PlannedStage, paper: PlannedStage) -> dict[str, Any]:
    """Measurements from a stage's events: memory, seconds per step beside the plan's, and hours under the budget `paper`."""
    events = list(read_events(root / "out" / EVENTS_FILE))
    steps = [e for e in events if isinstance(e, Step)]
    if not steps:
        return {"steps": 0}
    ledger = next((e.ledger for e in reversed(events) if isinstance(e, Usage)), Ledger())
    counted = steps[WARM_UP:] or steps[-1:]
    seconds = sum(s.seconds for s in counted) / len(counted)
    return {
        "steps": len(steps),
        "finite": all(math.isfinite(s.loss) and math.isfinite(s.gradient_norm) for s in steps),
        "step_seconds": seconds,
        "of_it_waiting_for_data": sum(s.data_seconds for s in counted) / len(counted),
        "plan_step_seconds": History([]).estimate(planned, 1).seconds / steps_of(planned),
        "paper_steps": steps_of(paper),
        "paper_hours": seconds * steps_of(paper) / 3600,
        "gpu_mib": ledger.peak_gpu_memory_bytes / 2**20,
        "memory_mib": ledger.peak_memory_bytes / 2**20,
        "samples_a_step": ledger.samples / len(steps),
        "sparse_gflop_a_step": ledger.sparse_flops / len(steps) / 1e9,
    }


def misses(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Failures: stages that failed or took no steps, and inaccurate plans."""
    bad = [f"{name}: exit code {row['exit_code']}" for name, row in rows.items() if row["exit_code"] != 0]
    bad += [f"{name}: no step" for name, row in rows.items() if not row["steps"]]
    for name, row in rows.items():
        if not row["steps"]:
            continue
        if not row["finite"]:
            bad.append(f"{name}: a loss or gradient is not finite")
        ratio = row["plan_step_seconds"] / row["step_seconds"]
        if not 1 / PLAN_FACTOR <= ratio <= PLAN_FACTOR:
            bad.append(f"{name}: `bench plan` says {ratio:.2g} times what a step took")
    return bad


def main() -> int:
    """Run, measure and write the report; returns 1 if anything fails."""
    options = argparse.ArgumentParser()
    options.add_argument(
        "--folder", type=Path, help="where stages are kept, and finished ones reused; else a temporary one"
    )
    options.add_argument("--seconds", type=float, default=300.0, help="after which a stage is asked to finish")
    chosen = options.parse_args()
    if not torch.cuda.is_available():
        write_report("gpu-headline", WHAT, "not run", why="no CUDA device was at hand")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = run_all(folder, chosen.seconds)
    bad = misses(rows)
    write_report(
        "gpu-headline", WHAT, "failed" if bad else "ok", gpu=torch.cuda.get_device_name(0), plan_factor=PLAN_FACTOR,
        misses=bad, stages=rows,
    )  # fmt: skip
    return 1 if bad else 0


def run_all(folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """Run all stages, one at a time, and measure those that train; stages that already ended in this folder are only measured."""
    (folder / "few.yaml").write_text(BUDGET)
    (folder / "full.yaml").write_text(PROFILE)
    few, profile = find(Budget, str(folder / "few.yaml")), find(Profile, str(folder / "full.yaml"))
    machine = Machine(min(os.cpu_count() or 1, MAX_DEFAULT_THREADS), "torch", "cuda")
    paper = planned_stages(find(Budget, "paper"), profile, machine)
    rows: dict[str, dict[str, Any]] = {}
    artifacts: dict[str, Path] = {}
    for number, (title, planned) in enumerate(planned_stages(few, profile, machine).items()):
        root, ended = folder / f"{number:02d}", folder / f"{number:02d}.json"
        artifacts[planned.spec.key] = root / "out/artifacts"
        if not ended.is_file():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            parents = {stage: artifacts[key] for stage, key in planned.spec.parents.items()}
            code = run_stage(root, planned, parents, seconds)
            ended.write_text(json.dumps({"exit_code": code}))
        if planned.recipe is not None:
            rows[title] = {
                "exit_code": json.loads(ended.read_text())["exit_code"],
                **measured(root, planned, paper[title]),
            }
            print(title, rows[title], flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
