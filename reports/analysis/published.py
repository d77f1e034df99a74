"""The paper's numbers, by our names. Facts with their source; see published/README.md for what each file is."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "published"
TASKS = {
    "S3DIS semantic": "s3dis-sem", "S3DIS instance": "s3dis-inst", "ScanNet semantic": "scannet-sem",
    "ScanNet instance": "scannet-inst", "ScanNet object detection": "scannet-det", "SemanticKITTI semantic": "kitti-sem",
    "SUNRGBD object detection": "sunrgbd-det",
}  # fmt: skip
METHODS = {
    "Scratch": "scratch", "Supervised": "supervised", "PointContrast": "pointcontrast", "CSC": "csc",
    "DepthContrast": "depthcontrast", "Ours": "ours", "Ours(CME)": "ours",
}  # fmt: skip
PROTOCOL = "Janda et al., Table I (columns put right): one run each, best checkpoint on the test split"
PROTOCOL_OF_RATIOS = "Janda et al., Figure 3 (values of the draft): one run each, best checkpoint on the test split"
PROTOCOL_OF_CLASSES = "Janda et al., draft: one run each, best checkpoint on the test split"


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


def validation_curve(task: str, percent: float, method: str) -> tuple[tuple[int, float], ...]:
    """(step, mIoU in per cent) of Figure 5, the first 10,000 steps of one run; empty where the paper shows none."""
    return _curves().get((task, percent, method), ())


@cache
def _curves() -> dict[tuple[str, float, str], tuple[tuple[int, float], ...]]:
    found: dict[tuple[str, float, str], list[tuple[int, float]]] = {}
    with (FOLDER / "figure5_curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            of_what = re.fullmatch(r"(.+) \((\d+)%.*\)", row["task"])
            assert of_what is not None
            name = TASKS[of_what[1]], float(of_what[2]), METHODS[row["method"]]
            found.setdefault(name, []).append((int(row["step"]), float(row["val_mIoU"])))
    return {name: tuple(sorted(points)) for name, points in found.items()}


@cache
def per_class(task: str) -> dict[str, dict[str, float]]:
    """Method to class to its value in per cent at all labels; empty where the paper's drafts give none."""
    found: dict[str, dict[str, float]] = {}
    with (FOLDER / "s3dis_per_class.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if TASKS[row["task"]] == task and row["class"] != "mean":
                found.setdefault(METHODS[row["method"]], {})[row["class"]] = float(row["value"])
    return found
