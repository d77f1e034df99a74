"""Optimiser settings that recipes share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Probability, Spec


class SgdSettings(Spec):
    """Stochastic gradient descent; each recipe has the learning-rate schedule beside it."""

    learning_rate: PositiveFloat = Field(description="at the first step")
    momentum: Probability = Field(0.9, description="of the gradient")
    dampening: Probability = Field(0.1, description="of the momentum")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="of every weight")


class ExponentialDecay(Spec):
    """Learning rate times `factor` after every `every_steps` optimiser steps (J-6)."""

    factor: PositiveFloat = Field(0.99, description="factor of the learning rate")
    every_steps: PositiveInt = Field(1000, description="steps between two multiplications")
    after_first: bool = Field(
        False, description="multiply once more after the first step, as PointContrast and CSC do (spec B.5)"
    )


class AdamSettings(Spec):
    """Adam; each recipe has the learning-rate schedule beside it."""

    learning_rate: PositiveFloat = Field(1e-3, description="at the first step")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="of every weight")
