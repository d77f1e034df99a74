"""The paper's numbers, by our names. Facts with their source; see published/README.md for what each file is."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "published"
TASKS = {
    "S3DIS semantic": "s3dis-sem", "S3DIS instance": "s3dis-inst", "ScanNet semantic": "scannet-sem",
    "ScanNet instance": "scannet-inst", "ScanNet object detection": "scannet-det", "SemanticKITTI semantic": "kitti-sem",
    "SUNRGBD object detection": "sunrgbd-det",
}  # fmt: skip
METHODS = {
    "Scratch": "scratch", "Supervised": "supervised", "PointContrast": "pointcontrast", "CSC": "csc",
    "DepthContrast": "depthcontrast", "Ours": "ours",
}  # fmt: skip
PROTOCOL = "Janda et al., Table I (columns put right): one run each, best checkpoint on the test split"


class Published(NamedTuple):
    """One published number, in per cent."""

    task: str
    method: str
    metric: str
    value: float
    source: str


@cache
def table1() -> tuple[Published, ...]:
    """Table I with its columns put right; cells that the paper leaves empty are left out."""
    with (FOLDER / "table1_corrected.csv").open(newline="") as file:
        return tuple(
            Published(TASKS[row["task"]], METHODS[row["method"]], row["metric"], float(row["value"]), row["source"])
            for row in csv.DictReader(file)
            if row["value"]
        )


def of(task: str, method: str) -> Published | None:
    """The published number of a cell at all labels, None where there is none."""
    return next((p for p in table1() if (p.task, p.method) == (task, method)), None)


@cache
def ratio_curve(task: str, method: str) -> tuple[tuple[float, float], ...]:
    """(label ratio in per cent, value in per cent) of Figure 3."""
    with (FOLDER / "figure3_data_fraction.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if TASKS.get(r["task"]) == task and METHODS.get(r["method"]) == method]
    return tuple(sorted((float(r["label_fraction_percent"]), float(r["value"])) for r in rows if r["value"]))
