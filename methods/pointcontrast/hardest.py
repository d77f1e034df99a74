"""The hardest-contrastive loss (spec B.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pretrain_bench.methods.flops import count_similarities

POSITIVE_MARGIN = 0.1
NEGATIVE_MARGIN = 1.4


class HardestLoss(NamedTuple):
    """Both terms (scalars), and the number of negatives kept for the anchors of either side."""

    positive: Tensor
    negative: Tensor
    kept: tuple[int, int]


def hardest_contrastive(
    features0: Tensor, features1: Tensor, positives: Tensor, candidates0: Tensor, candidates1: Tensor, matches: Tensor
) -> HardestLoss:
    """The hardest-contrastive loss of features (N0, C) and (N1, C) of two clouds.

    `positives` (P, 2) are matching rows of both; the nearest of the candidates (rows of the other cloud) is the hardest negative
    of an anchor. A negative that is a true match, listed in `matches` (M, 2), is dropped; if all are, the term is zero instead of
    NaN as in the original (spec 0.2, item 12). The positive margin applies to the squared distance, the negative to the distance.
    """
    one, two = features0[positives[:, 0]], features1[positives[:, 1]]
    apart = (one - two).pow(2).sum(1)
    positive = torch.relu(apart - POSITIVE_MARGIN).mean()
    span = len(features1)
    true = matches[:, 0] * span + matches[:, 1]
    terms, kept = [], []
    for anchors, others, rows in ((one, features1, candidates1), (two, features0, candidates0)):
        distance, nearest = _nearest(anchors, others[rows])
        nearest_rows = rows[nearest]
        pair = positives[:, 0] * span + nearest_rows if others is features1 else nearest_rows * span + positives[:, 1]
        keep = ~torch.isin(pair, true)
        terms.append(torch.relu(NEGATIVE_MARGIN - distance[keep]).pow(2).sum() / keep.sum().clamp_min(1))
        kept.append(int(keep.sum()))
    return HardestLoss(positive, (terms[0] + terms[1]) / 2, (kept[0], kept[1]))


def _nearest(anchors: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """For each anchor (P, C) the distance sqrt(d^2 + 1e-7) to its nearest candidate (K, C), and the index of that candidate."""
    with torch.no_grad():
        count_similarities(anchors, candidates)
        nearest = torch.cdist(anchors, candidates).argmin(1)
    return ((anchors - candidates[nearest]).pow(2).sum(1) + 1e-7).sqrt(), nearest
