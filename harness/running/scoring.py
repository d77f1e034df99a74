"""Compute the scores of a fine-tuning from its saved predictions, outside the stage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.metrics.scorer import Counts, Scorer, confusion_of_counts, metrics_of_counts, scorer_of
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.stage import StageSpec
from pretrain_bench.harness.running.checks import InvalidOutput

Metrics = dict[str, float | None]
Confusion = dict[str, dict[str, list[list[int]]]]
"""Maps checkpoint, then `voxel` or `point`, to counts over all test scenes, with labels as rows and predictions as columns."""


class Scores(NamedTuple):
    """Metrics and confusion matrices, computed from saved predictions."""

    metrics: Metrics
    confusion: Confusion


def score_finetune(spec: StageSpec, artifacts: Path, prepared: Path) -> Scores:
    """Compute the reported metrics from saved predictions and prepared labels; metrics are named METRIC_CHECKPOINT.

    Raises InvalidOutput for predictions that are missing, damaged, of another task or of another length.
    """
    scorer = scorer_for(spec, prepared)
    assert spec.split is not None
    metrics: Metrics = {}
    confusion: Confusion = {}
    for checkpoint in spec.checkpoints:
        try:
            counts = counts_of(scorer, artifacts / "predictions" / checkpoint, spec.split.test)
        except (DataError, ValueError) as error:
            raise InvalidOutput(f"predictions/{checkpoint}: {error}") from None
        scores = metrics_of_counts(list(counts.values()))
        metrics.update({f"{name}_{checkpoint}": value for name, value in scores.items()})
        confusion[checkpoint] = confusion_of_counts(list(counts.values()))
    return Scores(metrics, {checkpoint: matrices for checkpoint, matrices in confusion.items() if matrices})


def scorer_for(spec: StageSpec, view: Path) -> Scorer:
    """The scorer for a fine-tuning stage's test scenes; `view` is the folder of its prepared data."""
    assert spec.split is not None and spec.data is not None
    data = spec.data
    return scorer_of(spec.task_recipe, data.classes, data.things, view, spec.split.test, data.label_ids)


def counts_of(scorer: Scorer, folder: Path, scenes: Iterable[str]) -> dict[str, Counts]:
    """Each scene's contribution to every metric, from the saved predictions in `folder`. Raises DataError or ValueError."""
    return {scene: scorer.counts(scene, scorer.read(folder, scene)) for scene in scenes}


def disagreement(computed: Metrics, reported: Metrics) -> str | None:
    """A message about the first metric that the stage reported with a different value; None if all agree."""
    for name, value in computed.items():
        claim = reported.get(name)
        same = claim is None if value is None else claim is not None and abs(claim - value) < 1e-9
        if not same:
            return f"{name}: the stage says {claim}, its predictions give {value}"
    return None
