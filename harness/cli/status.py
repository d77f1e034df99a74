"""`bench status`: what runs in a store now, seen from another shell."""

from __future__ import annotations

import json as jsonlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pretrain_bench.harness.cli.options import DEFAULT_RUNS, Json, Runs

TAIL_BYTES = 1 << 16


def status(runs: Runs = DEFAULT_RUNS, json: Json = False) -> None:
    """Show what runs: since when, how far, steps per second, when it will be done; and how many runs ended in which way."""
    from pretrain_bench.harness.cli.console import print_json, table
    from pretrain_bench.harness.store.bundle import open_store
    from pretrain_bench.harness.store.store import KINDS

    store = open_store(runs)
    store.check()
    runs = store.root
    under_way = [_one(store, folder) for folder in sorted((runs / ".partial").glob("[!.]*")) if folder.is_dir()]
    outcomes = Counter(
        outcome for kind in KINDS for folder in (runs / kind).glob("*") if (outcome := _outcome(folder)) is not None
    )
    if json:
        print_json({"under_way": under_way, "outcomes": dict(outcomes)})
        return
    rows = [
        (s["key"][:8], s["stage"], s["state"], f"{s['step']}/{s['steps']}", _rate(s), _left(s), s["by"] or "-")
        for s in under_way
    ]
    headers = ("run", "stage", "state", "step", "steps/s", "left", "by")
    print(table(headers, rows) if rows else "nothing runs")
    print(", ".join(f"{n} {name}" for name, n in sorted(outcomes.items())) or "no run has ended yet")


def _one(store: Any, folder: Path) -> dict[str, Any]:
    """A stage under way, or one that was left and would go on."""
    from pretrain_bench.harness.contract.events import EVENTS_FILE, Start, Step
    from pretrain_bench.harness.contract.stage import STAGE_FILE

    holder = store.held_by(folder.name)
    try:
        spec = jsonlib.loads((folder / "root/in" / STAGE_FILE).read_bytes())
        stage = (
            f"{spec['method']}/{spec['stage']}" if spec["kind"] == "pretrain" else f"{spec['method']} -> {spec['task']}"
        )
    except (OSError, ValueError, KeyError):
        stage = "?"
    events = list(_ends(folder / "root/out" / EVENTS_FILE))
    starts = [e for e in events if isinstance(e, Start)]
    steps = [e for e in events if isinstance(e, Step)]
    seconds = [e.seconds for e in steps[-50:]]
    rate = len(seconds) / sum(seconds) if sum(seconds) > 0 else None
    step, total = (steps[-1].step if steps else 0), (starts[-1].total_steps if starts else 0)
    left = (total - step) / rate if rate and holder else None
    return {
        "key": folder.name, "stage": stage, "state": "running" if holder else "left", "by": holder, "step": step,
        "steps": total, "steps_per_second": rate, "seconds_left": left,
    }  # fmt: skip


def _ends(path: Path) -> Any:
    """The events at the beginning and at the end of a file, which may be long."""
    import os

    from pretrain_bench.harness.contract.events import open_plain, parse_event

    try:
        with open_plain(path, os.O_RDONLY) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(TAIL_BYTES)
            file.seek(max(len(head), size - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
    except OSError:
        return
    for line in [*head.splitlines(keepends=True), *tail.splitlines(keepends=True)]:
        event = parse_event(line)
        if event is not None:
            yield event


def _outcome(folder: Path) -> str | None:
    """The outcome in a run's record, found without reading all of it: records are written one field a line."""
    import os

    from pretrain_bench.harness.contract.events import open_plain
    from pretrain_bench.harness.store.store import RECORD

    try:
        with open_plain(folder / RECORD, os.O_RDONLY) as file:
            found = re.search(rb'\n "outcome": "(\w+)"', file.read())
    except FileNotFoundError:
        return None
    except OSError:  # a link, a pipe or a folder in its place
        return "damaged" if folder.is_dir() else None
    return found.group(1).decode() if found else "damaged"


def _rate(state: dict[str, Any]) -> str:
    rate = state["steps_per_second"]
    return "-" if rate is None else f"{rate:.2f}"


def _left(state: dict[str, Any]) -> str:
    from pretrain_bench.harness.cli.console import duration

    left = state["seconds_left"]
    if left is None:
        return "-"
    return duration(left)
