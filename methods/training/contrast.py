"""Contrastive losses shared by the methods: InfoNCE over the rows of two matrices (spec B.3, E.4, E.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pretrain_bench.methods.flops import count_similarities

ROW_BLOCK = 2048


class _InfoNce(torch.autograd.Function):
    """mean_i(logsumexp_j(q_i . k_j / t) - q_i . k_(first + i) / t), with one block of rows of the logits in memory."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: float, block: int, first: int) -> Tensor:
        normaliser = torch.cat([torch.logsumexp(rows @ keys.t() / temperature, 1) for rows in queries.split(block)])
        ctx.save_for_backward(queries, keys, normaliser)
        ctx.temperature, ctx.block, ctx.first = temperature, block, first
        return (normaliser - (queries * keys[first : first + len(queries)]).sum(1) / temperature).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        queries, keys, normaliser = ctx.saved_tensors
        positives = slice(ctx.first, ctx.first + len(queries))
        scale = gradients[0] / (ctx.temperature * len(queries))
        grad_queries = torch.empty_like(queries) if ctx.needs_input_grad[0] else None
        grad_keys = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        for start in range(0, len(queries), ctx.block):
            rows = slice(start, start + ctx.block)
            chances = torch.exp(queries[rows] @ keys.t() / ctx.temperature - normaliser[rows, None])
            if grad_queries is not None:
                grad_queries[rows] = (chances @ keys - keys[positives][rows]) * scale
            if grad_keys is not None:
                grad_keys += chances.t() @ queries[rows] * scale
        if grad_keys is not None:
            grad_keys[positives] -= queries * scale
        return grad_queries, grad_keys, None, None, None


def info_nce(queries: Tensor, keys: Tensor, temperature: float, block: int = ROW_BLOCK) -> Tensor:
    """InfoNCE, a scalar: row i of `keys` is the positive of row i of `queries`, and all other rows are negatives.

    Both are (N, C), N >= 1, normalised by the caller if the method wants it. Gradients are exact; memory is `block` x N. Raises
    ValueError if the shapes differ or have no rows.
    """
    _check_pairs(queries, keys)
    count_similarities(queries, keys)
    return _InfoNce.apply(queries, keys, temperature, block, 0)


def grouped_info_nce(
    pairs: Sequence[tuple[Tensor, Tensor]], temperature: float, block: int = ROW_BLOCK
) -> list[Tensor]:
    """InfoNCE of each group, a scalar each, with the keys of all groups as negatives.

    Each group has queries and keys of equal shape (N_g, C), N_g >= 1; key i is the positive of query i. Raises ValueError if the
    shapes differ or a group has no rows.
    """
    for queries, keys in pairs:
        _check_pairs(queries, keys)
    all_keys = torch.cat([keys for _, keys in pairs])
    losses, first = [], 0
    for queries, _ in pairs:
        count_similarities(queries, all_keys)
        losses.append(_InfoNce.apply(queries, all_keys, temperature, block, first))
        first += len(queries)
    return losses


class _InfoNceAmongQueries(torch.autograd.Function):
    """mean_i(log(exp(q_i . k_i / t) + sum_(j != i) exp(q_i . q_j / t)) - q_i . k_i / t), in blocks as `_InfoNce`."""

    @staticmethod
    def logits(queries: Tensor, keys: Tensor, temperature: float, rows: slice) -> Tensor:
        """(block, N) logits of `rows`: similarities among queries, with that of a query and its key on the diagonal."""
        similarity = queries[rows] @ queries.t()
        similarity.diagonal(rows.start).copy_((queries[rows] * keys[rows]).sum(1))
        return similarity / temperature

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: float, block: int) -> Tensor:
        blocks = [slice(start, min(start + block, len(queries))) for start in range(0, len(queries), block)]
        logits = _InfoNceAmongQueries.logits
        normaliser = torch.cat([logits(queries, keys, temperature, rows).logsumexp(1) for rows in blocks])
        ctx.save_for_backward(queries, keys, normaliser)
        ctx.temperature, ctx.blocks = temperature, blocks
        return (normaliser - (queries * keys).sum(1) / temperature).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        queries, keys, normaliser = ctx.saved_tensors
        scale = gradients[0] / (ctx.temperature * len(queries))
        grad_queries, grad_keys = torch.zeros_like(queries), torch.empty_like(keys)
        for rows in ctx.blocks:
            logits = _InfoNceAmongQueries.logits(queries, keys, ctx.temperature, rows)
            chances = torch.exp(logits - normaliser[rows, None])
            missing = chances.diagonal(rows.start)[:, None].clone() - 1
            chances.diagonal(rows.start).zero_()
            grad_queries[rows] += (chances @ queries + missing * keys[rows]) * scale
            grad_queries += chances.t() @ queries[rows] * scale
            grad_keys[rows] = missing * queries[rows] * scale
        needed = ctx.needs_input_grad
        return grad_queries if needed[0] else None, grad_keys if needed[1] else None, None, None


def info_nce_among_queries(queries: Tensor, keys: Tensor, temperature: float, block: int = ROW_BLOCK) -> Tensor:
    """InfoNCE, a scalar: row i of `keys` is the positive of row i of `queries`, and the other rows of `queries` are negatives.

    Both are (N, C), N >= 1, normalised by the caller if the method wants it. Queries receive gradients as anchors and as
    negatives. Gradients are exact; memory is `block` x N. Raises ValueError if the shapes differ or have no rows.
    """
    _check_pairs(queries, keys)
    count_similarities(queries, queries)
    return _InfoNceAmongQueries.apply(queries, keys, temperature, block)


def _check_pairs(queries: Tensor, keys: Tensor) -> None:
    if queries.shape != keys.shape or not len(queries):
        raise ValueError(
            f"expected queries and keys of equal shape with at least one row, got {tuple(queries.shape)} and "
            f"{tuple(keys.shape)}"
        )


def unit_rows(features: Tensor) -> Tensor:
    """Divide each row of (N, C) features by its L2 norm; a zero row stays zero instead of becoming NaN (spec I-14)."""
    return functional.normalize(features, dim=1, eps=1e-12)


@torch.no_grad()
def embedding_health(queries: Tensor, keys: Tensor, sample: int = 256) -> dict[str, float]:
    """Health values of an embedding, from unit rows `queries` and `keys` (N, C), on at most `sample` evenly spaced rows.

    positive_similarity, negative_similarity: mean dot products. top1: the share of queries whose key ranks first among
    `candidates` keys, averaged over as many disjoint samples as the rows allow to reduce noise. alignment (mean squared distance
    of positives) and uniformity (log of the mean of exp(-2 d^2) over pairs of queries: 0 if all are equal, NaN for one row)
    follow Wang and Isola, 2020. effective_rank: exp of the entropy of the singular values. duplicate_rows: the share of rows that
    repeat another.
    """
    top1 = ranked_first(queries.float(), keys.float(), sample)
    places = torch.linspace(0, len(queries) - 1, min(sample, len(queries)), device=queries.device).long()
    queries, keys = queries[places].float(), keys[places].float()
    similarity = queries @ keys.t()
    positive = similarity.diagonal()
    count = len(queries)
    negative = (similarity.sum() - positive.sum()) / max(1, count * (count - 1))
    singular = torch.linalg.svdvals(queries - queries.mean(0))
    weights = singular / singular.sum().clamp_min(1e-12)
    rank = torch.exp(-(weights * weights.clamp_min(1e-12).log()).sum())
    apart = torch.pdist(queries).pow(2)
    return {
        "positive_similarity": float(positive.mean()),
        "negative_similarity": float(negative),
        "top1": top1,
        "alignment": float((queries - keys).pow(2).sum(1).mean()),
        "uniformity": float(torch.exp(-2 * apart).mean().log()) if len(apart) else float("nan"),
        "effective_rank": float(rank),
        "candidates": float(count),
        "duplicate_rows": 1 - len(torch.unique(queries, dim=0)) / max(1, count),
    }


@torch.no_grad()
def ranked_first(queries: Tensor, keys: Tensor, sample: int) -> float:
    """The share of rows of `queries` (N, C) whose nearest key, among `sample` keys (or N if fewer), is their own.

    Each sample is evenly spaced over the rows. Together the samples cover all rows but the last N modulo `sample`.
    """
    count = min(sample, len(queries))
    groups = len(queries) // count
    one, two = (part[: groups * count].view(count, groups, -1).transpose(0, 1) for part in (queries, keys))
    nearest = torch.bmm(one, two.transpose(1, 2)).argmax(2)
    return float((nearest == torch.arange(count, device=queries.device)).float().mean())
