"""Tasks: what is evaluated, on which dataset, by which metric."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pretrain_bench.benchmarks.specs.base import Name, Spec

HeadlineMetric = Literal["miou_voxel", "miou_point", "ap50", "map50"]
"""What a task is judged and its checkpoints are selected by."""


class Task(Spec):
    """What is fine-tuned and scored."""

    name: Name
    title: str
    kind: Literal["semantic", "instance", "detection"]
    dataset: Name
    headline_metric: HeadlineMetric
    recipe: Name | None = Field(None, description="the task whose recipe is used where a profile has none for this one")
    evaluation: str = Field(description="the protocol, in words: resolution, augmentation at test time, selection")
