"""Counts the arithmetic of training: matrix products and convolutions, dense and sparse, forward and backward.

Counts come from shapes and kernel maps, so they are the same on every machine. A multiply-add counts as two operations.
Norms, activations, pooling, neighbour search and diagnostics are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook


class FlopCounter:
    """Operations so far: `training` of all products, forward and backward; `sparse_forward` of sparse convolutions, forward."""

    def __init__(self) -> None:
        self.training = 0
        self.sparse_forward = 0

    def add(self, multiply_adds: int, *operands: Tensor) -> None:
        """Count a product, and one more of its size (the backward pass) for each operand that needs a gradient."""
        learning = sum(operand.requires_grad for operand in operands) if torch.is_grad_enabled() else 0
        self.training += 2 * multiply_adds * (1 + learning)

    def add_sparse(self, multiply_adds: int, *operands: Tensor) -> None:
        """Count a sparse convolution in both totals."""
        self.sparse_forward += 2 * multiply_adds
        self.add(multiply_adds, *operands)


flops = FlopCounter()


def count_similarities(queries: Tensor, keys: Tensor) -> None:
    """Count the product of (N, C) queries and (M, C) keys to (N, M) similarities."""
    flops.add(len(queries) * len(keys) * queries.shape[1], queries, keys)


@contextmanager
def dense_layers_counted() -> Iterator[None]:
    """Count every linear layer and dense convolution that runs inside the `with` block, in any network of the process."""
    hook = register_module_forward_hook(_count_dense_layer)
    try:
        yield
    finally:
        hook.remove()


def _count_dense_layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if isinstance(module, nn.Linear):
        flops.add(output.numel() * module.in_features, inputs[0], module.weight)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        inner = module.in_channels // module.groups * math.prod(module.kernel_size)
        flops.add(output.numel() * inner, inputs[0], module.weight)
