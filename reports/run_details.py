"""What the page tells of each run: made once for all runs, and small, since a page may hold thousands."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.contract.records import Outcome, Record
from harness.store import LOG, Store
from reports.frame import Loaded
from reports.tables import headline

if TYPE_CHECKING:
    import pandas as pd

Curve = tuple[Sequence[int], Sequence[float]]
LOG_LINES, LOG_BYTES, LOG_RUNS = 12, 1500, 1000
"""Of the log: so many last lines; of runs that ended well only where there are not more runs than this."""

HOMES = re.compile(r"(?:/home|/Users)/[^/\s:\"']+|/root(?=[/\s]|$)")
"""A page may be handed on; logs hold paths of whoever ran the stage."""


class Details:
    """Texts are kept once and named by their number; `as_json` is what the page reads."""

    def __init__(self, store: Store, loaded: Loaded) -> None:
        self.store, self.loaded = store, loaded
        self.texts: dict[str, int] = {}
        self.classes: list[Sequence[str]] = []
        self.runs: list[dict[str, Any]] = []
        self.few = len(loaded.records) <= LOG_RUNS

    def add(self, group: pd.DataFrame, place: int, title: str, curves: Mapping[str, Curve]) -> None:
        """The fine-tunings of one group, with the validation curve of each by key."""
        checkpoint = headline(group)
        for found in group.sort_values(["method", "pretrain_seed", "finetune_seed"]).to_dict("records"):
            row = {str(name): value for name, value in found.items()}
            record = self.loaded.records[row["key"]]
            score = row[f"score_{checkpoint}"]
            run = self._common(record, [*_facts(record, row)])
            run |= {
                "seeds": f"{row['pretrain_seed']}/{row['finetune_seed']}",
                "group": place,
                "what": self._text(title),
                "score": round(100 * score, 2) if score == score else None,
            }
            if record.key in curves:
                steps, values = curves[record.key]
                run["curve"] = [list(steps), [round(100 * v, 2) for v in values]]
            names, table = self._per_class(record)
            if table:
                run |= {"classes": names, "iou": table}
            self.runs.append(run)

    def add_failed_pretraining(self, record: Record) -> None:
        """A pre-training that has no fine-tuning behind it."""
        run = self._common(record, _environment(record))
        self.runs.append(
            {**run, "seeds": "", "group": None, "what": self._text(f"pre-training, {record.stage}"), "score": None}
        )

    def as_json(self) -> dict[str, Any]:
        """Runs, and the texts and class names that they refer to."""
        return {"runs": self.runs, "texts": list(self.texts), "classes": self.classes}

    def _common(self, record: Record, facts: list[tuple[str, str]]) -> dict[str, Any]:
        run: dict[str, Any] = {
            "key": record.key,
            "method": record.method,
            "synthetic": record.synthetic,
            "outcome": record.outcome.value,
            "facts": [[self._text(str(name)), self._text(str(value))] for name, value in facts],
        }
        if record.message:
            run["message"] = record.message
        if record.warnings:
            run["warnings"] = list(record.warnings)
        if (self.few or record.outcome != Outcome.ok) and (log := self._log_tail(record)):
            run["log"] = log
        return run

    def _text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def _log_tail(self, record: Record) -> str:
        try:
            with (self.store.folder(record.kind, record.key) / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, io.SEEK_END) - LOG_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return ""
        text = "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)
        return HOMES.sub("~", text)

    def _per_class(self, record: Record) -> tuple[int, list[list[float | None]]]:
        spec = self.loaded.specs[record.key]
        data = spec.data
        if data is None or not record.metrics:
            return 0, []
        if data.classes not in self.classes:
            self.classes.append(data.classes)

        def value(number: int, checkpoint: str) -> float | None:
            found = record.metrics.get(f"{spec.class_metric}/{number}_{checkpoint}")
            return None if found is None else round(100 * found, 1)

        table = [[value(i, c) for c in ("final", "selected", "best")] for i in range(len(data.classes))]
        return self.classes.index(data.classes), table if any(v is not None for row in table for v in row) else []


def _facts(record: Record, row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("pre-trained on", row["pretrain_dataset"]),
        ("pre-training runs", ", ".join(row["pretrain_keys"])),
        ("steps", f"{row['pretrain_steps']:,} pre-training, {row['finetune_steps']:,} fine-tuning"),
        (
            "CPU seconds",
            f"{row['pretrain_cpu_seconds']:,.0f} pre-training, {row['finetune_cpu_seconds']:,.0f} fine-tuning",
        ),
        (
            "GPU seconds",
            f"{row['pretrain_gpu_seconds']:,.0f} pre-training, {row['finetune_gpu_seconds']:,.0f} fine-tuning",
        ),
        ("labels seen", f"{row['labels_seen']:,}"),
        ("peak memory", f"{row['peak_memory_mib']:,.0f} MiB"),
        *_environment(record),
        *record.notes.items(),
        *row["pretrain_notes"],
    ]


def _environment(record: Record) -> list[tuple[str, str]]:
    provenance = record.provenance
    commit = (provenance.git_commit or "installed copy")[:12]
    if provenance.git_dirty:
        commit += " (with uncommitted changes)"
    return [
        ("attempt", str(record.attempt)),
        ("executor", f"{record.executor}, label isolation: {record.label_isolation}"),
        ("not enforced", ", ".join(record.not_enforced) or "-"),
        ("image", record.image or "-"),
        ("code", f"version {provenance.project_version}, commit {commit}"),
        ("machine", f"{provenance.cpu}, {provenance.cpu_count} CPUs, {provenance.memory_bytes >> 30} GiB"),
        ("numerics", ", ".join(f"{k} {v}" for k, v in provenance.numerics.items())),
        ("started", record.started_at),
    ]
