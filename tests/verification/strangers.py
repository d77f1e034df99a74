"""`make verify-strangers`: 2,000 hostile stores, bundles and specs. No command hangs, exhausts the memory, crashes, prints
control characters, or reads, changes or adds a file outside.

`python -m tests.verification.strangers --first N --number M` repeats some of them; only a run from the first writes a report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pretrain_bench as pb
from pretrain_bench.api.configuration import Configuration
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.loading import load_spec, load_with_lines
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available
from pretrain_bench.harness.store.store import Store
from tests.conftest import leave_pictures_empty, run_here
from tests.harness.store.bundles import members
from tests.verification.report import write_report
from tests.verification.stranger_mutations import mutate_bundle, mutate_store, mutate_yaml

INPUTS, SEED = 2000, 28
CPU_SECONDS, WALL_SECONDS = 5.0, 120
MEMORY_BYTES = 256 << 20
"""The most memory above that of the same command with the honest store."""
SECRET = "canary-6b1f0c"
PART = 100
"""Inputs per process: memory that one command leaves allocated would hide the use of the next."""
KINDS = ("store", "store", "store", "bundle", "yaml")
SPECS = (Budget, Dataset, Profile, Suite, Task)


class Honest(NamedTuple):
    """The sources of the inputs: a store, the members of its bundle, and built-in specs."""

    runs: Path
    members: dict[str, bytes]
    specs: list[tuple[Any, Path]]


def make_honest(folder: Path) -> Honest:
    """Write a store with two methods and one run with an artifact, and its bundle."""
    from tests.harness.store.test_store import finish, spec
    from tests.reports.stores import add, rewrite

    store = Store(folder / "honest")
    for method in ("scratch", "ours"):
        add(store, method, 0.5)
    for record in list(store.records()):  # otherwise the commit would be looked up for every input
        rewrite(store, record, provenance=record.provenance.model_copy(update={"git_commit": None}))
    finish(store, spec())
    bundle = folder / "honest.bundle.tar.zst"
    done = run_here(["audit", "--no-rescore", "--runs", str(store.root), "--bundle", str(bundle)], folder)
    assert bundle.is_file(), done.stderr
    specs = [(kind, path) for kind in SPECS for path in available(kind).values() if path.stat().st_size < 20_000]
    return Honest(store.root, members(bundle), specs)


class Canary:
    """A folder of the user's beside the hostile one. It must not change, and its secret must not appear in any output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "keep.txt").write_text(SECRET)
        (folder / "artifacts").mkdir()
        (folder / "artifacts" / "backbone.safetensors").write_text(SECRET)
        self._before = self._state()

    def problem(self) -> str | None:
        """A description of a change, or None."""
        after = self._state()
        changed = [name for name in {*self._before, *after} if self._before.get(name) != after.get(name)]
        return f"outside: {changed[0]} was changed" if changed else None

    def _state(self) -> dict[str, tuple[int, int, str]]:
        paths = [self.folder, *self.folder.rglob("*")]
        text = {p: p.read_text() if p.is_file() else "" for p in paths}
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_mode, text[p]) for p in paths}


class Judge:
    """Runs commands in this process and collects their problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.largest_cpu, self.largest_bytes = 0.0, 0

    def command(self, folder: Path, *arguments: str) -> None:
        """Run `bench` and judge its output, time and memory."""
        with self._watched(arguments[0]):
            done = run_here(arguments, folder)
            text = done.stdout + done.stderr
            self.outcomes[f"{arguments[0]}: exit {done.returncode}"] += 1
            for sign in (
                "a fault of bench itself",
                "Traceback",
                "the machine refused",
                "not enough memory",
                SECRET,
                "\x1b",
            ):
                if sign in text:
                    at = max(0, text.find(sign) - 300)
                    self.problems.append(f"{' '.join(arguments[:2])}: {sign!r}: {text[at : at + 400]!r}")

    def load_runs(self, runs: Path) -> None:
        """Load runs as a report does."""
        with self._watched("load_runs"):
            try:
                pb.load_runs(runs)
                self.outcomes["load_runs: read"] += 1
            except WrongUse:
                self.outcomes["load_runs: refused"] += 1

    def load(self, path: Path, kind: Any) -> None:
        """Load a spec, which must be read or refused by name."""
        with self._watched("spec"):
            for read in (load_spec, load_with_lines):
                try:
                    read(path, kind if read is load_spec else Configuration)
                    self.outcomes["spec: read"] += 1
                except WrongUse:
                    self.outcomes["spec: refused"] += 1

    @contextlib.contextmanager
    def _watched(self, name: str) -> Iterator[None]:
        before, began = _memory_bytes("VmRSS"), time.process_time()
        _reset_peak()
        previous = signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(WALL_SECONDS)
        try:
            yield
        except Exception as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}"[:400])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
        seconds, used = time.process_time() - began, _memory_bytes("VmHWM") - before
        self.largest_cpu, self.largest_bytes = max(self.largest_cpu, seconds), max(self.largest_bytes, used)
        if seconds > CPU_SECONDS:
            self.problems.append(f"{name}: {seconds:.1f} CPU seconds")
        if used > MEMORY_BYTES:
            self.problems.append(f"{name}: {used >> 20} MiB more memory")


class Hang(Exception):
    """A command hangs."""


def _hangs(*_: object) -> None:
    raise Hang(f"no end after {WALL_SECONDS} s")


def _memory_bytes(name: str) -> int:
    """Memory of this process from the kernel: VmRSS (current) or VmHWM (peak)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def read_store(runs: Path, folder: Path, judge: Judge, number: int = 0) -> None:
    """Run all commands that read a folder of runs, then those that clean it. Every tenth input runs all commands, the others those that
    take less time."""
    where, all_commands = ("--runs", str(runs)), number // len(KINDS) % 10 == 0
    judge.command(folder, "show", *where)
    pack = ("--bundle", str(folder / "packed.bundle.tar.zst"))
    judge.command(folder, "audit", *where, *(pack if all_commands else ()))
    if all_commands:
        judge.command(folder, "status", *where)
        judge.command(folder, "report", *where, "--out", str(folder / "report"))
    else:
        judge.load_runs(runs)
    judge.command(folder, "clean", "--keep", "none", "--dry-run", *where)
    judge.command(folder, "clean", "--keep", "none", "--abandoned", *where)


def one_input(number: int, honest: Honest, scratch: Path, judge: Judge) -> str:
    """Create one hostile input, run the commands on it, and check the files outside. Returns a description of the input."""
    rng, folder = random.Random(f"{SEED}-{number}"), scratch / f"input{number}"
    folder.mkdir()
    canary, kind = Canary(folder / "canary"), KINDS[number % len(KINDS)]
    work = folder / "work"
    work.mkdir()
    if kind == "store":
        shutil.copytree(honest.runs, work / "runs")
        done = mutate_store(work / "runs", rng, canary.folder)
        read_store(work / "runs", work, judge, number)
    elif kind == "bundle":
        bundle = work / "x.bundle.tar.zst"
        done = mutate_bundle(honest.members, bundle, rng, canary.folder)
        os.environ["BENCH_CACHE"] = str(work / "cache")
        judge.command(work, "show", "--runs", str(bundle))
        if number // len(KINDS) % 10 == 0:
            judge.command(work, "report", "--out", str(work / "report"), "--runs", str(bundle))
        judge.command(work, "audit", str(bundle))
    else:
        model, path = rng.choice(honest.specs)
        text, done = mutate_yaml(path.read_text(), rng, canary.folder)
        (work / path.name).write_text(text, errors="surrogateescape")
        judge.load(work / path.name, model)
    outside = canary.problem() or next(
        (f"outside: {p.name}" for p in folder.iterdir() if p.name not in ("work", "canary")), None
    )
    if outside is not None:
        judge.problems.append(outside)
    if leak := _leaks(work):
        judge.problems.append(f"{leak} holds what is outside")
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
    return f"{kind}: {done}"


def _leaks(work: Path) -> str | None:
    """A file written by a command that contains the canary's secret."""
    packed = work / "packed.bundle.tar.zst"
    if packed.is_file() and any(SECRET.encode() in content for content in members(packed).values()):
        return packed.name
    for path in (work / "report").rglob("*") if (work / "report").is_dir() else ():
        if path.is_file() and SECRET.encode() in path.read_bytes():
            return path.name
    return None


def run_inputs(numbers: range, scratch: Path) -> tuple[Judge, dict[int, str]]:
    """Judge inputs by number; returns the judge, and the problems by number."""
    os.environ["BENCH_CACHE"] = str(scratch / "cache")
    honest, problems = make_honest(scratch), dict[int, str]()
    judge = Judge()
    # Figures are drawn from the tables, never from a store's files.
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch)
        (scratch / "warm").mkdir()
        shutil.copytree(honest.runs, scratch / "warm/runs")
        read_store(scratch / "warm/runs", scratch / "warm", judge)  # imports; and the honest store must be accepted
        assert not judge.problems, judge.problems
        judge.largest_cpu, judge.largest_bytes = 0.0, 0
        for number in numbers:
            before = len(judge.problems)
            done = one_input(number, honest, scratch, judge)
            if judge.problems[before:]:
                problems[number] = f"{done}: {judge.problems[before]}"
                print(number, problems[number], flush=True)
    return judge, problems


def _run_part(folder: str, numbers: range) -> tuple[Judge, dict[int, str]]:
    scratch = Path(folder, str(numbers.start))
    scratch.mkdir()
    return run_inputs(numbers, scratch)


def main() -> None:
    """Judge all inputs, then write docs/verification/strangers.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--number", type=int, default=INPUTS)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.number)
    outcomes, problems, cpu, memory = Counter[str](), dict[int, str](), 0.0, 0
    parts = [numbers[i : i + PART] for i in range(0, len(numbers), PART)]
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Pool(arguments.processes, maxtasksperchild=1) as pool:
        for judge, found in pool.imap(partial(_run_part, folder), parts):
            outcomes += judge.outcomes
            problems |= found
            cpu, memory = max(cpu, judge.largest_cpu), max(memory, judge.largest_bytes)
    results = {
        "inputs": len(numbers), "outcomes": dict(sorted(outcomes.items())), "problems": {str(n): p for n, p in problems.items()},
        "largest_cpu_seconds": round(cpu, 2), "largest_extra_mib": memory >> 20,
    }  # fmt: skip
    if arguments.first:
        print(json.dumps(results, indent=1))
        sys.exit(bool(problems))
    what = (
        f"{len(numbers):,} hostile stores, bundles and specs: no command hangs, fills the memory, fails in itself or touches "
        "anything outside"
    )
    write_report("strangers", what, "failed" if problems else "ok", seed=SEED, results=results)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
