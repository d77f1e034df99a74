"""Tasks: dataset, kind and metric of an evaluation."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from pretrain_bench.benchmarks.specs.base import Name, Spec

HeadlineMetric = Literal["miou_voxel", "miou_point", "ap50", "map50"]
"""The metric that ranks methods on a task and selects its checkpoints."""

METRICS = {"semantic": ("miou_voxel", "miou_point"), "instance": ("ap50",), "detection": ("map50",)}
"""The possible headline metrics of each kind of task, the default first."""
DEFAULT_RECIPES = {"semantic": "s3dis-sem", "instance": "s3dis-inst", "detection": "scannet-det"}
"""Default task whose recipe a user's own task uses, by kind."""


class Task(Spec):
    """A fine-tuning task and its evaluation."""

    name: Name = Field(description="name in commands and records")
    title: str = Field(description="name in tables and figures; defaults to the name")
    kind: Literal["semantic", "instance", "detection"] = Field(
        description="kind of prediction: a class for every voxel, instances, or boxes"
    )
    dataset: Name = Field(description="dataset of fine-tuning and test")
    headline_metric: HeadlineMetric = Field(
        description="metric that judges the task; defaults to the first of its kind"
    )
    recipe: Name | None = Field(
        None,
        description="the task whose recipe is used where a profile has none for this one; your own task defaults to s3dis-sem, "
        "s3dis-inst or scannet-det by its kind",
    )
    classes: tuple[str, ...] = Field(
        (),
        description="classes of the dataset to train and score (default: all); others count as unlabelled",
    )
    voxel_metres: PositiveFloat | None = Field(None, description="voxel size, instead of the recipe's")
    evaluation: str = Field(description="the protocol as text: resolution, test-time augmentation, selection")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Derive fields that a short file omits from its name and kind."""
        if not isinstance(data, dict) or not {"name", "kind"} <= data.keys():
            return data
        filled = {"title": data["name"], "evaluation": "not stated"} | data
        if data["kind"] in METRICS:
            filled = {"headline_metric": METRICS[data["kind"]][0]} | filled
        return filled

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if self.classes and self.kind == "detection":
            raise ValueError("classes: a detection task uses all box classes of its dataset; remove the field")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a class is listed twice")
        return self

    @model_validator(mode="after")
    def _metric_fits(self) -> Self:
        if self.headline_metric not in METRICS[self.kind]:
            raise ValueError(f"headline_metric: a {self.kind} task is judged by {' or '.join(METRICS[self.kind])}")
        return self
