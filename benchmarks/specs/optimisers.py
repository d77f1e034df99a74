"""Optimiser settings that recipes share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Probability, Spec


class SgdSettings(Spec):
    """Stochastic gradient descent; the learning-rate schedule stands beside it in each recipe."""

    learning_rate: PositiveFloat
    momentum: Probability = 0.9
    dampening: Probability = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class ExponentialDecay(Spec):
    """Learning rate times `factor` after every `every_steps` optimiser steps (J-6)."""

    factor: PositiveFloat = 0.99
    every_steps: PositiveInt = 1000
    after_first: bool = Field(False, description="once more after the first step, as PointContrast and CSC do (B.5)")


class AdamSettings(Spec):
    """Adam; the learning-rate schedule stands beside it."""

    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
