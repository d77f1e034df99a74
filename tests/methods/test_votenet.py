"""VoteNet: shapes, seeds, gradients, degenerate scenes, and decoding of encoded boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pretrain_bench.benchmarks.input.boxes import oriented_iou
from pretrain_bench.benchmarks.input.detection import box_arrays, training_sample
from pretrain_bench.benchmarks.metrics.detection_ap import decode
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe
from pretrain_bench.methods.finetune.votenet_loss import TERMS, PaddedObjects, assign, box_targets, votenet_loss
from pretrain_bench.methods.networks.pointnet2 import PointLevel, SetAbstraction, furthest_point_sample
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.networks.votenet import (
    Proposals,
    VoteNet,
    norm_momentum,
    raw_boxes,
    seed_rows,
    set_norm_momentum,
)
from pretrain_bench.methods.sparse.tensor import SparseTensor, batched_coordinates

RECIPE = DetectionRecipe(
    kind="detection", steps=1, batch=2, micro_batch=2, voxel_metres=0.1, validate_every=1, points=600,
    seeds=48, proposals=12, vote_channels=16, proposal_channels=8, group_points=6,
)  # fmt: skip
SIZES = np.array([[1.0, 0.5, 0.7], [2.0, 1.0, 1.0], [0.4, 0.4, 1.5]])
BOXES = np.array([[0.5, 0.5, 0.4, 1.0, 0.6, 0.8, 0.0, 0], [2.0, 1.5, 0.5, 1.8, 1.2, 1.0, 0.0, 1]])
BINS = 4


def network(recipe: DetectionRecipe = RECIPE, bins: int = BINS) -> VoteNet:
    torch.manual_seed(0)
    backbone = seeded_backbone(recipe.vote_channels, NetworkSettings(width=0.125), 0.1, "torch", 0)
    return VoteNet(backbone, recipe, len(SIZES), bins, SIZES)


def sample(seed: int, points: int = 600, boxes: np.ndarray = BOXES):
    rng = np.random.default_rng(seed)
    return training_sample(
        rng.uniform(0, [3, 2.5, 1.2], (points, 3)), rng.integers(0, 256, (points, 3)), boxes, None, RECIPE, rng
    )


def forward(net: VoteNet, samples: list) -> Proposals:
    coordinates = batched_coordinates([torch.from_numpy(s.coordinates) for s in samples])
    colours = torch.from_numpy(np.concatenate([s.colours for s in samples]))
    return net(SparseTensor(colours, coordinates), [torch.from_numpy(s.points) for s in samples])


def targets_of(samples: list, proposals: Proposals, bins: int = BINS):
    votes = [torch.from_numpy(s.votes) for s in samples]
    masks = [torch.from_numpy(s.vote_mask) for s in samples]
    return box_targets(box_arrays([s.boxes for s in samples], bins, SIZES), votes, masks, proposals.seed_rows)


def test_what_comes_out_has_its_shape_and_every_weight_learns() -> None:
    net, samples = network(), [sample(0), sample(1)]
    out = forward(net, samples)
    shapes = {
        "seeds": (48, 3), "seed_rows": (48,), "votes": (48, 3), "clusters": (12, 3), "centres": (12, 3), "objectness": (12, 2),
        "heading_scores": (12, BINS), "heading_residuals": (12, BINS), "size_scores": (12, 3), "size_residuals": (12, 3, 3),
        "class_scores": (12, 3),
    }  # fmt: skip
    for name, value in out._asdict().items():
        assert value.shape == (2, *shapes[name]), name
        assert value.dtype == (torch.int64 if name == "seed_rows" else torch.float32)
    for item, one in enumerate(samples):
        assert np.array_equal(out.seeds[item].numpy(), one.points[out.seed_rows[item].numpy()])
        votes = set(map(tuple, out.votes[item].tolist()))
        assert all(tuple(c) in votes for c in out.clusters[item].tolist()), "proposals grow from votes"
    loss, terms = votenet_loss(out, targets_of(samples, out), SIZES)
    loss.backward()
    assert np.isfinite(list(terms.values())).all() and tuple(terms) == TERMS
    lifeless = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not lifeless
    assert all(p.grad.any() for n, p in net.named_parameters() if n.endswith("0.weight") and "backbone" not in n)


def test_proposals_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = forward(network(), [sample(0)])
    assert {t.dtype for t in out} == {torch.float32, torch.int64}


def test_the_outputs_are_in_the_published_order() -> None:
    """The last layer has, in order: objectness (2), centre (3), heading scores and residuals, size scores and residuals, classes."""
    net = network().eval()
    last = net.proposing[1]
    assert isinstance(last, nn.Linear) and last.out_features == 2 + 3 + 2 * BINS + 4 * 3 + 3
    nn.init.zeros_(last.weight)
    last.bias.data = torch.arange(last.out_features).float()
    out = forward(net, [sample(0)])
    assert out.objectness[0, 0].tolist() == [0, 1]
    assert torch.allclose(out.centres - out.clusters, torch.tensor([2.0, 3, 4]), atol=1e-5)
    assert out.heading_scores[0, 0].tolist() == [5, 6, 7, 8] and out.heading_residuals[0, 0].tolist() == [9, 10, 11, 12]
    assert out.size_scores[0, 0].tolist() == [13, 14, 15]
    assert out.size_residuals[0, 0].tolist() == [[16, 17, 18], [19, 20, 21], [22, 23, 24]]
    assert out.class_scores[0, 0].tolist() == [25, 26, 27]


def test_the_full_head_has_the_published_layers() -> None:
    recipe = DetectionRecipe(kind="detection", steps=1, validate_every=1)
    net = VoteNet(nn.Identity(), recipe, 18, 1, np.ones((18, 3)))
    shapes = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
    assert shapes == [
        (256, 256), (256, 256), (259, 256), (128, 259), (128, 128), (128, 128), (128, 128), (128, 128),
        (2 + 3 + 2 + 72 + 18, 128),
    ]  # fmt: skip
    assert not any("mean_sizes" in name for name in net.state_dict())


def test_the_features_of_votes_have_length_one() -> None:
    net = network()
    seen = []
    net.grouping.register_forward_pre_hook(lambda _m, given: seen.append(given[1].detach()))
    forward(net, [sample(0)])
    assert torch.allclose(seen[0].norm(dim=2), torch.ones(1, 48), atol=1e-5)


def test_the_scenes_of_a_batch_do_not_mix() -> None:
    net, samples = network().eval(), [sample(0, 300), sample(1, 600), sample(2, 20)]
    with torch.no_grad():
        together = forward(net, samples)
        for order in ([2, 0, 1], [1]):
            apart = forward(net, [samples[i] for i in order])
            for one, two in zip(together, apart, strict=True):
                assert torch.allclose(one[order].float(), two.float(), atol=1e-5)


@pytest.mark.parametrize("skip_origin", [False, True])
def test_seeds_of_a_batch_are_those_of_each_scene(skip_origin: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    points = [torch.rand(n, 3, generator=generator) for n in (90, 31, 30, 7, 1)]
    points[0][0] = 0.01
    points[1][5] = 0.01
    rows = seed_rows(points, 30, skip_origin)
    for scene in (0, 1):
        assert torch.equal(rows[scene], furthest_point_sample(points[scene][None], 30, skip_origin)[0])
    assert rows[2].tolist() == list(range(30)) and rows[3].tolist() == [i % 7 for i in range(30)]
    assert not rows[4].any()


def test_scenes_of_few_voxels() -> None:
    net, samples = network(), [sample(0, 1), sample(1, 5)]
    out = forward(net, samples)
    loss, terms = votenet_loss(out, targets_of(samples, out), SIZES)
    loss.backward()
    assert np.isfinite(list(terms.values())).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    alone = [sample(0, 1)]
    out = forward(net, alone)
    assert out.seeds.shape == (1, 48, 3) and all(t.isfinite().all() for t in out)


def test_voxels_of_other_scenes_are_refused() -> None:
    net, one, two = network(), sample(0), sample(1, 300)
    coordinates = batched_coordinates([torch.from_numpy(s.coordinates) for s in (one, two)])
    tensor = SparseTensor(torch.zeros(len(coordinates), 3), coordinates)
    with pytest.raises(ValueError, match="expected the voxels of 2 scenes"):
        net(tensor, [torch.from_numpy(two.points), torch.from_numpy(one.points)])


def test_the_rule_of_the_origin_reaches_both_samplings() -> None:
    net = network(RECIPE.model_copy(update={"sampling_skips_origin": True}))
    assert net.skip_origin and net.grouping.skip_origin and not network().grouping.skip_origin
    points = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [1.1, 0, 0]]])
    level = PointLevel(2, 5.0, 1, (2,))
    assert SetAbstraction(level, 0)(points, None)[0][0, 1].tolist() == [0, 0, 0]
    assert SetAbstraction(level, 0, skip_origin=True)(points, None)[0][0, 1, 0] > 1


@pytest.mark.parametrize("padded", ["ignored", "at_origin"])
def test_scenes_without_objects(padded: PaddedObjects) -> None:
    """The loss is finite, and the network learns low objectness."""
    net, samples = network(), [sample(0, boxes=np.zeros((0, 8))), sample(1, boxes=np.zeros((0, 8)))]
    out = forward(net, samples)
    targets = targets_of(samples, out)
    loss, terms = votenet_loss(out, targets, SIZES, padded)
    loss.backward()
    assert np.isfinite(list(terms.values())).all() and terms["vote_loss"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    if padded == "ignored":
        assert terms["pos_ratio"] == 0 and terms["neg_ratio"] == 1 and terms["box_loss"] == 0 == terms["sem_cls_loss"]
        assert net.proposing[1].bias.grad[:2].any() and terms["objectness_loss"] > 0


def test_places_that_are_not_used_do_not_change_the_loss() -> None:
    net, samples = network(), [sample(0), sample(1)]
    out = forward(net, samples)
    arrays = [box_arrays([s.boxes for s in samples], BINS, SIZES, places) for places in (2, 64)]
    votes, masks = ([torch.from_numpy(getattr(s, f)) for s in samples] for f in ("votes", "vote_mask"))
    few, many = (box_targets(a, votes, masks, out.seed_rows) for a in arrays)
    assert votenet_loss(out, few, SIZES)[1] == pytest.approx(votenet_loss(out, many, SIZES)[1], rel=1e-5)
    moved = many._replace(centres=torch.where(many.present[..., None], many.centres, out.clusters[:, :1].detach()))
    assert torch.equal(assign(out, moved).object, assign(out, many).object)


def perfect(boxes: np.ndarray, bins: int) -> Proposals:
    """The output of a network that is right everywhere, with some uncertainty."""
    arrays = box_arrays([boxes], bins, SIZES, places=len(boxes))
    count, rng = len(boxes), np.random.default_rng(0)
    rows = np.arange(count)
    headings, sizes, classes = (rng.normal(size=(count, n)) for n in (bins, len(SIZES), len(SIZES)))
    turns, stretches = rng.normal(size=(count, bins)), rng.normal(size=(count, len(SIZES), 3))
    headings[rows, arrays.heading_classes[0]] = sizes[rows, arrays.size_classes[0]] = classes[
        rows, arrays.classes[0]
    ] = 9
    turns[rows, arrays.heading_classes[0]] = arrays.heading_residuals[0] / (np.pi / bins)
    stretches[rows, arrays.size_classes[0]] = arrays.size_residuals[0] / SIZES[arrays.size_classes[0]]
    objectness = np.tile([-9.0, 9.0], (count, 1))
    parts = (arrays.centres[0], arrays.centres[0], objectness, headings, turns, sizes, stretches, classes)
    seeds = torch.from_numpy(arrays.centres)
    return Proposals(seeds, torch.arange(count)[None], seeds, *(torch.from_numpy(p)[None].float() for p in parts))


@pytest.mark.parametrize("bins", [1, 12])
def test_encoded_boxes_come_back_and_cost_nothing(bins: int) -> None:
    rng = np.random.default_rng(4)
    count = 40
    boxes = np.column_stack([
        rng.uniform(-50, 50, (count, 3)), rng.uniform(0.2, 3, (count, 3)), rng.uniform(-np.pi, np.pi, count) * (bins > 1),
        rng.integers(0, 3, count),
    ])  # fmt: skip
    proposals = perfect(boxes, bins)
    found = decode(raw_boxes(proposals, SIZES, 0), SIZES)
    assert np.allclose(found.boxes[:, :6], boxes[:, :6], atol=1e-5)
    apart = found.boxes[:, 6] - boxes[:, 6]
    assert np.abs(np.sin(apart)).max() < 1e-5 and np.cos(apart).min() > 0.99
    assert oriented_iou(found.boxes, boxes[:, :7]).min() > 0.999
    assert np.array_equal(found.classes.argmax(1), boxes[:, 7]) and found.objectness.min() > 0.99
    votes, mask = proposals.seeds[0, :, None].expand(-1, 3, 3), torch.ones(count, dtype=torch.bool)
    targets = box_targets(box_arrays([boxes], bins, SIZES), [votes], [mask], proposals.seed_rows)
    loss, terms = votenet_loss(proposals, targets, SIZES)
    assert terms["pos_ratio"] == terms["obj_acc"] == pytest.approx(1, abs=1e-5)
    assert all(
        terms[t] == pytest.approx(0, abs=1e-6)
        for t in ("vote_loss", "center_loss", "heading_reg_loss", "size_reg_loss")
    )
    assert float(loss) < 0.2


def test_votes_learn_from_the_vote_loss_and_from_what_grows_from_them() -> None:
    """Sampled votes keep their gradients, as in VoteNet: a centre is a vote plus a residual."""
    net, samples = network(), [sample(0)]
    out = forward(net, samples)
    assert out.seeds.grad_fn is None and out.votes.requires_grad
    out.votes.retain_grad()
    out.centres.sum().backward()
    rows = [out.votes[0].tolist().index(c) for c in out.clusters[0].tolist()]
    assert out.votes.grad is not None and out.votes.grad[0][rows].abs().sum(1).min() > 0.1


def test_the_momentum_of_every_norm() -> None:
    net = network()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
    inside = [m for m in net.backbone.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(inside) > 50 and len(norms) == len(inside) + 2 + 3 + 2
    set_norm_momentum(net, 0.25)
    assert {m.momentum for m in norms} == {0.25}
    for progress, expected in (
        (0, 0.5),
        (79 / 180, 0.5),
        (80 / 180, 0.25),
        (159.9 / 180, 0.25),
        (160 / 180, 0.125),
        (1, 0.125),
    ):
        assert norm_momentum(RECIPE, progress) == expected, progress
    often = RECIPE.model_copy(update={"norm_halved_every": 0.1})
    assert norm_momentum(often, 0.3) == 0.0625 and norm_momentum(often, 1.0) == 0.001
