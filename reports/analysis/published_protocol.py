"""The protocol of the paper's numbers, and the differences of a row from it. A published number appears beside a row
only if the protocols are equal, the checkpoint included: beside our `best`, never beside `selected` or `final`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.benchmarks.metrics.names import TITLES
from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS, GROUP, NO_DATASET, STEPS
from pretrain_bench.reports.analysis.method_cards import place_of
from pretrain_bench.reports.analysis.published import FOLDER, METHODS, PRETRAINED_ON, TASKS, dataset_family

if TYPE_CHECKING:
    import pandas as pd

BEST = "best"
BEST_AS_PAPER = "best on the test split, as the paper"
"""Name of the paper's checkpoint in tables and figures that show its numbers."""


STEPS_TOLERANCE = 0.05
"""Tolerated relative difference of pre-training steps: epochs depend on the number of readable frames."""


class Protocol(NamedTuple):
    """How the paper's numbers of one task were made; None where it does not state it."""

    training_scenes: int
    """All training scenes: the paper holds none out."""
    test_scenes: int
    scenes: str
    """Word for a scene: rooms, scans or views."""
    metric: str | None
    mean_over: int
    """Classes that the metric is a mean over."""
    voxel_metres: float | None
    steps: int | None
    """Optimiser steps of a fine-tuning."""


class Pretraining(NamedTuple):
    """Length of a method's pre-training in the paper."""

    steps: int
    stated: bool
    """Whether the paper states it; otherwise `steps` comes from the decision register."""


class _Difference(NamedTuple):
    paper: str
    here: str


@cache
def protocols() -> dict[str, Protocol]:
    """The protocol of each task of the paper, by our name. Raises ValueError for a checkpoint rule other than `best`."""
    by_paper = {}
    with (FOLDER / "protocols.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["checkpoint"] != BEST:
                raise ValueError(f"protocols.csv: {row['task']}: checkpoint {row['checkpoint']!r}, expected {BEST!r}")
            by_paper[TASKS[row["task"]]] = Protocol(
                int(row["training_scenes"]), int(row["test_scenes"]), row["scenes"], row["metric"] or None,
                int(row["mean_over"]), float(row["voxel_metres"]) if row["voxel_metres"] else None,
                int(row["steps"]) if row["steps"] else None,
            )  # fmt: skip
    return by_paper


@cache
def pretrainings() -> dict[str, Pretraining]:
    """The pre-training of each method of the paper, by its `published_name`."""
    with (FOLDER / "pretraining.csv").open(newline="") as file:
        return {
            METHODS[row["method"]]: Pretraining(int(row["steps"]), not row["stated"].startswith("not stated"))
            for row in csv.DictReader(file)
        }


def difference(row: Mapping[Any, Any]) -> str:
    """How a row differs from the protocol of the paper's numbers for its task, as a sentence; empty if it does not.

    `row`: a row of the frame of runs or effects, for a task that the paper has, limited by a share of scenes. The sentence
    starts with "paper: " and names the same fields of both sides.
    """
    paper = protocols()[row["task"]]
    parts = [*_protocol(row), *_data(row), *_training(row, paper), *_scenes(row, paper), *_metric(row, paper)]
    if not parts:
        return ""
    parts.insert(0, _checkpoint(row, paper))
    return f"paper: {', '.join(p.paper for p in parts)}; here: {', '.join(p.here for p in parts)}"


def methods_as_published(rows: pd.DataFrame) -> list[str]:
    """The methods, as `published_name`, of runs or effects that follow the paper's protocol, so that its numbers are
    comparable; in table order."""
    same = [row for row in with_protocol(rows) if not difference(row)]
    same.sort(key=lambda row: place_of(row["method"]))
    return list(dict.fromkeys(str(row["published_as"]) for row in same))


def families_as_published(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of those families (ACROSS_RATIOS) in which some row has the paper's protocol."""
    same = {tuple(row[c] for c in ACROSS_RATIOS) for row in with_protocol(runs) if not difference(row)}
    return runs[[names in same for names in runs[ACROSS_RATIOS].itertuples(index=False, name=None)]]


def with_protocol(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The runs or effects that `difference` can judge, one per group and row: tasks of the paper, with labels by share of
    scenes."""
    known = rows[rows["task"].isin(protocols()) & rows["label_percent"].notna()] if len(rows) else rows
    if "outcome" in known:
        known = known[known["outcome"] == "ok"].sort_values(STEPS, kind="stable")  # a row's shortest run decides
    return known.drop_duplicates([*GROUP, "row"]).to_dict("records") if len(known) else []


def _checkpoint(row: Mapping[Any, Any], paper: Protocol) -> _Difference:
    held_out = f"{row['held_out_scenes']:,} held-out {paper.scenes}"
    here = (
        f"checkpoint selected on {held_out}" if row["checkpoint"] == "selected" else f"{row['checkpoint']} checkpoint"
    )
    return _Difference(f"best on the test {paper.scenes}", here)


def _protocol(row: Mapping[Any, Any]) -> list[_Difference]:
    protocol = row["protocol"]
    return [] if protocol == FINETUNE else [_Difference("fine-tuned as a whole", f"protocol {protocol}")]


def _data(row: Mapping[Any, Any]) -> list[_Difference]:
    parts = []
    if row["synthetic"]:
        parts.append(_Difference("real data", "SYNTHETIC data"))
    source = str(row["pretrain_dataset"])
    if source != NO_DATASET and (dataset_family(source) != PRETRAINED_ON or row["pretrain_synthetic"]):
        what = f"SYNTHETIC data ({source})" if row["pretrain_synthetic"] else source
        parts.append(_Difference("pre-trained on ScanNet", f"pre-trained on {what}"))
    return parts


def _training(row: Mapping[Any, Any], paper: Protocol) -> list[_Difference]:
    """Size of the network, and steps of both halves where some run was scored."""
    parts = []
    if not math.isclose(row["network_width"], 1):
        parts.append(_Difference("full width of the network", f"width {row['network_width']:g}"))
    before, now = pretrainings().get(row["published_as"]), row["pretrain_steps"]
    if before is not None and math.isfinite(now) and abs(now - before.steps) > STEPS_TOLERANCE * before.steps:
        expected = "" if before.stated else " (assumed, it does not say)"
        parts.append(_Difference(f"{before.steps:,} steps of pre-training{expected}", f"{now:,.0f} steps"))
    now = row["finetune_steps"]
    if paper.steps is not None and math.isfinite(now) and now != paper.steps:
        parts.append(_Difference(f"{paper.steps:,} steps of fine-tuning", f"{now:,.0f} steps"))
    return parts


def _scenes(row: Mapping[Any, Any], paper: Protocol) -> list[_Difference]:
    parts = []
    percent = float(row["label_percent"])
    expected = math.ceil(percent / 100 * paper.training_scenes - 1e-9)
    if row["train_scenes"] != expected:
        share = "" if percent == 100 else f"{expected:,} ({percent:g} %) of "
        parts.append(
            _Difference(
                f"trained on {share}all {paper.training_scenes:,} {paper.scenes}", f"trained on {row['train_scenes']:,}"
            )
        )
    part = str(row["part_of_test_split"])
    if part:
        parts.append(_Difference(f"tested on all {paper.test_scenes:,} {paper.scenes}", f"tested on {part}"))
    elif row["test_scenes"] != paper.test_scenes:
        parts.append(
            _Difference(f"tested on {paper.test_scenes:,} {paper.scenes}", f"tested on {row['test_scenes']:,}")
        )
    return parts


def _metric(row: Mapping[Any, Any], paper: Protocol) -> list[_Difference]:
    parts = []
    if paper.metric is None:
        parts.append(_Difference("does not say whether mIoU is on voxels or points", TITLES[row["metric"]]))
    elif row["metric"] != paper.metric:
        parts.append(_Difference(TITLES[paper.metric], TITLES[row["metric"]]))
    if row["mean_over"] != paper.mean_over:
        parts.append(_Difference(f"mean over {paper.mean_over} classes", f"over {row['mean_over']}"))
    if paper.voxel_metres is not None and not math.isclose(row["voxel_metres"], paper.voxel_metres):
        parts.append(_Difference(f"voxels of {100 * paper.voxel_metres:g} cm", f"of {100 * row['voxel_metres']:g} cm"))
    return parts
