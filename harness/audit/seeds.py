"""Check that runs with different seeds differ: equal or nearly equal results were copied, or the seed was not used."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from pretrain_bench.benchmarks.metrics.predictions import is_constant, read_untyped
from pretrain_bench.benchmarks.support.errors import BenchError
from pretrain_bench.harness.audit.findings import Tally, Verdict
from pretrain_bench.harness.audit.runs import AuditedRun, Runs, behind
from pretrain_bench.harness.contract.records import Outcome
from pretrain_bench.harness.contract.stage import canonical_json
from pretrain_bench.harness.running.checks import weights_sample
from pretrain_bench.harness.store.retention import BACKBONE
from pretrain_bench.harness.store.spec_reader import SharedSpec
from pretrain_bench.harness.store.store import ARTIFACTS

WEIGHTS, PREDICTIONS = "seeds give different results", "seeds give different predictions"
NEAR = 1e-4
"""Relative distance below which two weight vectors count as one pre-training; different seeds give about 1."""
FINAL = "predictions/final/"


def check_seeds(runs: Runs, tally: Tally) -> None:
    """Compare weights over pre-training seeds, and predictions over all seeds."""
    pretrained: dict[str, list[AuditedRun]] = defaultdict(list)
    tuned: dict[str, list[AuditedRun]] = defaultdict(list)
    for run in runs.values():
        if run.record.outcome != Outcome.ok:
            continue
        if run.spec.kind == "finetune":
            tuned[_but(run.shared, "method", "transfer", "input")].append(run)
        elif BACKBONE in run.record.artifacts:
            pretrained[_but(run.shared, "checkpoint")].append(run)
    for group in pretrained.values():
        if len({run.spec.seed for run in group}) > 1:  # a single seed has no counterpart
            _check_equal_weights(group, tally)
            _check_near_weights(group, tally)
    for group in tuned.values():
        _check_predictions(group, runs, tally)


@lru_cache(maxsize=1024)
def _but(shared: SharedSpec, *fields: str) -> str:
    return canonical_json(shared.spec.model_dump(mode="json", exclude={"seed", "parents", *fields}))


def _check_equal_weights(group: list[AuditedRun], tally: Tally) -> None:
    first: dict[str, AuditedRun] = {}
    for run in group:
        other = first.setdefault(run.record.artifacts[BACKBONE].sha256, run)
        text = f"the same weights as {other.name}: seeds {run.spec.seed} and {other.spec.seed}"
        tally.expect(WEIGHTS, other.spec.seed == run.spec.seed, run.name, text)


def _check_near_weights(group: list[AuditedRun], tally: Tally) -> None:
    """Find weights of two seeds that are unequal but far nearer than seeds make them."""
    samples: dict[str, NDArray[np.float32]] = {}
    for run in group:
        try:
            samples[run.name] = weights_sample(run.folder / ARTIFACTS / BACKBONE)
        except (BenchError, OSError):
            continue  # pruned, or damaged and reported elsewhere
    seeds = {run.name: (run.spec.seed, run.record.artifacts[BACKBONE].sha256) for run in group}
    distances = {
        (one, two): _distance(samples[one], samples[two])
        for one, two in combinations(samples, 2)
        if seeds[one][0] != seeds[two][0] and seeds[one][1] != seeds[two][1]
    }
    for (one, two), distance in distances.items():
        text = (
            f"weights within {distance:.1g} (relative) of {one}, another seed, while other seeds of this method are up to "
            f"{max(distances.values()):.1g} apart"
        )
        tally.expect(WEIGHTS, distance > NEAR, two, text)


def _distance(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    if one.shape != two.shape:
        return float("inf")
    size = max(float(np.linalg.norm(one)), float(np.linalg.norm(two)))
    return float(np.linalg.norm(one - two)) / size if size else 0.0


def _check_predictions(group: list[AuditedRun], runs: Runs, tally: Tally) -> None:
    """Find equal predictions on every test scene, except those of constant networks, or of one backbone under two keys."""
    first: dict[tuple[tuple[str, str], ...], AuditedRun] = {}
    for run in group:
        predicted = tuple(sorted((n, e.sha256) for n, e in run.record.artifacts.items() if n.startswith(FINAL)))
        if not predicted:
            continue
        other = first.setdefault(predicted, run)
        if other is run:
            tally.expect(PREDICTIONS, True, run.name, "")
            continue
        if _say_nothing(run, [name for name, _ in predicted]):
            text = f"the same as {other.name}, and constant: neither network learnt anything"
            tally.note(PREDICTIONS, "warning", run.name, text)
            continue
        if (start := _common_start(run, other, runs)) is not None:
            verdict, text = start
            tally.note(PREDICTIONS, verdict, run.name, f"{text} {other.name}, under another key")
            continue
        text = f"all predictions equal those of {other.name} ({_seeds(other)}), but this run has {_seeds(run)}"
        tally.expect(PREDICTIONS, False, run.name, text)


def _common_start(one: AuditedRun, two: AuditedRun, runs: Runs) -> tuple[Verdict, str] | None:
    """Verdict and text about two runs with the same seeds and equal predictions, if they start from equal weights of one method
    or of an imported checkpoint: the pre-training has another key (different code, stated scenes), or its backbone was exported
    and imported, which changes the file but not the weights. None if they start from different weights."""
    cells = [run.record.cell for run in (one, two)]
    if None in cells or len({(cell.pretrain_seed, cell.finetune_seed) for cell in cells if cell}) > 1:
        return None
    starts = [[p for p in behind(run, runs) or () if BACKBONE in p.record.artifacts] for run in (one, two)]
    imported = any(p.spec.checkpoint for start in starts for p in start)
    if one.spec.method != two.spec.method and not imported:
        return None
    pairs = list(product(*starts))
    if any(a.record.artifacts[BACKBONE].sha256 == b.record.artifacts[BACKBONE].sha256 for a, b in pairs):
        return "warning", "the same backbone as"
    absent = False
    for pair in pairs:
        try:
            if _distance(*(weights_sample(p.folder / ARTIFACTS / BACKBONE) for p in pair)) <= NEAR:
                return "warning", "the same weights as"
        except (BenchError, OSError):  # pruned, or a bundle, which holds no weights
            absent = True
    if imported and absent:
        return "not checked", "all predictions equal; an imported checkpoint may have the weights of"
    return None


def _seeds(run: AuditedRun) -> str:
    cell = run.record.cell
    return f"{run.spec.method}, seeds {cell.pretrain_seed}/{cell.finetune_seed}" if cell else run.spec.method


def _say_nothing(run: AuditedRun, names: list[str]) -> bool:
    try:
        return all(is_constant(read_untyped(run.folder / ARTIFACTS / name)) for name in names)
    except BenchError:
        return False
