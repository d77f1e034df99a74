"""The paper's published numbers, by our names of tasks and methods; published/README.md gives the source of each file."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent.parent / "published"
TASKS = {
    "S3DIS semantic": "s3dis-sem", "S3DIS instance": "s3dis-inst", "ScanNet semantic": "scannet-sem",
    "ScanNet instance": "scannet-inst", "ScanNet object detection": "scannet-det", "SemanticKITTI semantic": "kitti-sem",
    "SUNRGBD object detection": "sunrgbd-det",
}  # fmt: skip
METHODS = {
    "Scratch": "scratch", "Supervised": "supervised", "PointContrast": "pointcontrast", "CSC": "csc",
    "DepthContrast": "depthcontrast", "Ours": "ours", "Ours(CME)": "ours",
    "PointContrast(>70% overlap)": "pointcontrast (>70% overlap)", "PointContrast(same scan)": "pointcontrast (same scan)",
    "CSC(>70% overlap)": "csc (>70% overlap)", "CSC(same scan)": "csc (same scan)",
}  # fmt: skip
"""The paper's names to ours; the draft's ablations as `published_name` calls them."""
PAIR_OVERLAP = 0.3
"""Least overlap of the frame pairs of PointContrast and CSC, except in the ablations."""
PROTOCOL = "Janda et al., Table I (columns put right): one run each, best checkpoint on the test split"
PROTOCOL_OF_RATIOS = "Janda et al., Figure 3 (values of the draft): one run each, best checkpoint on the test split"
PROTOCOL_OF_CLASSES = "Janda et al., draft: one run each, best checkpoint on the test split"


PRETRAINED_ON = "scannet"
"""The dataset that the methods of Table I were pre-trained on."""

Points = Sequence[tuple[float, float]]


class Published(NamedTuple):
    """One published number, in per cent; `method` as `published_name`."""

    task: str
    method: str
    metric: str
    value: float
    source: str


def published_name(method: str, recipes: Iterable[Mapping[str, Any] | None]) -> str:
    """The paper's name of a method: `csc`, or `csc (same scan)` and `csc (>70% overlap)` where its pairs of frames are
    chosen as in the draft's ablations. `recipes`: of its pre-training stages."""
    for recipe in filter(None, recipes):
        if recipe.get("views") == "same_frame":
            return f"{method} (same scan)"
        overlap = recipe.get("min_overlap", PAIR_OVERLAP)
        if overlap != PAIR_OVERLAP:
            return f"{method} (>{100 * overlap:g}% overlap)"
    return method


@cache
def table1() -> tuple[Published, ...]:
    """Table I with its columns corrected, without the cells that the paper leaves empty."""
    with (FOLDER / "table1_corrected.csv").open(newline="") as file:
        return tuple(
            Published(TASKS[row["task"]], METHODS[row["method"]], row["metric"], float(row["value"]), row["source"])
            for row in csv.DictReader(file)
            if row["value"]
        )


def score_of(task: str, method: str) -> Published | None:
    """The published number of a cell at all labels; None where there is none."""
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
    curves: dict[tuple[str, float, str], list[tuple[int, float]]] = {}
    with (FOLDER / "figure5_curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            task_and_ratio = re.fullmatch(r"(.+) \((\d+)%.*\)", row["task"])
            assert task_and_ratio is not None
            name = TASKS[task_and_ratio[1]], float(task_and_ratio[2]), METHODS[row["method"]]
            curves.setdefault(name, []).append((int(row["step"]), float(row["val_mIoU"])))
    return {name: tuple(sorted(points)) for name, points in curves.items()}


@cache
def per_class(task: str) -> dict[str, dict[str, float]]:
    """Method to class to its value in per cent at all labels; empty where the paper's drafts give none."""
    values: dict[str, dict[str, float]] = {}
    with (FOLDER / "s3dis_per_class.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if TASKS[row["task"]] == task and row["class"] != "mean":
                values.setdefault(METHODS[row["method"]], {})[row["class"]] = float(row["value"])
    return values


def dataset_family(dataset: str) -> str:
    """The real dataset behind a name: a synthetic stand-in belongs to the dataset it imitates, SemanticKITTI to KITTI."""
    return dataset.removeprefix("synth-").replace("semantic", "")


def published_curves(methods: Sequence[str], curve_of: Callable[[str], Points]) -> dict[str, Points]:
    """Published curves by method; `curve_of` gives the points of one method, perhaps none."""
    return {method: points for method in methods if (points := curve_of(method))}
