"""VoteNet's loss as ContrastiveSceneContexts computes it, and as it was meant (spec F.3)."""

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
"""A proposal grown from a vote nearer than this to an object is positive."""
FAR_METRES = 0.6
"""One further than this from all objects is negative; between the two it does not count."""
OBJECTNESS_WEIGHTS = (0.2, 0.8)
"""Of negative and of positive proposals."""
SMALL = 1e-6
"""Added to squared distances before the root and to counts before a division."""
TERMS = (
    "vote_loss", "objectness_loss", "center_loss", "heading_cls_loss", "heading_reg_loss", "size_cls_loss", "size_reg_loss",
    "sem_cls_loss", "box_loss", "loss", "pos_ratio", "neg_ratio", "obj_acc",
)  # fmt: skip

PaddedObjects = Literal["ignored", "at_origin"]


class BoxTargets(NamedTuple):
    """What there is: `centres` (B, G, 3) metres in G places, of which `present` (B, G) are used; headings and sizes as in
    BoxArrays; and of each seed whether it votes, `vote_mask` (B, S), and three places `vote_targets` (B, S, 3, 3), absolute,
    metres, the nearest of which it should vote for."""

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
    """Of each proposal, (B, P): whether it is `positive`, whether it `counts` for objectness, and the place of its `object`."""

    positive: Tensor
    counts: Tensor
    object: Tensor


def box_targets(
    arrays: BoxArrays, votes: Sequence[Tensor], vote_masks: Sequence[Tensor], seed_rows: Tensor
) -> BoxTargets:
    """The targets of a batch where the seeds are: votes (V_b, 3, 3) and masks (V_b,) of each scene's points, `seed_rows` (B, S).

    They come to lie on the device of the seeds.
    """
    device = seed_rows.device
    mask = torch.stack([m.to(device)[r] for m, r in zip(vote_masks, seed_rows, strict=True)])
    places = torch.stack([v.to(device)[r] for v, r in zip(votes, seed_rows, strict=True)])
    given = {name: torch.from_numpy(array).to(device) for name, array in arrays._asdict().items()}
    return BoxTargets(**given, vote_mask=mask, vote_targets=places)


@torch.no_grad()
def assign(proposals: Proposals, targets: BoxTargets, padded_objects: PaddedObjects = "ignored") -> Assignment:
    """Each proposal belongs to the object whose centre is nearest to the vote that it grew from."""
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
    """The loss of a batch and its terms by name; `mean_sizes` (NS, 3) metres.

    With `at_origin` places that are not used lie at the origin, attract proposals and count as objects, as in the original; with
    `ignored` there is nothing there. A batch without objects or votes has a finite loss, with gradients.
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
    """The sum of the absolute differences along the axes to the nearest place that a seed may vote for."""
    apart = (proposals.votes[:, :, None] - targets.vote_targets.to(proposals.votes.dtype)).abs().sum(3).amin(2)
    return _mean(apart, targets.vote_mask.to(apart.dtype))


def _centre_loss(proposals: Proposals, targets: BoxTargets, positive: Tensor, padded_objects: PaddedObjects) -> Tensor:
    """Squared distance of positive proposals to the nearest object, and of objects to the nearest proposal."""
    squared = _squared(proposals.centres, targets.centres)
    candidates = squared
    if padded_objects == "ignored":
        candidates = squared.masked_fill(~targets.present[:, None], torch.inf)
    # No proposal is positive where there is nothing near it, so what is infinite never counts.
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
    """Heading class and residual, size class and residual, and class: means over the positive proposals."""
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
    """(B, N, M) squared distances of places (B, N, 3) and (B, M, 3)."""
    return (one[:, :, None] - two[:, None].to(one.dtype)).pow(2).sum(3)


def _cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor | None = None) -> Tensor:
    """(B, P) of logits (B, P, C)."""
    rows = functional.cross_entropy(logits.flatten(0, 1), classes.reshape(-1), weights, reduction="none")
    return rows.view(classes.shape)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values that count, 0 where none does."""
    return (values * counted).sum() / (counted.sum() + SMALL)
