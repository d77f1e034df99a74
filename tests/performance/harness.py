"""The speed of the harness itself, in CPU-seconds: `python -m tests.performance.harness` prints JSON.

Measures help, a plan of 10,000 cells with a store of 10,000 records, `bench status` of that store, and the overhead of a stage.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.cli.app import collect_seldom
from pretrain_bench.harness.executors.local import LocalExecutor
from pretrain_bench.harness.planning.plan import states
from pretrain_bench.harness.planning.resolved_suite import RunOverrides, resolve_suite
from pretrain_bench.harness.running.capacity import Capacity
from pretrain_bench.harness.running.display import Silent
from pretrain_bench.harness.running.scheduler import run_cells
from pretrain_bench.harness.running.stage_runner import RunOptions, StageRunner
from pretrain_bench.harness.store.store import Store
from tests.conftest import bench_command, write_room
from tests.faults.suite import REPOSITORY, SLEEPER, planned

CELLS = 10_000


def cpu_of_children() -> float:
    """CPU-seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command(*arguments: str) -> float:
    """CPU-seconds of one command, the minimum of three."""
    best = float("inf")
    for _ in range(3):
        before = cpu_of_children()
        subprocess.run(bench_command(*arguments), check=True, capture_output=True)
        best = min(best, cpu_of_children() - before)
    return best


def big_suite() -> Suite:
    """10,000 cells."""
    return Suite(
        name="big", version=1, budget="smoke", tasks=("s3dis-sem",), pretrain_seeds=tuple(range(20)),
        methods=("scratch", "pointcontrast", "csc", "depthcontrast", "ours"), finetune_seeds=tuple(range(20)),
        label_ratios=("5%", "10%", "20%", "40%", "100%"), pretrain_datasets=("synth-scannet",),
    )  # fmt: skip


def main() -> None:
    """Measure and print."""
    collect_seldom()  # as in the command line
    found = {"help": command("--help"), "completion": completion()}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        rng = np.random.default_rng(7)
        for area, room in [("Area_1", f"office_{i}") for i in range(6)] + [("Area_5", "office_1")]:
            write_room(scratch / "s3dis" / area / room / "Annotations", rng)
        data = [f"s3dis={scratch / 's3dis'}"]
        cells = planned(data[0].partition("=")[2], seeds=3)
        runs = scratch / "runs"
        before, children = time.process_time(), cpu_of_children()
        runner = StageRunner(Store(runs), LocalExecutor(SLEEPER), Silent(), RunOptions())
        reports = run_cells(cells, runner, Capacity(2, 1 << 20))
        stages = len(reports)
        found["overhead"] = (time.process_time() - before) / stages
        found["stages"], found["children"] = stages, (cpu_of_children() - children) / stages
        matrix = resolve_suite(big_suite(), [], RunOverrides(data, [], 1, "torch", "cpu", "local", None))
        matrix.prepare(False, lambda _: lambda items: items, lambda _: None)
        many = scratch / "many"
        fill(many, matrix, runs)
        before = time.process_time()
        again = resolve_suite(big_suite(), [], RunOverrides(data, [], 1, "torch", "cpu", "local", None))
        planned_cells, _ = again.plan_prepared()
        listed = states(planned_cells, Store(many), 2)
        found["plan"] = time.process_time() - before
        assert len(planned_cells) == CELLS and sum(s.state == "done" for s in listed) >= CELLS
        found["status"] = command("status", "--runs", str(many))
    print(json.dumps(found))


def completion() -> float:
    """The time that a shell waits after the tab key."""
    best = float("inf")
    for _ in range(3):
        before = cpu_of_children()
        as_installed = "import sys; sys.argv = ['bench']; from pretrain_bench.harness.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", as_installed], check=False, capture_output=True, cwd=REPOSITORY, text=True,
            env={"PATH": "/usr/bin:/bin", "_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench ru", "COMP_CWORD": "1"},
        )  # fmt: skip
        assert done.stdout.split() == ["run"], done
        best = min(best, cpu_of_children() - before)
    return best


def fill(many: Path, matrix: object, runs: Path) -> None:
    """Write a record for every stage of the big suite."""
    cells, _ = matrix.plan_prepared()  # type: ignore[attr-defined]
    record = json.loads(next((runs / "finetune").glob("*/record.json")).read_text())
    for stage in states(cells, Store(many), 2):
        folder = many / stage.planned.spec.kind / stage.key
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record | {"key": stage.key}, indent=1, sort_keys=True))


if __name__ == "__main__":
    sys.exit(main())
