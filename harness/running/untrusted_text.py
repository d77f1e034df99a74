"""Makes texts that a stage wrote fit for records and messages: they are untrusted, and records are passed on to others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pretrain_bench.benchmarks.support.foreign_files import open_plain

MAX_TEXT = 4000
MAX_ITEMS = 100
LOG_TAIL_LINES = 5


def fit_to_keep(text: str) -> str:
    """A stage's text as it may stand in a record: without control characters, absolute paths cut to their last part (they tell
    about the machine), at most MAX_TEXT characters."""
    plain = "".join(c if c.isprintable() or c == "\n" else " " for c in text[: 2 * MAX_TEXT])
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+", "", plain)[:MAX_TEXT]


def clean_items(items: Mapping[str, str]) -> dict[str, str]:
    """Names and texts that a stage chose, fit to keep; at most MAX_ITEMS of them."""
    return {fit_to_keep(k)[:100]: fit_to_keep(v) for k, v in list(items.items())[:MAX_ITEMS]}


def clean_metrics(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Metrics under names that a record takes: printable ASCII, others escaped, at most 200 characters; 10 MAX_ITEMS of them."""
    named = {}
    for name, value in list(metrics.items())[: 10 * MAX_ITEMS]:
        ascii_name = name.encode("ascii", "backslashreplace").decode()
        named["".join(c if c.isprintable() else " " for c in ascii_name)[:200] or "unnamed"] = value
    return named


def log_tail(log: Path) -> str:
    """The last lines of a log, joined into one line, without control characters."""
    try:
        with open_plain(log) as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read(4096).decode(errors="replace").splitlines()
    except OSError:
        return "(none)"
    text = " | ".join(line.strip() for line in lines[-LOG_TAIL_LINES:] if line.strip())
    return "".join(c for c in text if c.isprintable()) or "(empty)"
