"""PointGroup: clusters of both coordinates, their targets, scores and suppression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrain_bench.benchmarks.metrics import predictions
from pretrain_bench.benchmarks.metrics.instance_ap import THRESHOLDS, Instances, average_precision, scene_verdicts
from pretrain_bench.benchmarks.metrics.scorer import scorer_of
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.recipes import InstanceRecipe, PointGroupSettings
from pretrain_bench.harness.running.scoring import score_finetune
from pretrain_bench.methods.finetune import instance, pointgroup
from pretrain_bench.methods.finetune.clustering import Clusters
from pretrain_bench.methods.finetune.instance import instance_loss
from pretrain_bench.methods.finetune.pointgroup import (
    best_overlaps,
    chosen,
    cluster_cells,
    cluster_logits,
    joined,
    largest,
    overlaps,
    proposals,
    score_targets,
    scored_and_suppressed,
)
from pretrain_bench.methods.finetune.steps import MicroBatch
from pretrain_bench.methods.networks.instance_net import InstanceNet, InstanceOutput
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.networks.score_net import ScoreNet
from pretrain_bench.methods.sparse.tensor import SparseTensor, batched_coordinates
from tests.methods.test_odd_scenes import open_task, room

SETTINGS = PointGroupSettings()
RECIPE = InstanceRecipe(
    kind="instance", steps=30, batch=1, micro_batch=1, voxel_metres=0.02, validate_every=30, method="pointgroup",
    component_least_voxels=5, cluster_above_voxels=5,
)  # fmt: skip


def listed(*rows: list[int], confidences: list[float] | None = None) -> Clusters:
    return Clusters(
        np.concatenate([np.zeros(0, int), *map(np.array, rows)]).astype(np.int32),
        np.cumsum([0, *map(len, rows)]).astype(np.int32),
        np.full(len(rows), 1, np.uint8),
        np.array(confidences or [0.0] * len(rows), np.float32),
    )


def test_targets_by_hand() -> None:
    found = score_targets(np.array([0.0, 0.25, 0.5, 0.75, 0.9]), SETTINGS)
    assert found.tolist() == [0, 0, 0.5, 1, 1] and found.dtype == np.float32


def test_best_overlaps_by_hand() -> None:
    instances = np.array([7, 7, 7, 7, 9, 9, -1, -1])
    # IoU of {0,1} with {0..3}: 1/2; of {3,4,5} with instance 7: 1/6, with instance 9: 2/3; {6,7}: void.
    found = best_overlaps(listed([0, 1], [3, 4, 5], [6, 7]), instances)
    assert found.tolist() == pytest.approx([0.5, 2 / 3, 0.0])
    assert best_overlaps(listed([0, 1]), np.full(8, -1)).tolist() == [0.0]


def test_suppression_by_hand() -> None:
    """{0..3} scores 0.9 and stays; {1..4} has an IoU of 3/5 with it, {3..9} of 1/10; a score of exactly 0.09 is too low."""
    found = listed([0, 1, 2, 3], [1, 2, 3, 4], [3, 4, 5, 6, 7, 8, 9], [10, 11])
    kept = scored_and_suppressed(found, np.array([0.9, 0.8, 0.5, 0.09]), 12, SETTINGS)
    assert kept.starts.tolist() == [0, 4, 11] and kept.confidences.tolist() == pytest.approx([0.9, 0.5])


def test_suppression_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        voxels = int(rng.integers(5, 40))
        rows = [
            sorted(rng.choice(voxels, rng.integers(1, voxels), replace=False).tolist())
            for _ in range(rng.integers(0, 9))
        ]
        scores = rng.random(len(rows))
        found = scored_and_suppressed(listed(*rows), scores, voxels, SETTINGS)
        kept: list[int] = []
        for row in sorted(range(len(rows)), key=lambda r: -scores[r]):
            if scores[row] > 0.09 and all(
                len({*rows[row]} & {*rows[k]}) / len({*rows[row]} | {*rows[k]}) <= 0.3 for k in kept
            ):
                kept.append(row)
        assert found.confidences.tolist() == pytest.approx([scores[k] for k in kept])
        assert found.voxels.tolist() == [v for k in kept for v in rows[k]]
        assert overlaps(listed(*rows), voxels).shape == (len(rows), len(rows))


def test_lists_of_clusters() -> None:
    one = joined([listed([0, 1], [2]), listed([3, 4, 5])], [0, 10])
    assert one.voxels.tolist() == [0, 1, 2, 13, 14, 15] and one.starts.tolist() == [0, 2, 3, 6]
    assert chosen(one, np.array([2, 0])).voxels.tolist() == [13, 14, 15, 0, 1]
    assert largest(one, 2).voxels.tolist() == [0, 1, 13, 14, 15]
    assert joined([]).starts.tolist() == [0]


def test_the_number_of_cells_per_side_is_limited() -> None:
    wide = np.stack([np.arange(100), np.zeros(100, int), np.zeros(100, int)], axis=1)
    assert cluster_cells(wide, RECIPE).max(axis=0).tolist() == [13, 0, 0]
    for metres in (0.02, 0.05, 0.2):
        recipe = RECIPE.model_copy(update={"voxel_metres": metres})
        assert (cluster_cells(wide[:10] + 50, recipe) == wide[:10]).all(), (
            "a cell is a voxel: neighbours stay neighbours"
        )
    fine = cluster_cells(wide[:10], RECIPE.model_copy(update={"voxel_metres": 0.01}))
    assert fine[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "a cell of 2 cm has two voxels of 1 cm"


def line(start: int, count: int) -> np.ndarray:
    return np.stack([np.arange(start, start + count), np.zeros(count, int), np.zeros(count, int)], axis=1)


def test_both_coordinates_find_what_one_alone_misses() -> None:
    """Two touching rows of voxels that offsets separate; one row that wrong offsets tear apart."""
    touching, torn = np.concatenate([line(0, 10), line(10, 10)]), line(100, 10)
    coordinates = np.concatenate([touching, torn])
    offsets = np.zeros((30, 3), np.float32)
    offsets[:10, 0], offsets[10:20, 0] = 4.5 - np.arange(10), 14.5 - np.arange(10, 20)
    offsets[20:, 1] = 5 * np.arange(10)
    logits = torch.tensor([[0.0, 1.0]]).expand(30, 2)
    out = InstanceOutput(logits, torch.from_numpy(offsets * 0.02).float(), torch.zeros(30, 4))
    found = proposals(coordinates, out, RECIPE, (1,), 5)
    sets = [found.voxels[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]
    assert sets == [[*range(20)], [*range(20, 30)], [*range(10)], [*range(10, 20)]]


def network(seed: int = 0) -> InstanceNet:
    settings = NetworkSettings(width=0.125)
    backbone = seeded_backbone(2, settings, 0.1, "torch", seed)
    return InstanceNet(backbone, 0.1, seed, ScoreNet(backbone.feature_channels, 8, "torch", 0.1, seed))


def blobs(seed: int = 0) -> MicroBatch:
    """Three blocks of class 1 on a floor of class 0."""
    side = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    floor = np.stack(np.meshgrid(np.arange(24), np.arange(8), [0], indexing="ij"), -1).reshape(-1, 3)
    blocks = [side + np.array([8 * i + 1, 2, 1]) for i in range(3)]
    cells = np.concatenate([floor, *blocks])
    instances = np.repeat([-1, 0, 1, 2], [len(floor), 64, 64, 64])
    rng = np.random.default_rng(seed)
    return MicroBatch(
        batched_coordinates([torch.from_numpy(cells)]),
        torch.from_numpy(rng.random((len(cells), 3), np.float32)),
        torch.from_numpy((instances >= 0).astype(np.int64)),
        torch.from_numpy(instances),
    )


def test_scores_start_at_their_share_and_reach_the_backbone() -> None:
    net, part = network(), blobs()
    out = net(SparseTensor(part.colours, part.coordinates))
    labelled = out._replace(logits=torch.where(part.labels[:, None] == torch.arange(2), 3.0, -3.0) + 0 * out.logits)
    early = instance_loss(net, RECIPE, (1,), labelled, part, 0.33)
    late = instance_loss(net, RECIPE, (1,), labelled, part, 0.34)
    assert "score_loss" not in early.parts and late.parts["score_loss"] > 0
    (gradient,) = torch.autograd.grad(
        late.total - early.total, net.backbone.conv0p1s1.kernel, retain_graph=True, allow_unused=True
    )
    assert gradient is not None and gradient.abs().sum() > 0
    late.total.backward()
    assert all(p.grad is not None for p in net.scores.parameters())


def test_a_crowded_scene_leaves_the_others_their_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenes with three large and two small blocks: the cap applies per scene, not per step."""
    side = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    scenes = [
        np.concatenate([side + np.array([8 * i, 0, 0]) for i in range(3)]),
        np.concatenate([side[:12] + np.array([8 * i, 0, 0]) for i in range(2)]),
    ]
    coordinates = batched_coordinates([torch.from_numpy(s) for s in scenes])
    net, count = network(), len(coordinates)
    out = InstanceOutput(
        torch.tensor([[-3.0, 3.0]]).expand(count, 2),
        torch.zeros(count, 3),
        torch.randn(count, net.backbone.feature_channels),
    )
    seen: list[Clusters] = []

    def spy(*arguments: Any) -> torch.Tensor:
        seen.append(arguments[3])
        return cluster_logits(*arguments)

    monkeypatch.setattr(pointgroup, "cluster_logits", spy)
    recipe = RECIPE.model_copy(update={"pointgroup": SETTINGS.model_copy(update={"most_clusters": 2})})
    pointgroup.score_loss(net, out, coordinates.numpy(), np.zeros(count, int), recipe, (1,))
    assert np.diff(seen[0].starts).tolist() == [64, 64, 12, 12]


def test_scores_do_not_depend_on_the_order_of_rows() -> None:
    """MinkowskiEngine may reorder rows; and a single cluster is scored like one of several."""
    net = network().eval()
    assert net.scores is not None
    cells = [torch.from_numpy(line(0, n)) for n in (4, 9, 2)]
    features = torch.randn(15, net.backbone.feature_channels)
    usual = net.scores(features, cells)

    def shuffled(values: torch.Tensor, coordinates: torch.Tensor) -> SparseTensor:
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
        return SparseTensor(values[order], coordinates[order])

    alone = net.scores(features[4:13], cells[1:2])
    net.scores.engine.SparseTensor = shuffled
    assert torch.allclose(net.scores(features, cells), usual, atol=1e-5)
    assert torch.allclose(alone, usual[1:2], atol=1e-5)
    assert usual.unique().numel() == 3


def test_without_clusters_the_score_loss_is_zero() -> None:
    net, part = network(), blobs()
    out = net(SparseTensor(part.colours, part.coordinates))
    floor = out._replace(logits=torch.tensor([[3.0, -3.0]]) + 0 * out.logits)
    loss = instance_loss(net, RECIPE, (1,), floor, part, 0.9)
    loss.total.backward()
    assert loss.parts["score_loss"] == 0 and torch.isfinite(loss.total)


@pytest.mark.slow
def test_scores_learn_which_clusters_are_instances() -> None:
    """Touching blocks are one wrong cluster at the original positions, and three correct ones after shifting."""
    torch.manual_seed(0)
    net, part = network(), blobs()
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    x = part.coordinates[:, 1:].numpy()
    merged = listed([*range(192, 384)], [*range(192, 256)], [*range(256, 320)], [*range(320, 384)])
    targets = torch.from_numpy(score_targets(best_overlaps(merged, part.instances.numpy()), SETTINGS))
    assert targets.tolist() == pytest.approx([(1 / 3 - 0.25) / 0.5, 1, 1, 1])
    for _ in range(25):
        optimiser.zero_grad()
        features = net(SparseTensor(part.colours, part.coordinates)).features
        logits = cluster_logits(net, features, x, merged, RECIPE)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimiser.step()
    scores = torch.sigmoid(logits.detach()).numpy()
    assert scores[1:].min() > scores[0] + 0.3
    best = scored_and_suppressed(merged, scores, len(x), SETTINGS)
    said = Instances(best.voxels, best.starts, best.classes, best.confidences)
    verdicts = scene_verdicts(part.labels.numpy(), part.instances.numpy(), said, (1,), 10)[1]
    assert verdicts is not None and average_precision(verdicts[THRESHOLDS.index(0.5)]) == pytest.approx(1.0)


def test_a_run_is_scored_and_repeats(tmp_path: Path) -> None:
    scenes = {"usual": room(), "other": room(1)}
    made = []
    for _ in range(2):
        planned, context = open_task(
            "scannet-inst", tmp_path, scenes, ("usual",), ("other",), method="pointgroup", voxel_metres=0.1,
            pointgroup=SETTINGS.model_copy(update={"score_from": 0.5}),
        )  # fmt: skip
        metrics = instance.run(context)
        assert planned.data is not None
        scored = score_finetune(planned.spec, context.artifacts, planned.data.folder).metrics
        assert {n: metrics[n] for n in scored} == scored
        steps = [line for line in (context.out / "events.jsonl").read_text().splitlines() if '"step"' in line]
        assert sum("score_loss" in line for line in steps) == 2
        made.append(metrics)
    assert made[0] == made[1]


def test_predicted_instances_are_read_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that recognises chairs (class 4) by height predicts two instances, which are written, read and scored correctly."""
    planned, context = open_task(
        "scannet-inst", tmp_path, {"usual": room()}, ("usual",), ("usual",), method="pointgroup", voxel_metres=0.1
    )
    recipe, data, net = planned.recipe, planned.data, network().eval()
    assert isinstance(recipe, InstanceRecipe) and planned.spec.data is not None and data is not None
    real, classes = net.forward, planned.spec.data.classes

    def forward(x: Any) -> InstanceOutput:
        out = real(x)
        said = torch.where(x.C[:, 3] > 0, 4, 1)
        logits = torch.nn.functional.one_hot(said, len(classes)).float()
        return InstanceOutput(logits, torch.zeros_like(out.offsets), out.features)

    monkeypatch.setattr(net, "forward", forward)
    scorer = scorer_of(recipe, classes, planned.spec.data.things, context.view, ("usual",))
    with torch.no_grad():
        made = instance._predict(context, net, recipe, (4,), "usual")
    predictions.write(tmp_path / "said", {"usual": made})
    found = scorer.read(tmp_path / "said", "usual")
    assert found["instance_classes"].tolist() == [4, 4], (
        "clusters of both coordinates are the same here; one of each stays"
    )
    assert scorer.score({"usual": found})["ap50"] == 1.0


@pytest.mark.parametrize(("ratio", "warned"), [("20points", True), ("100%", False)])
def test_few_labelled_points_are_warned_of(ratio: str, warned: bool, tmp_path: Path) -> None:
    _, context = open_task(
        "scannet-inst", tmp_path, {"usual": room()}, ("usual",), ("usual",), method="pointgroup", steps=1
    )
    context.spec = context.spec.model_copy(update={"label_ratio": LabelRatio.parse(ratio)})
    instance.run(context)
    assert ("their scores learn to be 0" in (context.out / "events.jsonl").read_text()) is warned
