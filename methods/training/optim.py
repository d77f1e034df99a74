"""Optimisers and learning-rate schedules, as closed formulas of the step (spec C.4, E.6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from pretrain_bench.benchmarks.specs.optimisers import AdamSettings, ExponentialDecay, SgdSettings
from pretrain_bench.harness.contract.stage import Limits

Schedule = Callable[[int], float]


def _undecorated(method: Any) -> Any:
    """A method of torch's optimizers without the decorator that imports torch's compiler at the first call. No stage compiles
    anything, and the import takes two processor seconds. A torch without the decorator is used as it is."""
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
    """Adam with its usual betas."""
    return _Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def schedule_steps(recipe_steps: int, steps: int, limits: Limits) -> int:
    """Over how many steps a schedule runs down: those that will run, or the recipe's."""
    return steps if limits.schedule_horizon == "budget" else recipe_steps


def milestones(base: float, factor: float, shares: Sequence[float], horizon: int) -> Schedule:
    """Rate at step t of `horizon`: base, times `factor` for each of `shares` of the run that is over (spec F.3)."""
    places = [math.ceil(share * horizon - 1e-9) for share in shares]
    return lambda t: base * factor ** sum(t >= place for place in places)


def exponential(base: float, decay: ExponentialDecay, recipe_steps: int, steps: int, limits: Limits) -> Schedule:
    """Rate at step t (before the update, from 0): base * factor ** floor(t' / every_steps).

    With `after_first` there is one factor more from the second step on.

    t' is t, or with the schedule stretched to the budget, t scaled so that the recipe's whole decay fits into `steps`.
    """
    stretch = recipe_steps / steps if limits.schedule_horizon == "budget" and steps else 1.0
    extra = int(decay.after_first)
    return lambda t: base * decay.factor ** (int(t * stretch / decay.every_steps) + (extra if t else 0))


def cosine(base: float, final: float, stairs: int, recipe_steps: int, steps: int, limits: Limits) -> Schedule:
    """Rate at step t: half a cosine from `base` to `final` in `stairs` equal stairs, one for each epoch (spec D.3), over the
    steps that will run, or the recipe's."""
    horizon = schedule_steps(recipe_steps, steps, limits)

    def rate(t: int) -> float:
        epoch = min(stairs, t * stairs // max(1, horizon))
        return final + (base - final) * (1 + math.cos(math.pi * epoch / stairs)) / 2

    return rate


def polynomial(base: float, power: float, recipe_steps: int, steps: int, limits: Limits) -> Schedule:
    """Rate at step t: base * (1 - t / (T + 1)) ** power; T is the steps that will run, or the recipe's."""
    horizon = schedule_steps(recipe_steps, steps, limits)
    return lambda t: base * max(0.0, 1.0 - t / (horizon + 1)) ** power
