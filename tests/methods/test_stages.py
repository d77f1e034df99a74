"""Every pre-training stage, end to end at a small size: artifacts, exact resumption, seeds, labels, and aborted trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.datasets import views
from pretrain_bench.benchmarks.datasets.views import list_frames
from pretrain_bench.benchmarks.specs.backbone_shapes import backbone_shapes
from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.harness.contract.events import Ledger, read_events
from pretrain_bench.harness.contract.run_length import RunLength
from pretrain_bench.harness.contract.stage import Limits
from pretrain_bench.harness.planning.applicable import check_needs
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.stage_specs import PlannedStage
from pretrain_bench.harness.running.checks import check_pretrain
from pretrain_bench.methods.pointcontrast.recipe import PointContrast
from pretrain_bench.methods.training import loop
from pretrain_bench.methods.training.checkpoint import load_weights
from pretrain_bench.methods.training.frame_pairs import list_pairs
from pretrain_bench.methods.training.loop import Collapsed, Diverged, train_and_save
from tests.methods.stages import METHODS, nano_stages, open_stage, run_all, small_recordings, training_of


@pytest.fixture(scope="module")
def source(cache: Path) -> PreparedDataset:
    return small_recordings(cache)


STEPS = 3
"""Steps of each stage: enough to stop after the first and resume for two."""


def short_stages(method: str, source: PreparedDataset, seed: int = 0) -> list[PlannedStage]:
    """The stages of a method, with few steps."""
    planned = nano_stages(method, source, seed)
    specs = [s.spec.model_copy(update={"limits": s.spec.limits.model_copy(update={"amount": STEPS})}) for s in planned]
    return [stage._replace(spec=spec) for stage, spec in zip(planned, specs, strict=True)]


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow if m in ("ours", "pointcontrast") else ()) for m in METHODS]
)  # pointcontrast trains on the same pairs as csc; test_end_to_end.py runs ours
def test_a_method_is_trained_stopped_and_resumed(
    method: str, source: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train once without a stop, once with a stop in each stage, once from another seed; the functions below compare the results."""
    planned = short_stages(method, source)
    whole, resumed, other = (tmp_path / name for name in ("whole", "resumed", "other"))
    opened: list[str] = []
    original = views._load
    with monkeypatch.context() as patch:
        patch.setattr(views, "_load", lambda path: opened.append(path.as_posix()) or original(path))
        backbone = run_all(planned, whole) / "backbone.safetensors"
    check_pretrain(planned[-1].spec, backbone.parent, last=True)
    labels_are_opened_by_supervised_alone(method, whole, opened)
    if method == "supervised":
        it_drops_its_last_layer_and_sees_every_class(planned[0], backbone)
    else:
        health_is_logged(whole)
    again = run_all(planned, resumed, stop_at=1) / "backbone.safetensors"
    it_resumes_to_the_same_bits(planned, backbone, again)
    the_events_are_those_of_one_run(planned, whole, resumed)
    seeded = run_all(short_stages(method, source, 1), other) / "backbone.safetensors"
    first, second = (load_weights(p)["block4.0.conv1.kernel"] for p in (backbone, seeded))
    assert not torch.equal(first, second), "another seed gives another backbone"


def it_resumes_to_the_same_bits(planned: list[PlannedStage], whole: Path, resumed: Path) -> None:
    one, two = load_weights(whole), load_weights(resumed)
    assert set(one) == set(two) >= set(backbone_shapes(planned[-1].spec.network))
    assert all(torch.equal(one[name], two[name]) for name in one)


def the_events_are_those_of_one_run(planned: list[PlannedStage], whole: Path, resumed: Path) -> None:
    for stage in planned:
        logs = [list(read_events(p / stage.spec.stage / "out/events.jsonl")) for p in (whole, resumed)]
        ends = [[e for e in log if e.event == "usage"][-1].ledger for log in logs]
        counted = [e.model_dump(exclude={"wall_seconds", "cpu_seconds", "peak_memory_bytes"}) for e in ends]
        assert counted[0] == counted[1] and counted[0]["optimizer_steps"] == stage.spec.limits.amount
        steps = [[e for e in log if e.event == "step"] for log in logs]
        assert [e.step for e in steps[1]] == [e.step for e in steps[0]]
        assert [e.loss for e in steps[1]] == [e.loss for e in steps[0]]


def health_is_logged(root: Path) -> None:
    logs = list(root.glob("*/out/events.jsonl"))
    assert logs
    for path in logs:
        steps = [e for e in read_events(path) if e.event == "step"]
        for name in ("positive_similarity", "negative_similarity", "alignment", "uniformity", "effective_rank",
                     "duplicate_rows", "top1", "candidates"):  # fmt: skip
            assert all(name in s.health for s in steps), (path.parent.parent.name, name)
        assert all(s.gradient_norm > 0 for s in steps)


def test_the_run_says_that_recorded_poses_were_used(source: PreparedDataset, tmp_path: Path) -> None:
    images, points = nano_stages("ours", source)
    first = open_stage(images, tmp_path / "images", {})
    training_of(first).save()
    context = open_stage(points, tmp_path / "points", {"images": first.artifacts})
    training_of(context)
    assert context.notes["z_up"] == "12 frames by recorded poses"


def labels_are_opened_by_supervised_alone(method: str, root: Path, opened: list[str]) -> None:
    assert opened and any("/labelled/" in path for path in opened) == (method == "supervised")
    if method != "supervised":
        assert not list(root.glob("*/data/*/labelled"))


def it_drops_its_last_layer_and_sees_every_class(planned: PlannedStage, backbone: Path) -> None:
    assert not [name for name in load_weights(backbone) if name.startswith("final.")]
    assert planned.spec.data is not None and planned.spec.data.view == "labelled"
    assert planned.spec.data.scenes == ("scene0000_00", "scene0001_00", "scene0002_00"), "no test scene"


@pytest.mark.parametrize("method", METHODS)
def test_a_non_finite_loss_aborts_the_run_with_its_step(method: str, source: PreparedDataset, tmp_path: Path) -> None:
    planned = nano_stages(method, source)[0]
    context = open_stage(planned, tmp_path, {})
    training = training_of(context)

    def spoilt(number: int, batch: Any) -> Any:
        result = training.run_step(number, batch)
        return result._replace(loss=float("nan")) if number == 2 else result

    with pytest.raises(Diverged, match="step 3: loss nan"):
        train_and_save(context, training._replace(run_step=spoilt))
    assert not list(context.artifacts.iterdir())


def test_a_collapse_ends_the_run_with_its_step(
    source: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of the network no longer depends on its input."""
    monkeypatch.setattr(loop, "COLLAPSED_STEPS", 3)
    context = open_stage(nano_stages("pointcontrast", source)[0], tmp_path, {})
    training = training_of(context)
    with torch.no_grad():
        training.modules["network"].final.kernel.zero_()  # type: ignore[union-attr, operator]
        training.modules["network"].final.bias.fill_(1.0)  # type: ignore[union-attr, operator]
    with pytest.raises(Collapsed, match="step 3: the embeddings of all samples have been equal for 3 steps"):
        train_and_save(context, training._replace(schedule=lambda step: 0.0))


def steps_until_collapse(collapsed: Callable[[int], bool], length: RunLength, last: int) -> int | None:
    """The step at which a run of `last` steps is aborted; each uses a FLOP."""
    state = loop.TrainingState()
    for step in range(last):
        state.step, state.ledger = step, Ledger(flops=step)
        try:
            loop._watch_for_collapse(state, {"point_uniformity": -0.001 if collapsed(step) else -0.5}, length)
        except Collapsed:
            return step + 1
    return None


def test_a_phase_of_equal_embeddings_passes_and_a_lasting_one_does_not() -> None:
    """DepthContrast's point branch was collapsed in 36 of its first 55 steps and then spread: aborting it was wrong."""
    limits = nano_limits(Currency.optimizer_steps, 600)
    length = RunLength(600, 600, limits)
    assert steps_until_collapse(lambda step: 18 <= step < 38 or 39 <= step < 55, length, 600) is None
    assert steps_until_collapse(lambda step: step >= 18, length, 600) == 18 + 120
    assert steps_until_collapse(lambda step: step % 100 > 0, length, 600) is None
    assert steps_until_collapse(lambda step: True, RunLength(60, 60, limits), 60) == loop.COLLAPSED_STEPS
    state = loop.TrainingState()
    for _ in range(30):
        loop._watch_for_collapse(state, {"uniformity": float("nan")}, length)
    assert not state.extra[loop.COLLAPSED]


def test_under_a_budget_of_flops_the_share_of_the_amount_counts() -> None:
    """The recipe's number of steps says nothing about the length of such a run."""
    length = RunLength(10**12, 100, nano_limits(Currency.flops, 3000))
    assert steps_until_collapse(lambda step: 18 <= step < 400, length, 3000) is None
    assert steps_until_collapse(lambda step: step >= 18, length, 3000) == pytest.approx(18 + 600, abs=2)
    short = RunLength(10**12, 20_000, nano_limits(Currency.flops, 300))
    assert steps_until_collapse(lambda step: step < 270, short, 300) == pytest.approx(60, abs=2)


def nano_limits(currency: Currency, amount: float) -> Limits:
    return Limits(
        budget="b", budget_version=1, currency=currency, amount=amount, schedule_horizon="budget", uniformity="exactly"
    )


def test_a_run_that_ends_collapsed_fails(
    source: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COLLAPSED_STEPS", 2)
    monkeypatch.setattr(loop, "COLLAPSED_SHARE", 1.5)  # never in between
    context = open_stage(nano_stages("pointcontrast", source)[0], tmp_path, {})
    training = training_of(context)

    def equal_at_the_end(number: int, batch: Any) -> Any:
        result = training.run_step(number, batch)
        return result._replace(health={"uniformity": -0.5 if number == 0 else 0.0})

    last = training.length.expected_steps
    assert last >= 3
    with pytest.raises(Collapsed, match=rf"step {last}: .* for {last - 1} steps \(uniformity at the end\)"):
        train_and_save(context, training._replace(run_step=equal_at_the_end))
    assert not list(context.artifacts.iterdir())


@pytest.mark.parametrize(
    ("recipe", "same", "least"), [({"views": "same_frame"}, True, 0.0), ({"min_overlap": 0.7}, False, 0.7)]
)
def test_the_drafts_ablations_are_profiles(
    recipe: dict[str, Any], same: bool, least: float, source: PreparedDataset, tmp_path: Path
) -> None:
    """`same scan`: a frame is paired with itself; `>70 % overlap`: only pairs with a larger overlap."""
    context = open_stage(nano_stages("pointcontrast", source, **recipe)[0], tmp_path, {})
    pairs = list_pairs(context, context.recipe(PointContrast))
    assert pairs and all((i == j) == same for _, i, j in pairs)
    if same:
        assert len(pairs) == len(list_frames(context.view, context.spec.data.scenes))  # type: ignore[union-attr]
    else:
        scenes = {scene for scene, _, _ in pairs}
        overlaps = {s: np.load(context.view / "unlabelled" / s / "pairs.npy") for s in scenes}
        shares = {(s, int(i), int(j)): share for s, rows in overlaps.items() for i, j, share in rows}
        assert all(shares[pair] >= least for pair in pairs) and len(pairs) < len(shares)
    train_and_save(context, training_of(context))
    check_pretrain(context.spec, context.artifacts, last=True)


def test_each_method_is_refused_by_name_where_its_data_lack_something() -> None:
    bare = find(Dataset, "rgbd-folder").model_copy(update={"provides": ("clouds",), "name": "bare"})
    for name, missing in (
        ("ours", "frames, images"), ("pointcontrast", "frames, multiple_views, poses"),
        ("csc", "frames, images, multiple_views, poses"), ("depthcontrast", "frames, images"), ("supervised", "labels"),
    ):  # fmt: skip
        with pytest.raises(WrongUse, match=f"method '{name}' needs {missing}, which dataset 'bare' does not have"):
            check_needs(find(Method, name), bare)
    check_needs(find(Method, "msc"), bare)


@pytest.mark.slow
def test_both_formats_and_any_passes_of_depthcontrast(source: PreparedDataset, tmp_path: Path) -> None:
    """The format voxel has no point encoder; several passes of a step see the same scans and queue as a single pass."""
    voxel = nano_stages("depthcontrast", source, format="voxel")
    run_all(voxel, tmp_path / "voxel")
    assert set(training_of(open_stage(voxel[0], tmp_path / "v", {})).modules) == {
        "voxel_query", "voxel_key", "voxel_queue"
    }  # fmt: skip
    for passes in (1, 2):
        planned = nano_stages("depthcontrast", source, scans_per_pass=passes)[0]
        training = training_of(open_stage(planned, tmp_path / str(passes), {}))
        assert training.modules["voxel_queue"].rows.shape == (6, 128)  # type: ignore[union-attr]
        batch = training.make_batch(0)
        assert len(batch) == 2 and batch[0].points is not None and batch[0].points.shape == (2, 256, 3)
        training.run_step(0, batch)
        rows = training.modules["voxel_queue"].rows  # type: ignore[union-attr]
        assert torch.allclose(rows[:2].norm(dim=1), torch.ones(2))  # type: ignore[index, operator]
    assert all(p.grad is None for p in training.modules["voxel_key"].parameters())


def test_frames_without_depth_are_replaced_or_named(
    source: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pretrain_bench.methods.depthcontrast import scans

    original = scans.load_frame
    training = training_of(open_stage(nano_stages("depthcontrast", source)[0], tmp_path, {}))

    def blind(view: Path, scene: str, index: int) -> views.Frame:
        frame = original(view, scene, index)
        return frame if index == 0 else frame._replace(camera=frame.camera[:0], uv=frame.uv[:0])

    monkeypatch.setattr(scans, "load_frame", blind)
    assert len(training.make_batch(0)) == 2
    monkeypatch.setattr(scans, "load_frame", lambda *a: blind(a[0], a[1], 1))
    with pytest.raises(DataError, match="20 frames in a row have no points"):
        training.make_batch(0)
