"""`make verify-crash-points`: kill publishing before each of its system calls, twice in a row, then restart it: nothing is
lost, doubled or left behind."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.support import ownership
from pretrain_bench.harness.store.store import Store
from tests.verification.publishing import SCENARIOS, Done, problems
from tests.verification.report import write_report

CALLS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.listdir", "os.scandir", "os.chmod",
    "os.utime", "shutil.rmtree", "shutil.copyfile", "fcntl.flock", "fcntl.lockf", "os.fsync", "os.write",
}  # fmt: skip
"""Events of Python's audit hook before which a process is killed; `os.fsync` and `os.write` are added here."""
KILLED, MOST_CALLS = 137, 2000


def run_killed(scenario: str, root: Path, at: int) -> tuple[bool, list[Done], str]:
    """Run a scenario in a child process that dies before its system call number `at`, without any clean-up.

    Returns whether it died, the runs that it reported as finished, and the call.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            done = _die_at(scenario, root, at, writer)
            os.write(writer, f"done {done[0]} {done[1]} {done[2]}\n".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = [line.split() for line in pipe]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"{scenario}, call {at}: exit {code}"
    finished = [(words[1], int(words[2]), words[3]) for words in lines if words[0] == "done"]
    return code == KILLED, finished, next((" ".join(words[1:]) for words in lines if words[0] == "call"), "")


def _die_at(scenario: str, root: Path, at: int, writer: int) -> Done:
    """Count system calls through the audit hook, which cannot be removed from a process, and wrappers of fsync and write."""
    count = 0
    real_write, real_fsync, armed = os.write, os.fsync, [False]

    def step(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not armed[0] or event not in CALLS:
            return
        if event == "open" and not str(arguments[0]).startswith(str(root)):
            return  # modules
        count += 1
        if count == at:
            armed[0] = False
            real_write(writer, f"call {event} {Path(str(arguments[0])).name if arguments else ''}\n".encode())
            os._exit(KILLED)

    def fsync(descriptor: int) -> None:
        step("os.fsync", ())
        real_fsync(descriptor)

    def write(descriptor: int, content: bytes) -> int:
        step("os.write", ())
        return real_write(descriptor, content)

    sys.addaudithook(step)
    os.fsync, os.write = fsync, write
    armed[0] = True
    ownership.OLD_SECONDS = -1.0  # as if restarted two minutes later: an owner file may be half-written
    done = SCENARIOS[scenario](Store(root))
    armed[0] = False
    os.write = real_write
    return done


def crash_points(scenario: str, scratch: Path, every: int = 1) -> tuple[int, Counter[str], list[str]]:
    """Kill at every `every`-th call, again after the same number of calls, then let it finish. Returns calls, kinds and problems."""
    kinds, wrong, at = Counter[str](), list[str](), 1
    while at < MOST_CALLS:
        root = scratch / f"{scenario}{at}"
        killed, promised, call = run_killed(scenario, root, at)
        if not killed:
            return at - 1, kinds, wrong
        kinds[call.split()[0]] += 1
        where = f"{scenario}, call {at} ({call})"
        wrong += [f"{where}: {p}" for p in problems(Store(root), promised, ended=False)]
        _, more, _ = run_killed(scenario, root, at)
        promised += more
        wrong += [f"{where}, twice: {p}" for p in problems(Store(root), promised, ended=False)]
        killed, more, _ = run_killed(scenario, root, MOST_CALLS)
        assert not killed
        wrong += [f"{where}, at the end: {p}" for p in problems(Store(root), promised + more, ended=True)]
        at += every
    raise AssertionError(f"{scenario} makes more than {MOST_CALLS} calls")


def main() -> None:
    """Kill at all calls of all scenarios, then write docs/verification/crash-points.json."""
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    results: dict[str, Any] = {"every": every}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for scenario in SCENARIOS:
            calls, kinds, found = crash_points(scenario, Path(folder), every)
            results[scenario] = {"calls": calls, "kinds": dict(sorted(kinds.items()))}
            wrong += found
    calls = "each" if every == 1 else f"every {every}th"
    what = f"publishing killed before {calls} of its system calls, twice in a row: nothing lost, doubled or left behind"
    write_report("crash-points", what, "failed" if wrong else "ok", results=results, problems=wrong[:20])
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
