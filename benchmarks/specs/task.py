"""Tasks: what is evaluated, on which dataset, by which metric."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pretrain_bench.benchmarks.specs.base import Name, Spec

HeadlineMetric = Literal["miou_voxel", "miou_point", "ap50", "map50"]
"""What a task is judged and its checkpoints are selected by."""

METRICS = {"semantic": ("miou_voxel", "miou_point"), "instance": ("ap50",), "detection": ("map50",)}
"""What each kind of task can be judged by."""


class Task(Spec):
    """What is fine-tuned and scored."""

    name: Name = Field(description="as commands and records name it")
    title: str = Field(description="as reports print it")
    kind: Literal["semantic", "instance", "detection"] = Field(
        description="what is predicted: a class for every voxel, instances, or boxes"
    )
    dataset: Name = Field(description="what is fine-tuned and tested on")
    headline_metric: HeadlineMetric = Field(description="what the task is judged by")
    recipe: Name | None = Field(None, description="the task whose recipe is used where a profile has none for this one")
    evaluation: str = Field(description="the protocol, in words: resolution, augmentation at test time, selection")

    @model_validator(mode="after")
    def _metric_fits(self) -> Self:
        if self.headline_metric not in METRICS[self.kind]:
            raise ValueError(f"headline_metric: a {self.kind} task is judged by {' or '.join(METRICS[self.kind])}")
        return self
