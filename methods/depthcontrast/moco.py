"""Momentum contrast with a queue, within and across formats (spec D.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain_bench.methods.flops import count_similarities


class Queue(nn.Module):
    """The last K keys as unit rows (K, C); the oldest are overwritten first. It starts with seeded random unit rows."""

    rows: Tensor
    place: Tensor

    def __init__(self, keys: int, channels: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(keys, channels, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", functional.normalize(drawn, dim=1))
        self.register_buffer("place", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Add keys (B, C), unit rows. Raises ValueError unless B divides the length of the queue."""
        if len(self.rows) % len(keys):
            raise ValueError(f"a batch of {len(keys)} does not divide the queue of {len(self.rows)} keys")
        start = int(self.place)
        self.rows[start : start + len(keys)] = keys
        self.place[0] = (start + len(keys)) % len(self.rows)


def queue_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the logits [q . k+, q . queue] / temperature with the first as target, a scalar.

    queries, keys (B, C) and queue (K, C) are unit rows; only the queries receive gradients.
    """
    count_similarities(queries, queue)
    positive = (queries * keys.detach()).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.detach().t()], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.int64, device=queries.device))


def joint_loss(
    point: tuple[Tensor, Tensor, Tensor], voxel: tuple[Tensor, Tensor, Tensor], temperature: float
) -> tuple[Tensor, list[Tensor]]:
    """Half the sum of four terms, and the terms: points with points, voxels with voxels, point queries with voxel keys, and voxel
    queries with point keys.

    Each format is a triple of unit rows: queries (B, C), keys (B, C), queue (K, C). Returns a scalar and four scalars.
    """
    (pq, pk, pqueue), (vq, vk, vqueue) = point, voxel
    pairs = ((pq, pk, pqueue), (vq, vk, vqueue), (pq, vk, vqueue), (vq, pk, pqueue))
    terms = [queue_loss(q, k, rows, temperature) for q, k, rows in pairs]
    return 0.5 * torch.stack(terms).sum(), terms


@torch.no_grad()
def follow(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """Move the key encoder's parameters towards the query encoder's by 1 - momentum. Buffers are not shared (spec D.1)."""
    for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)
