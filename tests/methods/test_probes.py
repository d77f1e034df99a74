"""Probes of frozen backbones: frozen and fitted parts, and that no test scenes or scenes of other ratios are used."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.specs.backbone_shapes import DECODER_PREFIXES
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.probes import DecoderProbe, FeatureRecipe, LinearProbe, Probes
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.stage import FEATURES_STAGE, TRAINING_ROWS
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.estimate import History, artifact_bytes, rough_flops
from pretrain_bench.harness.planning.planner import stages_of
from pretrain_bench.harness.planning.prepared_data import DataSources, PreparedDataset
from pretrain_bench.harness.planning.stage_specs import CellSpecs, Machine, PlannedStage
from pretrain_bench.harness.running.checks import check_features
from pretrain_bench.harness.running.scoring import score_finetune
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune import features, linear, semantic
from pretrain_bench.methods.finetune.frozen import recalibrate, whole_scenes
from pretrain_bench.methods.finetune.logistic import fit_logistic
from pretrain_bench.methods.networks.res16unet import Res16UNet34C, seeded_backbone
from pretrain_bench.methods.scratch import init
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_state, load_weights, save_weights
from tests.methods.stages import SPECS, open_stage

SOME_ROWS = 50


class Probed(NamedTuple):
    """Artifacts of a frozen random backbone and of its features, and the data."""

    source: PreparedDataset
    backbone: Path
    features: StageContext


def planned(
    source: PreparedDataset, ratio: str = "100%", probes: Probes | None = None, **cell: str
) -> list[PlannedStage]:
    """The stages of a scratch cell, with 50 rows per scene."""
    profile = find(Profile, str(SPECS / "nano-profile.yaml"))
    probes = probes or Probes(linear=LinearProbe(rows_per_scene=SOME_ROWS))
    specs = CellSpecs(
        find(Method, "scratch"), find(Task, "s3dis-sem"), find(Budget, str(SPECS / "nano-budget.yaml")),
        profile.model_copy(update={"probes": probes}),
    )  # fmt: skip
    fields = {"method": "scratch", "pretrain_dataset": "none", "task": "s3dis-sem", "budget": "nano", "profile": "nano"}
    where = Cell.model_validate({**fields, "label_ratio": LabelRatio.parse(ratio), "protocol": "linear", **cell})
    return stages_of(where, specs, {"s3dis": source}, Machine(1, "torch", "cpu"))


@pytest.fixture(scope="module")
def probed(s3dis_root: Path, module_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Probed:
    root = tmp_path_factory.mktemp("probed")
    source = DataSources({"s3dis": s3dis_root}).prepare("s3dis")
    first, second, _ = planned(source)
    init.run(open_stage(first, root / "init", {}))
    context = open_stage(second, root / "features", {"init": root / "init/out/artifacts"})
    features.run(context)
    return Probed(source, root / "init/out/artifacts", context)


def run_linear(
    probed: Probed, folder: Path, ratio: str = "100%", rows: Path | None = None
) -> tuple[StageContext, dict]:
    """Run a linear probe on the features of the fixture, or on given ones."""
    *_, last = planned(probed.source, ratio)
    context = open_stage(last, folder, {FEATURES_STAGE: rows or probed.features.artifacts})
    return context, linear.run(context)


def test_features_are_those_of_the_frozen_backbone(probed: Probed) -> None:
    """Only running statistics differ from the pre-trained weights, and a network with the saved weights reproduces the rows."""
    check_features(probed.features.artifacts)
    before = load_weights(probed.backbone / BACKBONE_FILE)
    after = load_weights(probed.features.artifacts / BACKBONE_FILE)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    statistics = {n for n in after if n.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    # At block 4 a small room is a single voxel, which has no variance.
    assert changed <= statistics and {n for n in statistics if not n.startswith(("bn4", "block4"))} <= changed
    spec, recipe = probed.features.spec, probed.features.recipe(FeatureRecipe)
    assert spec.split is not None and len(spec.split.train) == 5 and recipe.batch_norm == "recalibrated"
    network = seeded_backbone(1, spec.network, 0.1, "torch", 5)
    network.load_state_dict({**network.state_dict(), **after})
    (test,) = spec.split.test
    expected = features.scene_features(probed.features, network.eval(), recipe, test)
    kept = load_weights(probed.features.artifacts / features.TEST_FOLDER / f"{test}.safetensors")["features"]
    assert torch.equal(kept, expected) and kept.shape[1] == network.feature_channels
    rows = load_weights(probed.features.artifacts / TRAINING_ROWS)
    scene = spec.split.train[0]
    labels = features.scene_labels(probed.features, recipe, scene)
    drawn = features.labelled_rows(scene, labels, SOME_ROWS)
    assert len(drawn) == SOME_ROWS and (labels[drawn] != 255).all()
    assert np.array_equal(rows[f"{scene}.labels"].numpy(), labels[drawn])
    assert torch.equal(
        rows[f"{scene}.features"], features.scene_features(probed.features, network, recipe, scene)[drawn]
    )


@pytest.mark.parametrize("protocol", ["linear", "decoder"])
def test_a_network_that_never_saw_colours_sees_ones(probed: Probed, tmp_path: Path, protocol: str) -> None:
    """In evaluation and, with a decoder probe, in training."""
    stage = planned(probed.source, protocol=protocol)[1]
    seen: list[torch.Tensor] = []
    real = Res16UNet34C.features
    for kind in ("colour", "geometry"):
        spec = stage.spec.model_copy(update={"input": kind})
        context = open_stage(stage._replace(spec=spec), tmp_path / kind, {"init": probed.backbone})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Res16UNet34C, "features", lambda net, x: seen.append(x.F) or real(net, x))
            (features if protocol == "linear" else semantic).run(context)
        of_ones = [bool((x == 1).all()) for x in seen]
        assert len(seen) > 5 and all(of_ones) == any(of_ones) == (kind == "geometry")
        seen.clear()


def test_norms_are_the_mean_of_scenes_whatever_their_order(probed: Probed) -> None:
    """By definition: mean and variance of each scene's own pass, all scenes with equal weight; labels are not read."""
    spec, recipe = probed.features.spec, probed.features.recipe(FeatureRecipe)
    assert spec.split is not None
    scenes = list(whole_scenes(probed.features, recipe, reversed(spec.split.train)))
    network = seeded_backbone(1, spec.network, 0.1, "torch", 3)
    with torch.no_grad():
        passes = [network.conv0p1s1(scene).F for scene in scenes]
    recalibrate(network, [network], scenes)
    norm = network.bn0.bn
    assert torch.allclose(norm.running_mean, torch.stack([p.mean(0) for p in passes]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([p.var(0) for p in passes]).mean(0), rtol=1e-4)
    assert norm.momentum == 0.1 and not network.training
    other = seeded_backbone(1, spec.network, 0.1, "torch", 3)
    recalibrate(other, [other], scenes[::-1])
    for one, two in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.allclose(one.float(), two.float(), rtol=1e-4, atol=1e-5)


def test_a_linear_probe_is_scored_from_its_predictions(probed: Probed, tmp_path: Path) -> None:
    """The harness reproduces the scores of the stage; there is one checkpoint; repeated work is bit-identical, also if
    the features of a test scene were not kept."""
    context, metrics = run_linear(probed, tmp_path / "one")
    scores = score_finetune(context.spec, context.artifacts, probed.source.folder).metrics
    assert {n: metrics[n] for n in scores} == scores and scores["miou_voxel_final"]
    assert {n for n in scores if n.endswith(("_best", "_selected"))} == set()
    assert [p.name for p in (context.artifacts / "predictions").iterdir()] == ["final"]
    assert metrics["training_rows"] == 5 * SOME_ROWS and metrics["iterations"] >= 1
    assert metrics["gradient_norm_last"] < 0.1 * metrics["gradient_norm_first"]
    without = tmp_path / "without"
    without.mkdir()
    for path in probed.features.artifacts.glob("*.safetensors"):
        (without / path.name).symlink_to(path)
    again, _ = run_linear(probed, tmp_path / "two", rows=without)
    for name in ("head.safetensors", "predictions/final/Area_5__office_1.npz"):
        assert (context.artifacts / name).read_bytes() == (again.artifacts / name).read_bytes()


def test_a_probe_uses_the_labelled_scenes_of_its_ratio_alone(probed: Probed, tmp_path: Path) -> None:
    """Rows of other scenes do not matter; one feature stage serves all shares of scenes."""
    half, whole = planned(probed.source, "50%"), planned(probed.source, "100%")
    assert half[1].spec.key == whole[1].spec.key and half[2].spec.key != whole[2].spec.key
    assert half[2].spec.split is not None
    context, metrics = run_linear(probed, tmp_path / "half", "50%")
    rows = load_weights(probed.features.artifacts / TRAINING_ROWS)
    kept = {n: t for n, t in rows.items() if n.rpartition(".")[0] in half[2].spec.split.train}
    assert 0 < len(kept) < len(rows) and metrics["training_rows"] == len(kept) / 2 * SOME_ROWS
    spoiled = tmp_path / "rows"
    spoiled.mkdir()
    save_weights({n: kept.get(n, torch.zeros_like(t)) for n, t in rows.items()}, spoiled / TRAINING_ROWS)
    (spoiled / features.TEST_FOLDER).symlink_to(probed.features.artifacts / features.TEST_FOLDER)
    again, _ = run_linear(probed, tmp_path / "again", "50%", spoiled)
    head = [load_weights(c.artifacts / "head.safetensors") for c in (context, again)]
    assert all(torch.equal(head[0][n], head[1][n]) for n in head[0])


def test_features_of_few_points_hold_these_points_alone(probed: Probed, tmp_path: Path) -> None:
    _, second, _ = planned(probed.source, "3points")
    context = open_stage(second, tmp_path, {"init": probed.backbone})
    assert second.spec.key != probed.features.spec.key
    assert features.run(context)["training_rows"] == 5 * 3


def test_a_classifier_learns_linear_labels_only() -> None:
    """Features that contain the label classify all rows; with shuffled labels, accuracy is the share of the most frequent class."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (2000,), generator=rng)
    noise = torch.randn(2000, 8, generator=rng)
    exact = torch.cat([noise * 1e3, torch.nn.functional.one_hot(labels, 5) * 1e-3], 1)
    fit = fit_logistic(exact, labels, 5, LinearProbe())
    assert torch.equal(fit.head(exact).argmax(1), labels) and fit.converged, "features are standardised first"
    again = fit_logistic(exact, labels, 5, LinearProbe())
    assert all(
        torch.equal(a, b) for a, b in zip(fit.head.state_dict().values(), again.head.state_dict().values(), strict=True)
    )
    shuffled = fit_logistic(noise[:1000], labels[torch.randperm(2000, generator=rng)][:1000], 5, LinearProbe())
    rate = float((shuffled.head(noise[1000:]).argmax(1) == labels[1000:]).float().mean())
    assert 0.1 < rate < 0.3
    short = fit_logistic(exact, labels, 5, LinearProbe(iterations=1))
    assert short.iterations == 1 and not short.converged and short.loss > fit.loss


def test_features_that_are_not_finite_are_refused_by_name(probed: Probed, tmp_path: Path) -> None:
    """Otherwise the fit would fail with an unrelated error."""
    weights = load_weights(probed.backbone / BACKBONE_FILE)
    broken = tmp_path / "init"
    broken.mkdir()
    save_weights(
        {n: t * 1e30 if n.startswith("block8") and "kernel" in n else t for n, t in weights.items()},
        broken / BACKBONE_FILE,
    )
    _, second, _ = planned(probed.source, probes=Probes(linear=LinearProbe(batch_norm="kept")))
    with pytest.raises(DataError, match=r"features of scratch \(pre-training seed 0\) are NaN or infinite"):
        features.run(open_stage(second, tmp_path / "features", {"init": broken}))


@pytest.mark.parametrize("start", ["reset", pytest.param("kept", marks=pytest.mark.slow)])
def test_a_decoder_probe_leaves_the_encoder_as_it_is(probed: Probed, tmp_path: Path, start: str) -> None:
    probes = Probes(decoder=DecoderProbe(start=start))
    *_, last = planned(probed.source, probes=probes, protocol="decoder")
    context = open_stage(last, tmp_path / "root", {"init": probed.backbone})
    metrics = semantic.run(context)
    scores = score_finetune(context.spec, context.artifacts, probed.source.folder).metrics
    assert metrics["steps"] == 4 and "miou_voxel_best" in scores
    state = load_state(context.out / "checkpoint.pt")
    assert state is not None
    after, before = state["modules"]["network"], load_weights(probed.backbone / BACKBONE_FILE)
    frozen = load_weights(probed.features.artifacts / BACKBONE_FILE)
    trained = {n for n in before if n.startswith(DECODER_PREFIXES)}
    assert len(trained) > 100
    encoder = set(frozen) - trained
    assert all(torch.equal(after[n], frozen[n]) for n in encoder), (
        "weights of the pre-training, norms of the training scenes"
    )
    kernels = [n for n in trained if n.endswith("kernel")]
    gaps = [float((after[n] - before[n]).norm() / before[n].norm()) for n in kernels]
    assert min(gaps) > 0 and (max(gaps) < 0.5 if start == "kept" else min(gaps) > 0.5), (
        "trained from there, or drawn anew"
    )
    assert (
        len(state["optimiser"]["param_groups"][0]["params"])
        == len([n for n in trained if "running" not in n and "tracked" not in n]) + 2
    )


def test_a_plan_estimates_feature_stages(probed: Probed) -> None:
    """A count of the work before the first run, then the mean of earlier runs; a probe is estimated from probes of its task."""
    _, second, last = planned(probed.source)
    assert rough_flops(second) > 0 == rough_flops(last) and History([]).estimate(second, 1).source == "rough"
    assert artifact_bytes(second) > 5 * SOME_ROWS * 12 * 4
    root = probed.features.root / "in"
    (root / "spec.json").write_bytes((root / "stage.json").read_bytes())
    done = {"outcome": "ok", "ledger": {"wall_seconds": 7.0, "cpu_seconds": 7.0}}
    cell = {"task": "s3dis-sem", "budget": "nano", "profile": "nano"}
    history = History([(done, root), ({**done, "cell": cell}, root)])
    assert history.estimate(second, 1)[::2] == (7.0, "earlier runs")
    assert history.estimate(last, 1).source != "earlier runs", "a fine-tuning says nothing of a probe"
    assert (
        History([({**done, "cell": {**cell, "protocol": "linear"}}, root)]).estimate(last, 1).source == "earlier runs"
    )
