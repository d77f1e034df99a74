"""`make verify-learning` in small: one seed of one method really learns; and its verdict can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_bench.harness.planning.prepared_data import DataSources
from tests.verification import learning
from tests.verification.report import FOLDER
from tests.verification.settings import LEARNING_METHODS

STEPS = 80


@pytest.mark.slow
def test_one_seed_of_csc_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "HELD_OUT_BATCHES", 12)
    source = DataSources(frame_stride=50, world="smoke").prepare(learning.DATASET, strict=True, say=print)
    (planned,) = learning.stages("csc", 0, source)
    recipe = {**(planned.spec.recipe or {}), "steps": STEPS}
    limits = planned.spec.limits.model_copy(update={"loader_workers": 0})
    planned = planned._replace(spec=planned.spec.model_copy(update={"recipe": recipe, "limits": limits}))
    found, artifacts = learning.run_stage(planned, tmp_path, {})
    accuracy = found[""]
    print(accuracy)
    assert accuracy.after >= learning.LEAST_GAIN * accuracy.before and accuracy.after > 2 * accuracy.chance
    trained = learning.load_backbone(artifacts, planned.spec.network, 0)
    random = learning.seeded_backbone(1, planned.spec.network, 0.1, "torch", 1000)
    scores = [learning.probe(b, source, 0.1, True) for b in (trained, random)]
    print(scores)
    assert scores[0] > scores[1]


def result(before: float, after: float, probe: float, random: float) -> dict:
    stages = {"pairs": {"before": before, "after": after, "chance": 0.004}}
    return {"ranked_first": stages, "probe": probe, "probe_random": random}


def test_the_verdict_names_what_falls_short() -> None:
    good = {f"csc-{s}": result(0.01, 0.05, 0.12, 0.07) for s in (0, 1, 2)}
    assert learning.misses(good) == []
    assert learning.misses({**good, "csc-1": result(0.01, 0.029, 0.12, 0.07)}) == [
        "csc-1/pairs: ranked first 0.010 -> 0.029"
    ]
    assert learning.misses({**good, "csc-2": result(0.0001, 0.003, 0.12, 0.07)}) == [
        "csc-2/pairs: ranked first 0.000 -> 0.003"
    ]
    assert learning.misses({**good, "csc-2": result(0.001, 0.009, 0.12, 0.07)}), "less than three times chance"
    assert learning.misses({**good, "csc-2": result(0.01, float("nan"), 0.12, 0.07)}), "a NaN is no success"
    assert learning.misses({**good, "csc-0": result(0.01, 0.05, 0.069, 0.07)}) == [
        "csc-0: probe 0.069, random weights 0.070"
    ]
    low = {f"csc-{s}": result(0.01, 0.05, 0.08, 0.07) for s in (0, 1, 2)}
    assert learning.misses(low) == ["csc: mean gain of the probe 1.00 mIoU"]


def test_the_report_says_what_its_results_say() -> None:
    report = json.loads((FOLDER / "learning.json").read_bytes())
    assert set(report["settings"]) == set(learning.METHODS) == set(LEARNING_METHODS)
    assert set(report["results"]) == {f"{m}-{s}" for m in learning.METHODS for s in learning.SEEDS}
    assert report["misses"] == learning.misses(report["results"])
