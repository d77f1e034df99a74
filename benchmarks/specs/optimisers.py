"""Optimiser settings that recipes share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Probability, Spec


class SgdSettings(Spec):
    """Stochastic gradient descent; the learning-rate schedule is part of each recipe."""

    learning_rate: PositiveFloat = Field(description="learning rate at the first step")
    momentum: Probability = Field(0.9, description="momentum of the gradient")
    dampening: Probability = Field(0.1, description="dampening of the momentum")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="weight decay of every weight")


class ExponentialDecay(Spec):
    """Learning rate times `factor` after every `every_steps` optimiser steps (J-6)."""

    factor: PositiveFloat = Field(0.99, description="factor of the learning rate")
    every_steps: PositiveInt = Field(1000, description="steps between two multiplications")
    after_first: bool = Field(
        False, description="multiply once more after the first step, as PointContrast and CSC do (spec B.5)"
    )


class AdamSettings(Spec):
    """Adam; the learning-rate schedule is part of each recipe."""

    learning_rate: PositiveFloat = Field(1e-3, description="learning rate at the first step")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="weight decay of every weight")
