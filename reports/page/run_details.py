"""Details of each run on the page, kept small, since a page may hold thousands of runs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.support.foreign_files import open_plain
from pretrain_bench.harness.contract.records import Outcome, Record
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.store.store import CONFUSION, LOG, Store
from pretrain_bench.reports.analysis.digests import digest_of_text
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.scores import class_metric, headline_checkpoint
from pretrain_bench.reports.analysis.what_ran import code_words, machine_words
from pretrain_bench.reports.page import run_attachments
from pretrain_bench.reports.tables.wording import format_amount

if TYPE_CHECKING:
    import pandas as pd

Curve = tuple[Sequence[int], Sequence[float]]
LOG_LINES, LOG_BYTES, LOG_RUNS = 12, 1500, 1000
"""Limits for the end of a log: lines, bytes, and the number of runs up to which successful runs show it too."""

MOST_LIST_LETTERS = 120
MOST_MATRICES_BYTES, MOST_PICTURES_BYTES = 2 << 20, 20 << 20
"""Bytes on the page for confusion matrices and for pictures, over all runs; excluded runs are counted."""
PICTURE_BYTES = 40_000
"""Bytes counted for each picture in addition to its size, to limit the number of small or broken ones, which also take time."""

HOMES = re.compile(r"(?:/home|/Users)/[^/\s:\"']+|/root(?=[/\s]|$)")
"""Home folders, which logs contain and a shared page should not reveal."""


class RunDetails:
    """Collects the details of runs for the page. Equal texts are stored once and referred to by number."""

    def __init__(self, store: Store, loaded: Loaded, with_pictures: bool = True) -> None:
        self.store, self.loaded, self.with_pictures = store, loaded, with_pictures
        self.texts: dict[str, int] = {}
        self.classes: list[Sequence[str]] = []
        self.runs: list[dict[str, Any]] = []
        self.specs: list[list[list[int]]] = []
        self.places_of_specs: dict[int, int] = {}
        self.few = len(loaded.records) <= LOG_RUNS
        self.matrices, self.pictures = ByteAllowance(MOST_MATRICES_BYTES), ByteAllowance(MOST_PICTURES_BYTES)

    def add(self, group: pd.DataFrame, place: int, title: str, curves: Mapping[str, Curve]) -> None:
        """Add the fine-tunings of one group. `place`: its position on the page; `curves`: validation curves by run key."""
        checkpoint = headline_checkpoint(group)
        for columns in group.sort_values(["method", "pretrain_seed", "finetune_seed"]).to_dict("records"):
            row = {str(name): value for name, value in columns.items()}
            record = self.loaded.records[row["key"]]
            score = row[f"score_{checkpoint}"]
            run = self._common(record, [*_facts(record, row)])
            run |= {
                "seeds": f"{row['pretrain_seed']}/{row['finetune_seed']}",
                "group": place,
                "what": self._text(title),
                "row": self._text(row["row"]),
                "also": self._text(" ".join((row["pretrain_dataset"], *row["pretrain_keys"]))),
                "spec": self._spec(self.loaded.specs[record.key]),
                "score": round(100 * score, 2) if score == score else None,
            }
            if record.key in curves:
                steps, values = curves[record.key]
                run["curve"] = [list(steps), [round(100 * v, 2) for v in values]]
            names, table = self._per_class(record)
            if table:
                run |= {"classes": names, "each": self._text(class_metric(row["metric"])), "iou": table}
            self._add_files(run, record, checkpoint)
            self.runs.append(run)

    def add_failed_pretraining(self, record: Record) -> None:
        """Add a failed pre-training, which no fine-tuning followed."""
        run = self._common(record, _environment(record))
        self.runs.append(
            {
                **run,
                "seeds": "",
                "row": self._text(record.method),
                "group": None,
                "what": self._text(f"pre-training, {record.stage}"),
                "score": None,
            }
        )

    def as_json(self) -> dict[str, Any]:
        """The runs, the texts and class names that they refer to, and notes on omissions, for the page."""
        left_out = [
            f"The {kind} of {allowance.left_out:,} runs are left out to keep this page small; their folders hold them ({where})."
            for allowance, kind, where in (
                (self.matrices, "confusion matrices", CONFUSION),
                (self.pictures, "pictures of predictions", f"{run_attachments.PICTURES}/"),
            )
            if allowance.left_out
        ]
        return {
            "runs": self.runs,
            "texts": list(self.texts),
            "classes": self.classes,
            "specs": self.specs,
            "left_out": left_out,
        }

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

    def _spec(self, spec: StageSpec) -> int:
        """The number of a spec, shared by runs that differ only in seed and parents."""
        if id(spec) not in self.places_of_specs:
            self.places_of_specs[id(spec)] = len(self.specs)
            fields = spec.model_dump(mode="json", exclude={"seed", "parents"})
            self.specs.append([[self._text(name), self._text(value)] for name, value in _flat(fields)])
        return self.places_of_specs[id(spec)]

    def _log_tail(self, record: Record) -> str:
        try:
            with open_plain(self.store.folder(record.kind, record.key) / LOG) as file:
                file.seek(max(0, file.seek(0, io.SEEK_END) - LOG_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return ""
        return HOMES.sub("~", "\n".join(map(_printable, lines)))

    def _add_files(self, run: dict[str, Any], record: Record, checkpoint: str) -> None:
        """Add the confusion matrix of the headline checkpoint and pictures of predictions, if the run has them."""
        folder = self.store.folder(record.kind, record.key)
        spec, problems = self.loaded.specs[record.key], []
        if spec.data is not None and spec.data.classes:
            level = spec.headline_metric.removeprefix("miou_")
            try:
                matrix = run_attachments.confusion(folder, checkpoint, level, len(spec.data.classes))
            except run_attachments.Unreadable as error:
                problems.append(str(error))
                matrix = None
            if matrix is not None and self.matrices.take(len(json.dumps(matrix, separators=(",", ":")))):
                run |= {
                    "classes": self._classes(spec.data.classes),
                    "confusion": {**matrix._asdict(), "of": checkpoint},
                }
        if self.with_pictures:
            problems += self._add_pictures(run, folder)
        if problems:
            run["problems"] = problems

    def _add_pictures(self, run: dict[str, Any], folder: Path) -> list[str]:
        """Add pictures to a run. Returns the reasons for those that cannot be shown."""
        paths, more = run_attachments.pictures(folder)
        shown, problems = [], []
        if paths and self.pictures.full:
            self.pictures.left_out += 1
            return []
        for path in paths:
            try:
                shown.append([_printable(path.stem), run_attachments.picture_uri(path)])
            except run_attachments.Unreadable as error:
                problems.append(f"{run_attachments.PICTURES}/{_printable(path.name)} cannot be shown: {error}")
        size = PICTURE_BYTES * len(paths) + sum(len(uri) for _, uri in shown)
        if paths and self.pictures.take(size):
            run["pictures"] = shown
            if more:
                problems.append(f"more pictures in {run_attachments.PICTURES}/ of the run's folder: {more}")
        return problems

    def _classes(self, names: Sequence[str]) -> int:
        if names not in self.classes:
            self.classes.append(names)
        return self.classes.index(names)

    def _per_class(self, record: Record) -> tuple[int, list[list[float | None]]]:
        spec = self.loaded.specs[record.key]
        data = spec.data
        if data is None or not record.metrics:
            return 0, []

        def value(number: int, checkpoint: str) -> float | None:
            score = record.metrics.get(f"{spec.class_metric}/{number}_{checkpoint}")
            return None if score is None else round(100 * score, 1)

        table = [[value(i, c) for c in CHECKPOINTS] for i in range(len(data.classes))]
        return self._classes(data.classes), table if any(v is not None for row in table for v in row) else []


def _flat(fields: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested fields as `outer.inner` and text; long lists as their length and hash."""
    if isinstance(fields, dict) and fields:
        for key, value in fields.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
        return
    text = json.dumps(fields)
    long = isinstance(fields, list) and len(text) > MOST_LIST_LETTERS
    yield name, f"{len(fields)} entries #{digest_of_text(text)}" if long else text.strip('"')


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)


class ByteAllowance:
    """Bytes of the page, allotted first come, first served; `left_out` counts refused requests."""

    def __init__(self, most: int) -> None:
        self.most, self.used, self.left_out, self.full = most, 0, 0, False

    def take(self, size: int) -> bool:
        """Use `size` bytes. The first request that does not fit is refused, and so are all after it."""
        self.full = self.full or self.used + size > self.most
        if self.full:
            self.left_out += 1
            return False
        self.used += size
        return True


def _facts(record: Record, row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("pre-trained on", row["pretrain_dataset"]),
        ("pre-training runs", ", ".join(row["pretrain_keys"])),
        ("contamination", record.contamination.text if record.contamination else row["contamination"]),
        ("steps", _used(row, "steps")),
        ("CPU seconds", _used(row, "cpu_seconds")),
        ("GPU seconds", _used(row, "gpu_seconds")),
        ("labels seen", _used(row, "labels")),
        ("peak memory", f"{row['peak_memory_mib']:,.0f} MiB"),
        *_environment(record),
        *record.notes.items(),
        *row["pretrain_notes"],
    ]


def _used(row: dict[str, Any], what: str) -> str:
    before, after = (format_amount(row[f"{half}_{what}"], ",.0f") for half in ("pretrain", "finetune"))
    return f"{before} pre-training, {after} fine-tuning"


def _environment(record: Record) -> list[tuple[str, str]]:
    provenance = record.provenance
    return [
        ("attempt", str(record.attempt)),
        ("executor", f"{record.executor}, label isolation: {record.label_isolation}"),
        ("not enforced", ", ".join(record.not_enforced) or "-"),
        ("image", record.image or "-"),
        ("code", code_words(provenance)),
        ("machine", machine_words(provenance)),
        ("numerics", ", ".join(f"{k} {v}" for k, v in provenance.numerics.items())),
        ("started", record.started_at),
    ]
