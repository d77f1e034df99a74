"""Budgets: named, versioned limits, the same for every method."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.base import Name, Spec

Uniformity = Literal["exactly", "at_most"]
UNIFORMITY_MEANS = "exactly: every method uses the amount; at_most: each follows its own recipe, cut at the amount"


class Currency(StrEnum):
    """What is equal for every method under one budget."""

    optimizer_steps = "optimizer_steps"
    samples_seen = "samples_seen"
    gpu_seconds = "gpu_seconds"
    flops = "flops"


class BudgetHalf(Spec):
    """Limits of pre-training (the total over a method's stages) or of fine-tuning.

    Exactly one currency is set, by name and by value; everything else is a cap and may be left out.
    """

    currency: Currency = Field(description="what is limited")
    optimizer_steps: PositiveInt | None = Field(None, description="the amount, where that is the currency")
    samples_seen: PositiveInt | None = Field(None, description="the amount, where that is the currency")
    gpu_seconds: PositiveFloat | None = Field(None, description="the amount, where that is the currency")
    flops: PositiveFloat | None = Field(None, description="the amount, where that is the currency")
    uniformity: Uniformity = Field("at_most", description=UNIFORMITY_MEANS)

    wall_seconds: PositiveFloat | None = Field(
        None, description="wall time of a stage, after which it gets a soft signal"
    )
    grace_seconds: PositiveFloat = Field(60.0, description="time between the soft signal and the kill")
    stall_seconds: PositiveFloat | None = Field(
        3600.0,
        description="time without an event (at least 20 usual steps) after which a stage is killed; null: never",
    )
    cpus: PositiveInt | None = Field(None, description="threads of a stage")
    loader_workers: Annotated[int, Field(ge=0, le=64)] = Field(0, description="processes that prepare batches ahead")
    memory_mib: PositiveInt | None = Field(None, description="maximum memory of a stage")
    gpus: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="GPUs of a stage, or the share of one, as 0.25; a budget that names any is sized for real data",
    )
    gpu_memory_mib: PositiveInt | None = Field(None, description="maximum memory of a GPU")
    disk_mib: PositiveInt | None = Field(None, description="maximum size of a stage's output")

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        given = [c.value for c in Currency if getattr(self, c.value) is not None]
        if given != [self.currency.value]:
            raise ValueError(
                f"currency is {self.currency.value!r}, so exactly the field {self.currency.value!r} must be set; "
                f"set now: {', '.join(given) or 'none of them'}"
            )
        return self

    @property
    def amount(self) -> float:
        """The value of the currency."""
        return float(getattr(self, self.currency.value))


class Budget(Spec):
    """Named, versioned limits, the same for every method."""

    name: Name = Field(description="name in commands and records")
    version: PositiveInt = Field(description="version, increased with every change")
    description: str = Field("", description="in a sentence or two")
    default_profile: Name | None = Field(None, description="the profile used if only this budget is named")
    schedule_horizon: Literal["budget", "recipe"] = Field(
        "budget",
        description="length of the learning-rate schedule: the steps that will run, or the recipe's",
    )
    pretrain: BudgetHalf
    finetune: BudgetHalf

    @model_validator(mode="after")
    def _exact_amounts_stretch_schedules(self) -> Self:
        for name in ("pretrain", "finetune"):
            if getattr(self, name).uniformity == "exactly" and self.schedule_horizon == "recipe":
                raise ValueError(
                    f"schedule_horizon: 'recipe' does not go with {name}.uniformity 'exactly', under which a stage may outlast "
                    "the schedule of its recipe; write schedule_horizon: budget"
                )
        return self
