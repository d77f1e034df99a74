"""Training recipes of stages: the base of all recipes, and those of the downstream tasks.

A pre-training method keeps its recipe in its own folder, `methods/<name>/recipe.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, TypeAdapter, model_validator

from pretrain_bench.benchmarks.specs.base import Probability, Range, Share, Spec
from pretrain_bench.benchmarks.specs.optimisers import AdamSettings, SgdSettings

FRAME_SQUARE_METRES, SCENE_SQUARE_METRES = 14.0, 75.0
"""Typical surface area of a frame and a scene, for estimates where a recipe does not limit voxels."""


class Work(NamedTuple):
    """Rough work of one optimiser step, for estimates: numbers of items that pass forward and backward through a network."""

    voxels: float = 0.0
    """Voxels through the sparse 3D network."""
    pixels: float = 0.0
    """Pixels through a 2D network."""
    points: float = 0.0
    """Points through point networks, whose speed is limited by memory and calls rather than arithmetic."""


class Recipe(Spec):
    """Base of every recipe; the harness reads only the length of a stage from it."""

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimiser step, which the currency `samples_seen` counts."""
        raise NotImplementedError

    @property
    def planned_steps(self) -> int | None:
        """Optimiser steps that the recipe asks for; None for as many as the budget allows."""
        steps: int | None = getattr(self, "steps", None)
        return steps

    def work_per_step(self) -> Work:
        """Rough work of one optimiser step."""
        raise NotImplementedError

    def for_scenes(self, scenes: int) -> Self:
        """The recipe with its steps computed for `scenes` training scenes; unchanged unless it counts epochs."""
        return self


def voxels_of_frame(voxel_metres: float, at_most: int | None) -> float:
    """Estimated voxels of one RGB-D frame."""
    return _voxels(FRAME_SQUARE_METRES, voxel_metres, at_most)


def voxels_of_scene(voxel_metres: float, at_most: int | None) -> float:
    """Estimated voxels of one whole scene."""
    return _voxels(SCENE_SQUARE_METRES, voxel_metres, at_most)


def _voxels(square_metres: float, voxel_metres: float, at_most: int | None) -> float:
    voxels = square_metres / voxel_metres**2
    return voxels if at_most is None else min(voxels, at_most)


class SemanticRecipe(Recipe):
    """Fine-tuning for semantic segmentation (spec C.3 to C.5)."""

    steps: PositiveInt = Field(description="optimiser steps")
    batch: PositiveInt = Field(48, description="effective batch, in scenes (J-17)")
    micro_batch: PositiveInt = Field(6, description="scenes in one forward pass (J-17)")
    voxel_metres: PositiveFloat = Field(description="side of a voxel")
    validate_every: PositiveInt = Field(description="steps between two validations on the held-out scenes")
    elastic: tuple[tuple[PositiveFloat, PositiveFloat], ...] = Field(
        (), description="elastic distortion: (granularity, magnitude) in metres, one after the other (ScanNet only)"
    )
    elastic_probability: Probability = Field(0.95, description="probability of applying the distortions")
    clip_metres: PositiveFloat | None = Field(
        None, description="training window: keep points within this of its centre"
    )
    within_metres: PositiveFloat | None = Field(
        None,
        description="training: keep points whose |x| and |y| from the sensor are at most this (laser scans, spec F.5)",
    )
    max_voxels_per_scene: PositiveInt | None = Field(None, description="training crop for small machines")
    rotation_degrees: tuple[float, float, float] = Field(
        (180 / 64, 180 / 64, 180.0), description="maximum rotation about x, y and z"
    )
    scale: Range = Field((0.9, 1.1), description="drawn between these")
    dropout_probability: Probability = Field(0.2, description="probability of dropping points of a scene")
    dropout_share: Probability = Field(0.2, description="share of its points that is dropped")
    flip_probability: Probability = Field(0.95, description="probability of flips along x and y")
    contrast_probability: Probability = Field(0.2, description="probability of stretching the contrast")
    translation_ratio: Annotated[float, Field(ge=0)] = Field(
        0.10, description="maximum colour shift, as a share of the colour range"
    )
    jitter_std: Annotated[float, Field(ge=0)] = Field(
        0.05, description="standard deviation of colour noise, as a share of the colour range"
    )
    offset_voxels: Annotated[int, Field(ge=0)] = Field(99, description="maximum shift of a scene")
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1)
    poly_power: PositiveFloat = Field(0.9, description="exponent of the polynomial learning-rate schedule")

    @property
    def samples_per_step(self) -> int:
        """Scenes of one step."""
        return self.batch

    def work_per_step(self) -> Work:
        """The voxels of each scene."""
        return Work(voxels=self.batch * voxels_of_scene(self.voxel_metres, self.max_voxels_per_scene))

    @model_validator(mode="after")
    def _accumulation_divides(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        return self


class PointGroupSettings(Spec):
    """PointGroup's additions to CSC's variant (spec F.1): clusters also of the original coordinates, and a network that scores
    clusters. Radius and least sizes come from the recipe, in voxels."""

    score_from: Share = Field(128 / 384, description="share of the run after which the score network starts to train")
    target_low: Probability = Field(0.25, description="a cluster with at most this overlap should score 0")
    target_high: Probability = Field(0.75, description="a cluster with at least this overlap should score 1")
    grid_cells: PositiveInt = Field(14, description="cells along a cluster's longest side")
    cells_per_metre: PositiveFloat = Field(
        50.0, description="maximum cells per metre; a cell is never finer than a voxel"
    )
    channels: PositiveInt = Field(16, description="channels of the score network")
    most_clusters: PositiveInt = Field(
        200, description="maximum number of clusters per scene in training; the largest are kept"
    )
    least_score: Probability = Field(0.09, description="minimum score of a cluster that is kept")
    suppression_overlap: Probability = Field(
        0.3, description="overlap above which the worse of two clusters is dropped"
    )


class InstanceRecipe(SemanticRecipe):
    """Fine-tuning for instance segmentation as CSC does it: semantic logits, an offset to the centre of the instance, and
    clusters of the points so moved (spec F.1)."""

    kind: Literal["instance"] = Field(description="kind of the task")
    instance_classes: Literal["things", "all"] = Field("things", description="J-19: S3DIS, 10 or 13 classes")
    instance_of_voxel: Literal["common", "first"] = Field(
        "common",
        description="label of a voxel in training: void if its points disagree, or that of its first point, as upstream",
    )
    method: Literal["csc", "pointgroup"] = Field("csc", description="J-20")
    pointgroup: PointGroupSettings = PointGroupSettings()
    cluster_radius_voxels: PositiveFloat = Field(
        1.5, description="distance within which shifted points belong to one cluster"
    )
    component_least_voxels: PositiveInt = Field(50, description="smaller connected components are discarded")
    cluster_above_voxels: Annotated[int, Field(ge=0)] = Field(100, description="a cluster needs more voxels than this")
    least_voxels: PositiveInt = Field(
        10, description="smaller instances do not count, whether detected or missed (spec F.2)"
    )

    def counted_classes(self, classes: Sequence[str], things: Sequence[str]) -> tuple[int, ...]:
        """Ids of the classes with instances; `things` excludes stuff classes (J-19)."""
        return tuple(i for i, name in enumerate(classes) if self.instance_classes == "all" or name in things)


class DetectionRecipe(Recipe):
    """Fine-tuning for object detection: VoteNet on the sparse backbone (spec F.3). Shares are fractions of the run, converted
    from milestones in 180 epochs."""

    kind: Literal["detection"] = Field(description="kind of the task")
    epochs: PositiveInt = Field(180, description="epochs over the training scenes")
    steps: PositiveInt | None = Field(
        None, description="fixed number of steps instead of epochs; otherwise the planner computes it"
    )
    batch: PositiveInt = Field(32, description="scenes of one step")
    micro_batch: PositiveInt = Field(
        32, description="scenes in one forward pass, over which batch norms and losses run"
    )
    voxel_metres: PositiveFloat = Field(0.025, description="side of a voxel")
    validate_epochs: PositiveInt = Field(5, description="epochs between two validations on the held-out scenes")
    validate_every: PositiveInt | None = Field(
        None, description="steps between validations, instead of validate_epochs; computed likewise"
    )
    points: PositiveInt = Field(40_000, description="maximum number of points drawn from a scene")
    colour_mean: tuple[float, float, float] = Field(
        (109.8, 97.2, 83.8), description="mean colour (0..255) that is subtracted"
    )
    colour_divisor: PositiveFloat = Field(256.0, description="divisor of colours, after subtracting the mean")
    flip_x_probability: Probability = Field(0.5, description="probability of a flip along x")
    flip_y_probability: Probability = Field(0.5, description="probability of a flip along y")
    rotation_degrees: Annotated[float, Field(ge=0)] = Field(5.0, description="maximum rotation about z")
    scale: Range = Field((1.0, 1.0), description="drawn between these")
    seeds: PositiveInt = Field(1024, description="points that vote")
    proposals: PositiveInt = Field(256, description="number of proposed boxes")
    vote_channels: PositiveInt = Field(256, description="channels of the vote network")
    proposal_channels: PositiveInt = Field(128, description="channels of the proposal network")
    group_radius_metres: PositiveFloat = Field(0.3, description="radius of a group of votes")
    group_points: PositiveInt = Field(16, description="points of a group")
    padded_objects: Literal["ignored", "at_origin"] = Field(
        "ignored",
        description="at_origin: unused places for objects lie at the origin and attract proposals, as upstream",
    )
    sampling_skips_origin: bool = Field(False, description="furthest points: as upstream (spec 0.2, item 9)")
    optimiser: AdamSettings = AdamSettings()
    milestones: tuple[Share, ...] = Field(
        (80 / 180, 120 / 180, 160 / 180), description="shares of the run at which the rate drops"
    )
    milestone_factor: PositiveFloat = Field(0.1, description="factor of the learning rate at each milestone")
    norm_momentum: Probability = Field(
        0.5, description="momentum of every batch norm, halved at each share, at least norm_least"
    )
    norm_halved_every: Annotated[float, Field(gt=0)] = Field(
        80 / 180, description="share of the run after which the momentum of batch norms is halved"
    )
    norm_least: PositiveFloat = Field(0.001, description="momentum of batch norms")

    @property
    def samples_per_step(self) -> int:
        """Scenes of one step."""
        return self.batch

    def for_scenes(self, scenes: int) -> Self:
        """The recipe with `steps`, if unset, computed from its epochs over `scenes` training scenes."""
        steps = self.steps or math.ceil(self.epochs * scenes / self.batch)
        every = self.validate_every or math.ceil(self.validate_epochs * scenes / self.batch)
        return self.model_copy(update={"steps": steps, "validate_every": every})

    def work_per_step(self) -> Work:
        """The voxels of each scene, and its points in the groups of the detector."""
        voxels = self.batch * voxels_of_scene(self.voxel_metres, self.points)
        return Work(voxels=voxels, points=self.batch * self.points)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        if self.proposals > self.seeds:
            raise ValueError(f"proposals ({self.proposals}) cannot exceed seeds ({self.seeds})")
        return self


RECIPES: dict[str, type[Recipe]] = {
    "semantic": SemanticRecipe,
    "instance": InstanceRecipe,
    "detection": DetectionRecipe,
}
"""Recipes of tasks by kind; a recipe without a kind is semantic."""


def recipe_kind(recipe: object) -> str:
    """The kind of a task's recipe, as a model or as plain data."""
    kind = recipe.get("kind", "semantic") if isinstance(recipe, dict) else getattr(recipe, "kind", "semantic")
    return str(kind)


TaskRecipe = Annotated[
    Annotated[SemanticRecipe, Tag("semantic")]
    | Annotated[InstanceRecipe, Tag("instance")]
    | Annotated[DetectionRecipe, Tag("detection")],
    Discriminator(recipe_kind),
]

_TASK_RECIPE: TypeAdapter[SemanticRecipe | InstanceRecipe | DetectionRecipe] = TypeAdapter(TaskRecipe)


def task_recipe(payload: Any) -> SemanticRecipe | InstanceRecipe | DetectionRecipe:
    """The recipe of a task from plain data, by its kind. Raises pydantic's ValidationError."""
    return _TASK_RECIPE.validate_python(payload)
