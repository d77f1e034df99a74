"""VoteNet's loss, as ContrastiveSceneContexts computes it and with its padding corrected (spec F.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pretrain_bench.benchmarks.input.detection import BoxArrays
from pretrain_bench.methods.networks.votenet import Proposals

NEAR_METRES = 0.3
"""A proposal is positive if its vote is closer than this to an object."""
FAR_METRES = 0.6
"""A proposal is negative if its vote is further than this from all objects; between the two it is ignored."""
OBJECTNESS_WEIGHTS = (0.2, 0.8)
"""Weights of negative and positive proposals in the objectness loss."""
SMALL = 1e-6
"""Added to squared distances before the square root, and to counts before a division."""
TERMS = (
    "vote_loss", "objectness_loss", "center_loss", "heading_cls_loss", "heading_reg_loss", "size_cls_loss", "size_reg_loss",
    "sem_cls_loss", "box_loss", "loss", "pos_ratio", "neg_ratio", "obj_acc",
)  # fmt: skip

PaddedObjects = Literal["ignored", "at_origin"]


class BoxTargets(NamedTuple):
    """Ground truth of a batch, padded to G objects: `centres` (B, G, 3) in metres; `present` (B, G) marks real objects; headings
    and sizes as in BoxArrays. Per seed: `vote_mask` (B, S), whether it lies on an object, and `vote_targets` (B, S, 3, 3), three
    candidate positions in metres in the scene's frame, of which the nearest to the vote counts."""

    centres: Tensor
    present: Tensor
    heading_classes: Tensor
    heading_residuals: Tensor
    size_classes: Tensor
    size_residuals: Tensor
    classes: Tensor
    vote_mask: Tensor
    vote_targets: Tensor


class Assignment(NamedTuple):
    """For each proposal, (B, P): whether it is `positive`, whether it `counts` in the objectness loss, and the index of its
    `object`."""

    positive: Tensor
    counts: Tensor
    object: Tensor


def box_targets(
    arrays: BoxArrays, votes: Sequence[Tensor], vote_masks: Sequence[Tensor], seed_rows: Tensor
) -> BoxTargets:
    """The targets of a batch at its seeds: `seed_rows` (B, S) selects from votes (V_b, 3, 3) and masks (V_b,) of each scene.

    The result is on the device of `seed_rows`.
    """
    device = seed_rows.device
    mask = torch.stack([m.to(device)[r] for m, r in zip(vote_masks, seed_rows, strict=True)])
    places = torch.stack([v.to(device)[r] for v, r in zip(votes, seed_rows, strict=True)])
    given = {name: torch.from_numpy(array).to(device) for name, array in arrays._asdict().items()}
    return BoxTargets(**given, vote_mask=mask, vote_targets=places)


@torch.no_grad()
def assign(proposals: Proposals, targets: BoxTargets, padded_objects: PaddedObjects = "ignored") -> Assignment:
    """Assign each proposal to the object whose centre is nearest to its vote (`proposals.clusters`)."""
    squared = _squared(proposals.clusters, targets.centres)
    if padded_objects == "ignored":
        squared = squared.masked_fill(~targets.present[:, None], torch.inf)
    nearest, chosen = squared.min(2)
    distance = (nearest + SMALL).sqrt()
    positive = distance < NEAR_METRES
    return Assignment(positive, positive | (distance > FAR_METRES), chosen)


def votenet_loss(
    proposals: Proposals,
    targets: BoxTargets,
    mean_sizes: NDArray[np.floating] | Tensor,
    padded_objects: PaddedObjects = "ignored",
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, a scalar, and its TERMS by name; `mean_sizes` (NS, 3) in metres.

    With `at_origin`, padding acts as objects at the origin that attract proposals, as in the original; with `ignored`, it has no
    effect. A batch without objects or votes has a finite loss, with gradients.
    """
    assigned = assign(proposals, targets, padded_objects)
    positive = assigned.positive.to(proposals.centres.dtype)
    counted = assigned.counts.to(positive.dtype)
    votes = _vote_loss(proposals, targets)
    weights = positive.new_tensor(OBJECTNESS_WEIGHTS)
    objectness = _mean(_cross_entropy(proposals.objectness, assigned.positive.long(), weights), counted)
    centre = _centre_loss(proposals, targets, positive, padded_objects)
    turn_class, turn, size_class, size, kind = _box_terms(proposals, targets, assigned, mean_sizes, positive)
    box = centre + 0.1 * turn_class + turn + 0.1 * size_class + size
    loss = 10 * (votes + 0.5 * objectness + box + 0.1 * kind)
    share = positive.mean()
    right = _mean((proposals.objectness.argmax(2) == assigned.positive).to(positive.dtype), counted)
    values = (
        votes, objectness, centre, turn_class, turn, size_class, size, kind, box, loss, share, counted.mean() - share, right
    )  # fmt: skip
    return loss, dict(zip(TERMS, torch.stack([v.detach() for v in values]).tolist(), strict=True))


def _vote_loss(proposals: Proposals, targets: BoxTargets) -> Tensor:
    """Mean L1 distance of the votes to the nearest of their targets, over the seeds that lie on an object."""
    apart = (proposals.votes[:, :, None] - targets.vote_targets.to(proposals.votes.dtype)).abs().sum(3).amin(2)
    return _mean(apart, targets.vote_mask.to(apart.dtype))


def _centre_loss(proposals: Proposals, targets: BoxTargets, positive: Tensor, padded_objects: PaddedObjects) -> Tensor:
    """Mean squared distance of positive proposals to the nearest object, plus that of objects to the nearest proposal."""
    squared = _squared(proposals.centres, targets.centres)
    candidates = squared
    if padded_objects == "ignored":
        candidates = squared.masked_fill(~targets.present[:, None], torch.inf)
    # A positive proposal has an object nearby, so an infinite distance never enters the mean.
    to_object = candidates.min(2).values.masked_fill(positive == 0, 0.0)
    to_proposal = squared.min(1).values
    return _mean(to_object, positive) + _mean(to_proposal, targets.present.to(squared.dtype))


def _box_terms(
    proposals: Proposals,
    targets: BoxTargets,
    assigned: Assignment,
    mean_sizes: NDArray[np.floating] | Tensor,
    positive: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses of heading class and residual, size class and residual, and semantic class: means over the positive proposals."""
    dtype = positive.dtype
    heading, size, kind = (
        t.gather(1, assigned.object) for t in (targets.heading_classes, targets.size_classes, targets.classes)
    )
    half_bin = math.pi / proposals.heading_scores.shape[2]
    turn = targets.heading_residuals.to(dtype).gather(1, assigned.object) / half_bin
    said_turn = proposals.heading_residuals.gather(2, heading[..., None])[..., 0]
    means = torch.as_tensor(mean_sizes, device=positive.device).float().to(dtype)
    place = assigned.object[..., None].expand(-1, -1, 3)
    stretch = targets.size_residuals.to(dtype).gather(1, place) / means[size]
    said_stretch = proposals.size_residuals.gather(2, size[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
    return (
        _mean(_cross_entropy(proposals.heading_scores, heading), positive),
        _mean(functional.huber_loss(said_turn, turn, reduction="none"), positive),
        _mean(_cross_entropy(proposals.size_scores, size), positive),
        _mean(functional.huber_loss(said_stretch, stretch, reduction="none").mean(2), positive),
        _mean(_cross_entropy(proposals.class_scores, kind), positive),
    )


def _squared(one: Tensor, two: Tensor) -> Tensor:
    """(B, N, M) squared distances between points (B, N, 3) and (B, M, 3)."""
    return (one[:, :, None] - two[:, None].to(one.dtype)).pow(2).sum(3)


def _cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor | None = None) -> Tensor:
    """(B, P) cross-entropy of logits (B, P, C) and classes (B, P)."""
    rows = functional.cross_entropy(logits.flatten(0, 1), classes.reshape(-1), weights, reduction="none")
    return rows.view(classes.shape)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values weighted by `counted`; 0 if none counts."""
    return (values * counted).sum() / (counted.sum() + SMALL)
