"""Kills processes of a running suite of sleeping stages, restarts it, and checks the store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from pretrain_bench.harness.audit.coverage import CHECK as WHOLE_SPLIT
from pretrain_bench.harness.audit.findings import Tally
from pretrain_bench.harness.audit.static import audit_files
from pretrain_bench.harness.clusters.submissions import FOLDER
from pretrain_bench.harness.store import chain
from pretrain_bench.harness.store.hashes import hash_artifacts
from pretrain_bench.harness.store.store import Store

REPOSITORY = Path(__file__).parent.parent.parent
STAGES = 30
"""Stages of `tests.faults.suite`: six pre-trainings and 24 fine-tunings."""
EXPECTED = {"seeds give different results", WHOLE_SPLIT}
"""Expected failed checks of the audit: sleeping stages have equal scores, and the data have only one room of Area 5."""


class NothingToKill(Exception):
    """The suite ended before the fault."""


def start(runs: Path, s3dis: Path, *more: str) -> subprocess.Popen[str]:
    """Start the suite in a separate process."""
    command = [sys.executable, "-m", "tests.faults.suite", str(runs), str(s3dis), *more]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(runs: Path, s3dis: Path) -> str:
    """Run the remaining stages; raises AssertionError if that fails."""
    process = start(runs, s3dis)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out


def kill(process: subprocess.Popen[str], whom: str, chance: random.Random) -> str:
    """Send SIGKILL to the `harness`, to a `stage`, or to a `worker` (a stage and, a moment later, its harness)."""
    try:
        stages = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return "it had ended"
    if whom != "harness":
        if not stages:
            return "no stage ran"
        victim = chance.choice(stages)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return "it had ended"
        time.sleep(chance.random() * 0.05)
    if whom != "stage":
        process.kill()
    return "killed"


def kill_at_random(root: Path, s3dis: Path, times: int, seed: int) -> Counter[str]:
    """Start the suite, kill one of its processes at a random moment, and repeat until `times` kills have hit. A store whose suite is
    finished is checked, and the next one started. Returns the number of kills by kind."""
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    number = 0
    while sum(done.values()) < times:
        runs = root / f"store{number}"
        whom = chance.choice(("harness", "stage", "worker"))
        process = start(runs, s3dis)
        wait_for_a_stage(process)
        time.sleep(chance.random() * 1.5)
        hit = kill(process, whom, chance)
        process.communicate(timeout=300)
        if hit == "killed":
            done[whom] += 1
        else:
            finish(runs, s3dis)
            check_whole(runs)
            number += 1
    finish(root / f"store{number}", s3dis)
    check_whole(root / f"store{number}")
    return done


def wait_for_a_stage(process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until the suite runs a stage or has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if psutil.Process(process.pid).children():
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.02)


def check_whole(runs: Path, stages: int = STAGES) -> None:
    """Check that each stage exists once and succeeded, no files or processes are left over, and an audit has only expected findings."""
    store = Store(runs)
    records = list(store.records())
    assert len(records) == stages and len({r.key for r in records}) == stages
    assert {r.outcome for r in records} == {"ok"}, Counter(r.outcome for r in records)
    for record in records:
        folder = store.folder(record.kind, record.key)
        assert hash_artifacts(folder / "artifacts") == record.artifacts
        numbers = sorted(int(p.name) for p in (folder / "attempts").iterdir())
        assert numbers == list(range(1, record.attempt + 1))
    left = [p for p in (runs / ".partial").glob("*") if p.is_dir() and p.name != FOLDER]
    assert not left, left
    links = chain.read(runs)
    assert links is not None and not links.faults
    counted = Counter((link.kind, link.key) for link in links.links if link.outcome == "ok")
    assert len(counted) == stages and set(counted.values()) == {1}, "each stage was completed once"
    tally = Tally()
    audit_files(store, tally)
    wrong = [f for f in tally.findings if f.verdict == "failed" and f.check not in EXPECTED]
    assert not [f for f in wrong if "seen from outside" not in f.check], wrong
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        sleeps = "tests.faults.sleeper" in line or "faults/sleeper.py" in line
        assert not (sleeps and str(runs) in line), "a stage lives on"


def plant_rubbish(runs: Path) -> None:
    """Leave files as after a crash of the machine: partial files and empty folders, in every place."""
    for kind in ("pretrain", "finetune"):
        (runs / kind / "0123456789abcdef0123").mkdir(parents=True, exist_ok=True)
        half = runs / ".partial" / f"fedcba98765432100{len(kind):03d}"
        (half / "root/out").mkdir(parents=True, exist_ok=True)
        (half / "root/out/events.jsonl").write_text('{"event":"st')
        (half / "child.json").write_text("{")
        (half / "attempts/1").mkdir(parents=True, exist_ok=True)
        (half / "attempts/1/record.json.tmp").write_text('{"half')
    with (runs / chain.CHAIN_FILE).open("ab") as file:
        file.write(b'{"kind":"finetune","key":"half')


def interrupt_twice(runs: Path, s3dis: Path) -> tuple[int, str]:
    """Send Ctrl-C twice, a moment apart; returns the exit code and the last line."""
    process = start(runs, s3dis)
    wait_for_a_stage(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    return process.returncode, (error.strip().splitlines() or [""])[-1]


def many_folders(runs: Path, number: int) -> None:
    """Copy one complete run under many keys, with matching records."""
    source = next((runs / "finetune").glob("*/record.json"))
    record = json.loads(source.read_text())
    for i in range(number):
        folder = runs / "finetune" / f"{i:020x}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({**record, "key": folder.name}, indent=1, sort_keys=True))
    os.sync()
