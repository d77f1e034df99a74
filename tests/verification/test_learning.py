"""A short `make verify-learning`: one seed of one method really learns, and the verdict can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pretrain_bench.benchmarks.specs.backbone_shapes import planes_of
from pretrain_bench.harness.planning.prepared_data import DataSources
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_weights
from tests.verification import learning, status
from tests.verification.report import FOLDER
from tests.verification.settings import LEARNING_METHODS, LEARNING_PROBED, PROBED

STEPS = 24


@pytest.mark.slow
def test_one_seed_of_csc_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "HELD_OUT_BATCHES", 12)
    source = DataSources(frame_stride=50, world="smoke").prepare(learning.DATASET, strict=True, say=print)
    (planned,) = learning.stages("csc", 0, source)
    planned = shortened(planned, STEPS)
    found, artifacts = learning.run_stage(planned, tmp_path, {})
    accuracy = found[""]
    print(accuracy)
    assert accuracy.after >= learning.LEAST_GAIN * accuracy.before and accuracy.after > 2 * accuracy.chance
    trained = learning.load_backbone(artifacts, planned.spec.network, 0)
    random = learning.seeded_backbone(1, planned.spec.network, 0.1, "torch", 1000)
    scores = [learning.probe(b, source, 0.1, True) for b in (trained, random)]
    print(scores)
    assert scores[0] > scores[1]


@pytest.mark.slow
def test_depthcontrast_is_ranked_and_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps teach nothing, but the report has all its values, and the probe uses the trained weights."""
    source = DataSources(frame_stride=50, world="smoke").prepare(learning.DATASET, strict=True, say=print)
    monkeypatch.setattr(learning, "HELD_OUT_BATCHES", 8)
    monkeypatch.setattr(learning, "NEGATIVES", 5)
    monkeypatch.setattr(learning, "world", lambda: source)
    (planned,) = learning.stages("depthcontrast", 0, source)
    small = shortened(planned, 2, scans_per_step=4, scans_per_pass=4)
    monkeypatch.setattr(learning, "stages", lambda method, seed, source: [small])
    asked: list[float] = []
    monkeypatch.setattr(learning, "probe", lambda backbone, *_: asked.append(float(weights(backbone))) or 0.1)
    found = learning.verify_one("depthcontrast", 0, tmp_path)
    assert set(found["ranked_first"]["scans"]) == {"before", "after", "chance"} and set(found["without_bound"]) == {
        "points"
    }
    assert (found["probe"], found["probe_random"]) == (0.1, 0.1)
    saved = load_weights(tmp_path / "scans/train/out/artifacts" / BACKBONE_FILE)
    assert asked[0] == float(saved["conv0p1s1.kernel"].sum()) != asked[1]
    monkeypatch.undo()
    backbone = learning.load_backbone(tmp_path / "scans/train/out/artifacts", small.spec.network, 0)
    assert 0 < learning.probe(backbone, source, 0.1, True, "encoder") < 1
    room = learning.sparse_room(source, source.scenes[0], 0.1, True)
    with torch.no_grad():
        features = learning.encoder_features(backbone, room)
        first = backbone.relu(backbone.bn0(backbone.conv0p1s1(room))).F
    assert torch.equal(features[:, : first.shape[1]], first)
    for stride, part in ((2, 1), (16, 4)):  # voxels of one coarse voxel share its features
        cells = room.C.div(stride, rounding_mode="floor")
        _, numbers = torch.unique(cells, dim=0, return_inverse=True)
        widths = [first.shape[1], *(planes_of(small.spec.network)[1][:5])]
        columns = features[:, sum(widths[:part]) : sum(widths[: part + 1])]
        same = torch.unique(torch.cat([numbers[:, None].float(), columns], 1), dim=0)
        assert len(same) == int(numbers.max()) + 1


def shortened(planned: PlannedStage, steps: int, **recipe: int) -> PlannedStage:
    """The stage with a budget of `steps` steps; the budget limits the training, whatever its recipe says."""
    limits = planned.spec.limits.model_copy(update={"loader_workers": 0, "amount": float(steps)})
    changed = {**(planned.spec.recipe or {}), "steps": steps, **recipe}
    return planned._replace(spec=planned.spec.model_copy(update={"recipe": changed, "limits": limits}))


def weights(backbone: learning.Res16UNet34C) -> float:
    return float(backbone.state_dict()["conv0p1s1.kernel"].sum())


def result(before: float, after: float, probe: float, random: float) -> dict:
    stages = {"pairs": {"before": before, "after": after, "chance": 0.004}}
    return {"ranked_first": stages, "probe": probe, "probe_random": random}


def test_the_verdict_names_missed_bounds() -> None:
    good = {f"csc-{s}": result(0.01, 0.05, 0.12, 0.07) for s in (0, 1, 2)}
    assert learning.misses(good) == []
    assert learning.misses({**good, "csc-1": result(0.01, 0.029, 0.12, 0.07)}) == [
        "csc-1/pairs: ranked first 0.010 -> 0.029"
    ]
    assert learning.misses({**good, "csc-2": result(0.0001, 0.003, 0.12, 0.07)}) == [
        "csc-2/pairs: ranked first 0.000 -> 0.003"
    ]
    assert learning.misses({**good, "csc-2": result(0.001, 0.009, 0.12, 0.07)}), "less than three times chance"
    assert learning.misses({**good, "csc-2": result(0.01, float("nan"), 0.12, 0.07)}), "a NaN is a failure"
    assert learning.misses({**good, "csc-0": result(0.01, 0.05, 0.069, 0.07)}) == [
        "csc-0: probe 0.069, random weights 0.070"
    ]
    low = {f"csc-{s}": result(0.01, 0.05, 0.08, 0.07) for s in (0, 1, 2)}
    assert learning.misses(low) == ["csc: mean gain of the probe 1.00 mIoU, less than 2"]
    uneven = {f"csc-{s}": result(0.01, 0.05, 0.07 + gain, 0.07) for s, gain in enumerate((0.005, 0.03, 0.03))}
    assert learning.misses(uneven) == [], "the bound is on the mean over seeds"
    plain = {f"depthcontrast-{s}": result(0.01, 0.05, 0.12, 0.07) for s in (0, 1, 2)}
    unprobed = {k: v for k, v in plain["depthcontrast-1"].items() if not k.startswith("probe")}
    assert learning.misses({**plain, "depthcontrast-1": unprobed}) == ["depthcontrast-1: no probe"]


def test_the_report_matches_its_results() -> None:
    report = json.loads((FOLDER / "learning.json").read_bytes())
    assert set(learning.METHODS) == set(LEARNING_METHODS)
    methods = [m for m in learning.METHODS if m in report["settings"]]
    assert len(methods) == len(learning.METHODS) or not status.state("learning", report, []).fresh
    assert set(report["results"]) == {f"{m}-{s}" for m in methods for s in learning.SEEDS}
    probed = [m for m in methods if "probe" in report["results"][f"{m}-0"]]
    assert report["misses"] == learning.misses(report["results"], probed)
    assert set(probed) == set(LEARNING_PROBED) & set(methods) or PROBED not in report["settings"], (
        "an older report says that it is stale"
    )
