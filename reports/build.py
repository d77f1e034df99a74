"""The whole report: reads a store, writes a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.errors import cannot_write
from harness.contract.events import EVENTS_FILE, Eval, read_events
from harness.contract.records import Record
from harness.store import Store
from reports.figures import SYNTHETIC_MARK, by_method, save, validation_curves
from reports.frame import GROUP, ROW, failed_pretraining, load_runs
from reports.page import data_uri, render_page
from reports.tables import compare, headline, markdown, plain, row_names

if TYPE_CHECKING:
    import pandas as pd


class BuiltReport(NamedTuple):
    """The report's files by kind, and its tables in short, for a terminal."""

    files: dict[str, Path]
    text: str


def build_report(store: Store, out: Path) -> BuiltReport:
    """Write table.md, table.csv, figures and index.html to `out`. Raises EnvironmentCannot where that cannot be written."""
    runs = load_runs(store)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _build(store, runs, out)
    except OSError as error:
        raise cannot_write(out, error, "report (--out names another folder)") from error


def _build(store: Store, runs: pd.DataFrame, out: Path) -> BuiltReport:
    files: dict[str, Path] = {}
    sections: list[str] = []
    shown: list[str] = []
    groups: list[dict[str, Any]] = []
    frames: list[pd.DataFrame] = []
    for names, group in runs.groupby(GROUP, sort=True) if len(runs) else []:
        described: dict[str, Any] = dict(zip(GROUP, names, strict=True))
        title = group_title(described)
        marks = ("synthetic" if described["synthetic"] else "", *(str(described[k]) for k in GROUP if k != "synthetic"))
        name = slug(" ".join(marks))
        frame = compare(group)
        mark = f"**{SYNTHETIC_MARK}**: " if described["synthetic"] else ""
        sections.append(f"{mark}{title}\n\n{markdown(frame)}\n")
        short = frame[["method", headline(group), "n", "failed", "to scratch", "verdict"]]
        shown.append(f"{mark}{title}\n\n{markdown(short)}\n")
        frames.append(frame.assign(**described))
        figure_title = f"{SYNTHETIC_MARK}\n{title}" if described["synthetic"] else title
        stem = out / f"miou-{name}"
        pictures = save(by_method(group, figure_title), stem)
        files[f"figure{len(groups) + 1}"] = pictures[0]
        curves = save(validation_curves(_curves(store, group), figure_title), out / f"curves-{name}")
        files[f"curves{len(groups) + 1}"] = curves[0]
        groups.append(_page_group(store, group, frame, described, title, name, [pictures[0], curves[0]]))
    failures = failed_pretraining(store)
    nothing = ["There are no fine-tuning runs yet. `bench run` makes some.\n"]
    failed = [f"{_failure_line(r)}\n" for r in failures]
    text, short_text = ("\n".join(part + failed or nothing) for part in (sections, shown))
    notes = (
        "mIoU on voxels in per cent, 95 % interval where n allows one; n counts pre-training seeds. selected: chosen on\n"
        "held-out training scenes. best: selected on the test split, as papers do.\n"
    )
    files["table"] = _write(out / "table.md", f"{text}\n{notes}".encode())
    files["csv"] = _write(out / "table.csv", _csv(frames))
    page = render_page(groups, [_failure(r) for r in failures], any(g["synthetic"] for g in groups))
    files["page"] = _write(out / "index.html", page.encode())
    return BuiltReport(files, f"{short_text}\n{notes}")


def _failure_line(record: Record) -> str:
    mark = f"**{SYNTHETIC_MARK}**: " if record.synthetic else ""
    text = f"{record.method}/{record.stage} {record.key}: {record.outcome.value}: {record.message}"
    return f"{mark}Pre-training failed: {plain(text)}"


def group_title(described: dict[str, Any]) -> str:
    """What a group of runs has in common, in words."""
    return (
        f"{described['task']} on {described['dataset']}, {described['label_percent']:g}% of the labels, "
        f"budget {described['budget']}, profile {described['profile']}"
    )


def slug(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _csv(frames: list[pd.DataFrame]) -> bytes:
    import pandas as pd

    return (pd.concat(frames).to_csv(index=False) if frames else "").encode()


def _page_group(
    store: Store,
    group: pd.DataFrame,
    frame: pd.DataFrame,
    described: dict[str, Any],
    title: str,
    name: str,
    pictures: list[Path],
) -> dict[str, Any]:
    column = f"miou_voxel_{headline(group)}"
    runs = []
    for found in group.sort_values(["method", "pretrain_seed", "finetune_seed"]).to_dict("records"):
        row = {str(name): value for name, value in found.items()}
        record = store.record("finetune", row["key"])
        assert record is not None
        score = row[column]
        runs.append(
            {
                **{k: row[k] for k in ("key", "method", "pretrain_seed", "finetune_seed", "outcome", "message")},
                "score": f"{100 * score:.1f}" if score == score else "",
                "facts": _facts(record, row),
                "classes": _classes(store, record),
                "warnings": record.warnings,
            }
        )
    return {
        "id": name,
        "title": title,
        "synthetic": described["synthetic"],
        "columns": list(frame.columns),
        "rows": frame.to_numpy().tolist(),
        "headline": headline(group),
        "figures": [data_uri(picture) for picture in pictures],
        "runs": runs,
    }


def _curves(store: Store, group: pd.DataFrame) -> dict[str, list[tuple[str, list[int], list[float]]]]:
    """Row name to the validation curves of its runs, from their events."""
    curves: dict[str, list[tuple[str, list[int], list[float]]]] = {}
    for name, which in row_names(group).items():
        for key in group[(group[ROW] == list(which)).all(axis=1)]["key"]:
            events = read_events(store.folder("finetune", key) / EVENTS_FILE)
            points = [
                (e.step, e.metrics.get("miou_voxel")) for e in events if isinstance(e, Eval) and e.split == "test"
            ]
            known = [(step, score) for step, score in points if score is not None]
            if known:
                curves.setdefault(name, []).append((which[0], [p[0] for p in known], [p[1] for p in known]))
    return curves


def _facts(record: Record, row: dict[str, Any]) -> list[tuple[str, str]]:
    provenance = record.provenance
    commit = (provenance.git_commit or "installed copy")[:12] + (
        " (with uncommitted changes)" if provenance.git_dirty else ""
    )
    return [
        ("pre-trained on", row["pretrain_dataset"]),
        ("steps", f"{row['pretrain_steps']:,} pre-training, {row['finetune_steps']:,} fine-tuning"),
        (
            "CPU seconds",
            f"{row['pretrain_cpu_seconds']:,.0f} pre-training, {row['finetune_cpu_seconds']:,.0f} fine-tuning",
        ),
        ("labels seen", f"{row['labels_seen']:,}"),
        ("peak memory", f"{row['peak_memory_mib']:,.0f} MiB"),
        ("executor", f"{record.executor}, label isolation: {record.label_isolation}"),
        ("code", f"version {provenance.project_version}, commit {commit}"),
        ("machine", f"{provenance.cpu}, {provenance.cpu_count} CPUs, {provenance.memory_bytes >> 30} GiB"),
        ("numerics", ", ".join(f"{k} {v}" for k, v in provenance.numerics.items())),
        ("started", record.started_at),
        *record.notes.items(),
        *row["pretrain_notes"],
    ]


def _classes(store: Store, record: Record) -> list[tuple[str, ...]]:
    spec = store.spec("finetune", record.key)
    if spec.data is None or not record.metrics:
        return []

    def value(number: int, checkpoint: str) -> str:
        found = record.metrics.get(f"iou_voxel/{number}_{checkpoint}")
        return "-" if found is None else f"{100 * found:.1f}"

    return [(name, *(value(i, c) for c in ("final", "selected", "best"))) for i, name in enumerate(spec.data.classes)]


def _failure(record: Record) -> dict[str, str]:
    return {
        "key": record.key,
        "method": record.method,
        "stage": record.stage,
        "outcome": record.outcome.value,
        "message": record.message,
        "data": "SYNTHETIC" if record.synthetic else "real",
    }


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path
