"""Multinomial logistic regression on the features of a frozen backbone: the classifier of a linear probe (spec 2.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain_bench.benchmarks.specs.probes import LinearProbe
from pretrain_bench.methods.training.optim import lbfgs

LEAST_DEVIATION = 1e-6
CONVERGED = 1e-3
"""A fit has converged if its gradient norm is at most this fraction of the initial one."""


class LinearHead(nn.Module):
    """Maps features (N, C) to logits (N, classes), after standardising them with the mean and deviation of the training rows."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.linear = nn.Linear(channels, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear((features - self.mean) / self.deviation)
        return logits


class Fit(NamedTuple):
    """A fitted head with its iterations, final loss, and gradient norm over weights and bias at the start and at the end."""

    head: LinearHead
    iterations: int
    loss: float
    first_gradient: float
    last_gradient: float

    @property
    def converged(self) -> bool:
        """Whether the gradient is small enough; if not, more iterations could change the result."""
        return self.last_gradient <= CONVERGED * self.first_gradient


def fit_logistic(
    features: Tensor, labels: Tensor, classes: int, probe: LinearProbe, alive: Callable[[], None] = lambda: None
) -> Fit:
    """Minimise mean cross-entropy + penalty * ||W||^2 by LBFGS from zero weights; the bias is not penalised.

    `features` (N, C) float32, `labels` (N,) int64 in 0..classes - 1, N > 0, on one device. `alive` is called at each
    evaluation of the loss. Deterministic: equal inputs give bit-identical results where `numerics` is equal.
    """
    head = LinearHead(features.shape[1], classes).to(features.device)
    head.mean.copy_(features.mean(0))
    head.deviation.copy_(features.std(0, correction=0).clamp_min(LEAST_DEVIATION))
    rows = (features - head.mean) / head.deviation
    linear = head.linear
    optimiser = lbfgs(linear.parameters(), probe.iterations)

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(linear(rows), labels) + probe.penalty * linear.weight.pow(2).sum()
        loss.backward()
        alive()
        return loss

    evaluate()
    first = _gradient_norm(linear)
    optimiser.step(evaluate)
    loss = float(evaluate().detach())
    iterations = int(next(iter(optimiser.state.values()))["n_iter"])
    return Fit(head.requires_grad_(False), iterations, loss, first, _gradient_norm(linear))


def _gradient_norm(module: nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm())
