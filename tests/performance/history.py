"""The history of `make perf`: a line per quantity and measured commit, as ratios, which machines of one kind share."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.records import Provenance

HISTORY = Path(__file__).parent.parent.parent / "docs/performance-history.csv"
COLUMNS = ("date", "commit", "cpu", "torch", "quantity", "ratio", "bound")


def append_rows(rows: Sequence[Mapping[str, Any]], machine: Provenance, date: str, path: Path = HISTORY) -> None:
    """Append one line per row of perf.json. Raises WrongUse if the tree has uncommitted changes: no commit names its code."""
    if machine.git_commit is None or machine.git_dirty:
        raise WrongUse("--record: commit the changes first; the history names the commit that was measured")
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(
                (date, machine.git_commit[:12], machine.cpu, machine.packages["torch"], row["name"], f"{row['ratio']:.3f}", row["must"])
            )  # fmt: skip


def last_ratios(machine: Provenance, path: Path = HISTORY) -> dict[str, float]:
    """The latest recorded ratio of each quantity on this kind of CPU with this torch."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    kind = (machine.cpu, machine.packages["torch"])
    return {line["quantity"]: float(line["ratio"]) for line in lines if (line["cpu"], line["torch"]) == kind}
