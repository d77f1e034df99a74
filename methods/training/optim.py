"""Optimisers, and learning-rate schedules as closed formulas of a step's place on the schedule (spec C.4, E.6).

A schedule has `RunLength.scheduled` places. Where the budget counts steps, the place is the step number, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from pretrain_bench.benchmarks.specs.optimisers import AdamSettings, ExponentialDecay, SgdSettings

Schedule = Callable[[int], float]


def _undecorated(method: Any) -> Any:
    """An optimiser method without the decorator that imports torch's compiler on the first call, since no stage compiles and the
    import takes two CPU-seconds. Methods without the decorator are returned unchanged."""
    return getattr(method, "__wrapped__", method)


class _Uncompiled(torch.optim.Optimizer):
    add_param_group = _undecorated(torch.optim.Optimizer.add_param_group)
    zero_grad = _undecorated(torch.optim.Optimizer.zero_grad)
    state_dict = _undecorated(torch.optim.Optimizer.state_dict)
    load_state_dict = _undecorated(torch.optim.Optimizer.load_state_dict)


class _Sgd(_Uncompiled, torch.optim.SGD):
    step = torch.no_grad()(_undecorated(torch.optim.SGD.step))


class _Adam(_Uncompiled, torch.optim.Adam):
    step = torch.no_grad()(_undecorated(torch.optim.Adam.step))


class _Lbfgs(_Uncompiled, torch.optim.LBFGS):
    pass


LBFGS_HISTORY = 10


def lbfgs(parameters: Iterable[nn.Parameter], iterations: int) -> torch.optim.LBFGS:
    """LBFGS with strong Wolfe line search, for deterministic losses; one call of `step` takes at most `iterations` iterations."""
    return _Lbfgs(parameters, max_iter=iterations, history_size=LBFGS_HISTORY, line_search_fn="strong_wolfe")


def sgd(parameters: Iterable[nn.Parameter], settings: SgdSettings) -> torch.optim.SGD:
    """SGD with momentum, dampening and weight decay."""
    return _Sgd(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        dampening=settings.dampening,
        weight_decay=settings.weight_decay,
    )


def adam(parameters: Iterable[nn.Parameter], settings: AdamSettings) -> torch.optim.Adam:
    """Adam with torch's default betas."""
    return _Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def milestones(base: float, factor: float, shares: Sequence[float], places: int) -> Schedule:
    """Rate at place t of `places`: base * factor ** (number of `shares` of the run that are over) (spec F.3)."""
    turns = [math.ceil(share * places - 1e-9) for share in shares]
    return lambda t: base * factor ** sum(t >= turn for turn in turns)


def exponential(base: float, decay: ExponentialDecay, recipe_steps: int, places: int) -> Schedule:
    """Rate at place t, from 0, of `places`: base * factor ** floor(t' / every_steps), where t' = t * recipe_steps / places.

    With `after_first` there is one more factor from the second place on.
    """
    stretch = recipe_steps / places if places else 1.0
    extra = int(decay.after_first)
    return lambda t: base * decay.factor ** (int(t * stretch / decay.every_steps) + (extra if t else 0))


def cosine(base: float, final: float, stairs: int, places: int) -> Schedule:
    """Rate at place t of `places`: a half cosine from `base` to `final` in `stairs` equal steps, one per epoch (spec D.3)."""

    def rate(t: int) -> float:
        epoch = min(stairs, t * stairs // max(1, places))
        return final + (base - final) * (1 + math.cos(math.pi * epoch / stairs)) / 2

    return rate


def polynomial(base: float, power: float, places: int) -> Schedule:
    """Rate at place t of `places`: base * (1 - t / (places + 1)) ** power."""
    return lambda t: base * max(0.0, 1.0 - t / (places + 1)) ** power
