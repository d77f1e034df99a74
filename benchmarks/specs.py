"""The words of the project as frozen pydantic models.

Units are part of field names (`wall_seconds`, `voxel_metres`). Unknown keys are errors. `J-n` in a description is an
item of the decision register of the methods specification: a question on which the sources differ or are silent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from benchmarks.errors import WrongUse


class Spec(BaseModel):
    """Base of every model here: immutable, strict about keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _upwards(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("expected two positive numbers, the lower bound first")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_upwards)]
"""Lower and upper bound of a uniform draw."""

# ------------------------------------------------------------------------------------------------------------ budget


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

    currency: Currency
    optimizer_steps: PositiveInt | None = None
    samples_seen: PositiveInt | None = None
    gpu_seconds: PositiveFloat | None = None
    flops: PositiveFloat | None = None

    wall_seconds: PositiveFloat | None = Field(None, description="per stage; then a soft signal")
    grace_seconds: PositiveFloat = Field(60.0, description="between the soft signal and the kill")
    cpus: PositiveInt | None = Field(None, description="threads of a stage")
    loader_workers: Annotated[int, Field(ge=0, le=64)] = Field(0, description="processes that prepare batches ahead")
    memory_mib: PositiveInt | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpu_memory_mib: PositiveInt | None = None
    disk_mib: PositiveInt | None = None

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

    name: Name
    version: PositiveInt
    description: str = ""
    default_profile: Name | None = Field(None, description="the profile used when a person names only this budget")
    schedule_horizon: Literal["budget", "recipe"] = Field(
        "budget",
        description="what the learning-rate schedule is stretched to: the steps that will run, or the recipe's",
    )
    pretrain: BudgetHalf
    finetune: BudgetHalf


# ----------------------------------------------------------------------------------------------------------- profile


class NetworkSettings(Spec):
    """Res16UNet34C (spec A); `width` scales every plane, for machines that cannot carry the full network."""

    width: PositiveFloat = 1.0
    input_channels: PositiveInt = 3
    first_kernel: Literal[3, 5] = 3
    pretrain_bn_momentum: PositiveFloat = Field(0.02, description="outside blocks; norms inside blocks keep 0.1 (A.2)")
    finetune_bn_momentum: PositiveFloat = 0.02


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


class OursImages(Spec):
    """Stage 1 of `ours`: pixel InfoNCE between two tracked augmentations of one image (spec E.3, E.4)."""

    steps: PositiveInt = 20_000
    images_per_step: PositiveInt = 64
    image_side: PositiveInt = 224
    pixels_per_pair: PositiveInt = 4092
    feature_channels: PositiveInt = 16
    temperature: PositiveFloat = 0.4
    encoder_depth: Literal[18, 34] = Field(34, description="J-1")
    decoder: Literal["author", "monodepth2"] = Field("author", description="J-2: bias and padding of the decoder")
    final_elu: bool = Field(True, description="J-2")
    negatives: Literal["within_pair", "batch"] = Field("within_pair", description="J-3")
    reduction: Literal["mean", "sum"] = Field("mean", description="J-4: over the pairs of a step")
    normalise: Literal["imagenet", "none"] = Field("imagenet", description="J-5")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="J-5")
    match_radius_pixels: PositiveFloat = 1.5
    match: Literal["nearest", "first"] = "nearest"
    crop_area: Range = (0.2, 1.0)
    crop_aspect: Range = (0.75, 4 / 3)
    flip_probability: Probability = 0.5
    jitter_probability: Probability = 0.8
    jitter: tuple[float, float, float, float] = Field(
        (0.4, 0.4, 0.4, 0.1), description="brightness, contrast, saturation, hue"
    )
    grey_probability: Probability = 0.2
    blur_probability: Probability = 0.5
    blur_sigma: Range = (0.1, 2.0)
    freeze_encoder_steps: Annotated[int, Field(ge=0)] = 50
    optimiser: SgdSettings = SgdSettings(learning_rate=0.01, weight_decay=0.004)
    decay: ExponentialDecay = ExponentialDecay()


class OursPoints(Spec):
    """Stage 2 of `ours`: frozen pixel features as targets for the 3D network (spec E.5)."""

    steps: PositiveInt = 20_000
    frames_per_step: PositiveInt = 8
    pairs_per_frame: PositiveInt = 2000
    voxel_metres: PositiveFloat = 0.05
    image_side: PositiveInt = Field(224, description="centre crop")
    resize_side: PositiveInt = Field(256, description="the shorter side, before the crop")
    max_voxels_per_frame: PositiveInt | None = Field(
        None, description="spatial crop for small machines; none in papers"
    )
    temperature: PositiveFloat = 0.4
    head: Literal["final16", "final32_mlp"] = Field("final16", description="J-8")
    negatives: Literal["batch", "per_frame"] = Field("batch", description="J-10")
    frozen_norm: Literal["eval", "train"] = Field("eval", description="J-11: batch norm of the frozen 2D network")
    normalise: Literal["imagenet", "none"] = Field("imagenet", description="J-5")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="J-5")
    lookup: Literal["bilinear", "author_code"] = Field("bilinear", description="spec 0.2, item 4")
    scale: Range = (0.9, 1.1)
    rotation_degrees: tuple[float, float, float] = (180 / 32, 180 / 32, 180.0)
    contrast_probability: Probability = 0.2
    translation_ratio: PositiveFloat = 0.05
    jitter_std: PositiveFloat = 0.005
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1, weight_decay=0.004)
    decay: ExponentialDecay = ExponentialDecay()


class FramePairs(Spec):
    """What PointContrast and CSC share: two frames that overlap, each turned on its own (spec B.1, B.2, C.1)."""

    steps: PositiveInt = 20_000
    pairs_per_step: PositiveInt = Field(8, description="J-13: official 32 over eight GPUs")
    min_overlap: Annotated[float, Field(ge=0.3, le=1)] = 0.3
    voxel_metres: PositiveFloat = 0.025
    match_voxels: PositiveFloat = Field(1.5, description="points match within so many voxels")
    positives: PositiveInt = Field(
        4096, description="matches that enter the loss: of a batch, or with CSC of each pair"
    )
    max_voxels_per_frame: PositiveInt | None = Field(None, description="crop around a match, for small machines")
    output_channels: PositiveInt = 32
    bn_momentum: PositiveFloat = Field(0.05, description="as network.pretrain_bn_momentum, for these two methods (A.2)")
    temperature: PositiveFloat = 0.4
    jitter_std: Annotated[float, Field(ge=0)] = 0.01
    jitter_probability: Probability = 0.95
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1, momentum=0.8, dampening=0.0)
    decay: ExponentialDecay = ExponentialDecay(after_first=True)


class PointContrast(FramePairs):
    """PointContrast: turned by any rotation, nothing but geometry as input (spec B)."""

    loss: Literal["info_nce", "hardest"] = Field("info_nce", description="J-13")
    hardest_positives_per_pair: PositiveInt = 1024
    hardest_candidates_per_pair: PositiveInt = 256
    decay: ExponentialDecay = ExponentialDecay(every_steps=250, after_first=True)


class SceneContexts(FramePairs):
    """Contrastive Scene Contexts: colour as input, turned mostly about z, negatives by where they lie (spec C.1)."""

    partition: Literal["fast4", "general8"] = Field("fast4", description="J-14")
    inner_voxels: PositiveFloat = 2.0
    outer_voxels: PositiveFloat = 20.0
    weight_inner: bool = False
    rotation_degrees: tuple[float, float, float] = (180 / 64, 180 / 64, 180.0)


class DepthContrast(Spec):
    """DepthContrast: momentum contrast of whole scans, as points and as voxels (spec D)."""

    epochs: PositiveInt = Field(40, description="the paper's; official 400. Also the stairs of the learning rate")
    steps: PositiveInt | None = Field(None, description="in place of so many epochs, for small machines")
    scans_per_step: PositiveInt = 32
    scans_per_pass: PositiveInt = Field(32, description="scans in one forward pass; a step adds up its passes")
    format: Literal["joint", "voxel"] = Field("joint", description="J-15: points and voxels, or voxels only")
    trunk: Literal["res16unet34c"] = Field(
        "res16unet34c", description="J-16: upstream Res16UNet34 would transfer its encoder only"
    )
    queue_keys: PositiveInt = Field(
        131072, description="J-15: or half of the frames (but a batch at least), whichever is less"
    )
    key_momentum: Probability = 0.999
    temperature: PositiveFloat = 0.1
    embedding_channels: PositiveInt = 128
    scan_points: PositiveInt = Field(50_000, description="drawn from a frame before it is augmented")
    points: PositiveInt = Field(20_000, description="of each augmented copy")
    sizes: tuple[PositiveInt, ...] = Field((5000, 10_000, 15_000, 20_000), min_length=1, description="resampled to one")
    crop_share: Range = (0.5, 1.0)
    crop_aspect: Probability = 0.75
    crop_least_points: PositiveInt = 10_000
    drop_share: Probability = 0.2
    scale: Range = (0.8, 1.2)
    voxel_metres: PositiveFloat = 0.05
    offset_voxels: Annotated[int, Field(ge=0)] = 99
    abstraction_points: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2048, 1024, 512, 256)
    abstraction_neighbours: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 32, 16, 16)
    optimiser: SgdSettings = Field(
        SgdSettings(learning_rate=0.12, dampening=0.0), description="J-15: 0.12 as released, or scaled, 0.00375"
    )
    final_learning_rate: PositiveFloat = 0.00012

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.scans_per_step % self.scans_per_pass:
            raise ValueError(
                f"scans_per_step ({self.scans_per_step}) must be a multiple of scans_per_pass ({self.scans_per_pass})"
            )
        counts = (self.points, *self.abstraction_points)
        if list(counts) != sorted(counts, reverse=True) or self.abstraction_points[-1] < 3:
            raise ValueError("points and abstraction_points must not grow from level to level, and stay at 3 or above")
        return self


class SemanticRecipe(Spec):
    """Fine-tuning for semantic segmentation (spec C.3 to C.5)."""

    steps: PositiveInt
    batch: PositiveInt = Field(48, description="effective batch, in scenes (J-17)")
    micro_batch: PositiveInt = Field(6, description="scenes in one forward pass (J-17)")
    voxel_metres: PositiveFloat
    validate_every: PositiveInt
    elastic: tuple[tuple[PositiveFloat, PositiveFloat], ...] = Field(
        (), description="elastic distortion: (granularity, magnitude) in metres, one after the other (ScanNet only)"
    )
    elastic_probability: Probability = Field(0.95, description="of all distortions together")
    clip_metres: PositiveFloat | None = Field(
        None, description="training window: keep points within this of its centre"
    )
    within_metres: PositiveFloat | None = Field(
        None,
        description="training: keep points whose |x| and |y| from the sensor are at most this (laser scans, spec F.5)",
    )
    max_voxels_per_scene: PositiveInt | None = Field(None, description="training crop for small machines")
    rotation_degrees: tuple[float, float, float] = (180 / 64, 180 / 64, 180.0)
    scale: Range = (0.9, 1.1)
    dropout_probability: Probability = 0.2
    dropout_share: Probability = 0.2
    flip_probability: Probability = 0.95
    contrast_probability: Probability = 0.2
    translation_ratio: Annotated[float, Field(ge=0)] = 0.10
    jitter_std: Annotated[float, Field(ge=0)] = 0.05
    offset_voxels: Annotated[int, Field(ge=0)] = 99
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1)
    poly_power: PositiveFloat = 0.9

    @model_validator(mode="after")
    def _accumulation_divides(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        return self


class PointGroupSettings(Spec):
    """What PointGroup adds to CSC's variant (spec F.1): clusters of the coordinates as they are too, and a network that scores
    clusters. Radius and least sizes are the recipe's, in voxels."""

    score_from: Share = Field(128 / 384, description="the score network learns from this share of the run on")
    target_low: Probability = Field(0.25, description="a cluster with at most this overlap should score 0")
    target_high: Probability = Field(0.75, description="one with at least this overlap 1; linear in between")
    grid_cells: PositiveInt = Field(14, description="of a cluster's longest side")
    cells_per_metre: PositiveFloat = Field(50.0, description="at most; nor is a cell finer than a voxel")
    channels: PositiveInt = 16
    most_clusters: PositiveInt = Field(
        200, description="in each scene of a training step; the largest, so that memory is bounded"
    )
    least_score: Probability = 0.09
    suppression_overlap: Probability = 0.3


class InstanceRecipe(SemanticRecipe):
    """Fine-tuning for instance segmentation as CSC does it: semantic logits, an offset to the centre of the instance, and
    clusters of the points so moved (spec F.1)."""

    kind: Literal["instance"]
    instance_classes: Literal["things", "all"] = Field("things", description="J-19: S3DIS, 10 or 13 classes")
    method: Literal["csc", "pointgroup"] = Field("csc", description="J-20")
    pointgroup: PointGroupSettings = PointGroupSettings()
    cluster_radius_voxels: PositiveFloat = 1.5
    component_least_voxels: PositiveInt = Field(50, description="a connected component with fewer is nothing")
    cluster_above_voxels: Annotated[int, Field(ge=0)] = Field(100, description="a cluster needs more than so many")
    least_voxels: PositiveInt = Field(10, description="smaller instances can neither be found nor missed (spec F.2)")

    def counted_classes(self, classes: Sequence[str], things: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the classes whose instances are told apart; `things` are those that have instances (J-19)."""
        return tuple(i for i, name in enumerate(classes) if self.instance_classes == "all" or name in things)


class AdamSettings(Spec):
    """Adam; the learning-rate schedule stands beside it."""

    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class DetectionRecipe(Spec):
    """Fine-tuning for object detection: VoteNet on the sparse backbone (spec F.3). Shares are of the run: epochs of 180."""

    kind: Literal["detection"]
    steps: PositiveInt
    batch: PositiveInt = 32
    micro_batch: PositiveInt = 8
    voxel_metres: PositiveFloat = 0.025
    validate_every: PositiveInt
    points: PositiveInt = Field(40_000, description="drawn from a scene, at most")
    colour_mean: tuple[float, float, float] = Field((109.8, 97.2, 83.8), description="of 0..255; taken off")
    colour_divisor: PositiveFloat = 256.0
    flip_x_probability: Probability = 0.5
    flip_y_probability: Probability = 0.5
    rotation_degrees: Annotated[float, Field(ge=0)] = Field(5.0, description="about z, at most")
    scale: Range = (1.0, 1.0)
    seeds: PositiveInt = 1024
    proposals: PositiveInt = 256
    vote_channels: PositiveInt = 256
    proposal_channels: PositiveInt = 128
    group_radius_metres: PositiveFloat = 0.3
    group_points: PositiveInt = 16
    padded_objects: Literal["ignored", "at_origin"] = Field(
        "ignored",
        description="at_origin: unused places for objects lie at the origin and attract proposals, as upstream",
    )
    sampling_skips_origin: bool = Field(False, description="furthest points: as upstream (spec 0.2, item 9)")
    optimiser: AdamSettings = AdamSettings()
    milestones: tuple[Share, ...] = Field((80 / 180, 120 / 180, 160 / 180), description="a tenth of the rate from here")
    milestone_factor: PositiveFloat = 0.1
    norm_momentum: Probability = Field(
        0.5, description="of every batch norm, halved at each share, at least norm_least"
    )
    norm_halved_every: Annotated[float, Field(gt=0)] = 80 / 180
    norm_least: PositiveFloat = 0.001

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        if self.proposals > self.seeds:
            raise ValueError(f"{self.proposals} proposals of {self.seeds} seeds; there cannot be more")
        return self


RECIPES: dict[str, type[Spec]] = {
    "semantic": SemanticRecipe,
    "instance": InstanceRecipe,
    "detection": DetectionRecipe,
}
"""Recipes of tasks by kind; one that does not say its kind is semantic."""


def recipe_kind(recipe: object) -> str:
    """The kind of a task's recipe, as a model or as plain data."""
    found = recipe.get("kind", "semantic") if isinstance(recipe, dict) else getattr(recipe, "kind", "semantic")
    return str(found)


TaskRecipe = Annotated[
    Annotated[SemanticRecipe, Tag("semantic")]
    | Annotated[InstanceRecipe, Tag("instance")]
    | Annotated[DetectionRecipe, Tag("detection")],
    Discriminator(recipe_kind),
]


class Profile(Spec):
    """One full answer to the decision register, plus the sizes that go with it."""

    name: Name
    version: PositiveInt
    description: str = ""
    frame_stride: PositiveInt = Field(50, description="J-12: every n-th frame of a recorded sequence")
    world: Name = Field("tiny", description="size of procedural datasets, where no data are given")
    pretrain_scenes: Literal["train", "all"] = Field("train", description="J-25")
    left_out_scenes: dict[Name, tuple[str, ...]] = Field(
        {},
        description="dataset to prefixes of scenes that are not used at all (J-22: SemanticKITTI without sequence 00)",
    )
    network: NetworkSettings = NetworkSettings()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of network passes, by autocast; losses and weights stay float32"
    )
    ours_images: OursImages = OursImages()
    ours_points: OursPoints = OursPoints()
    pointcontrast: PointContrast = PointContrast()
    csc: SceneContexts = SceneContexts()
    depthcontrast: DepthContrast = DepthContrast()
    tasks: dict[Name, TaskRecipe]


# ------------------------------------------------------------------------------------------- dataset, task and method


class Needs(Spec):
    """What a method needs of its pre-training dataset; refused by name, before anything starts, where it is missing."""

    images: bool = False
    poses: bool = False
    multiple_views: bool = False
    labels: bool = False
    frames: bool = Field(False, description="RGB-D frames")
    clouds: bool = Field(False, description="point clouds of whole scenes")
    data: bool = Field(True, description="false for a method that reads no data at all")


class Dataset(Spec):
    """One dataset: its layout on disk, what it provides, its classes, and where it comes from."""

    name: Name
    title: str
    layout: Literal["s3dis", "rgbd-folder", "scannet", "semantickitti", "sunrgbd"]
    synthetic: bool = False
    stand_in: Name | None = Field(None, description="the procedural dataset used when no data is configured")
    provides: tuple[Literal["frames", "images", "poses", "multiple_views", "clouds", "labels", "boxes"], ...]
    classes: tuple[str, ...] = Field((), description="training classes, in the order of their ids")
    raw_classes: tuple[str, ...] = Field(
        (), description="file-name classes that the reader knows; the rest is an error"
    )
    class_ids: tuple[NonNegativeInt, ...] = Field(
        (), description="raw label id of each class, in the order of `classes`"
    )
    box_classes: tuple[str, ...] = Field((), description="classes of the detection boxes, where not `classes`")
    box_class_ids: tuple[NonNegativeInt, ...] = Field((), description="raw label id of each box class")
    stuff_classes: tuple[str, ...] = Field((), description="classes that are no instances (spec F.1)")
    box_mean_sizes_metres: tuple[tuple[PositiveFloat, PositiveFloat, PositiveFloat], ...] = Field(
        (), description="mean full size of each box class, that detectors start from (spec F.3)"
    )
    heading_bins: PositiveInt = Field(1, description="of detection boxes; 1 where they are axis-aligned")
    learning_map: dict[NonNegativeInt, NonNegativeInt] = Field(
        {}, description="raw label id to learning id; 0 is ignored and 1 is the first class"
    )
    train_scene_prefixes: tuple[str, ...] = Field(
        (), description="if given, no other scene trains (some have no labels)"
    )
    test_scene_prefixes: tuple[str, ...] = Field((), description="scenes that are only ever tested on")
    test_scenes_file: str | None = Field(
        None, description="official test list in benchmarks/splits, in place of prefixes"
    )
    train_scenes_file: str | None = Field(None, description="official training list in benchmarks/splits (J-25)")
    split_file: str | None = Field(None, description="the versioned split of all its scenes, in benchmarks/splits")
    ratio_order: Literal["hashed", "regular"] = Field(
        "hashed", description="how a label ratio picks scenes: at random, or at a regular stride (scans of a drive)"
    )
    frame_stride: PositiveInt | None = Field(
        None, description="overrides the profile's where frames are chosen already"
    )
    source: str
    licence: str
    worlds: dict[Name, dict[str, int]] = Field({}, description="for procedural datasets: seed and counts of each size")
    world: dict[str, int] | None = Field(None, description="the one of `worlds` that is meant; set by `sized`")

    def sized(self, world: str) -> Dataset:
        """A procedural dataset at one of its sizes; any other dataset as it is. Raises WrongUse for a size it does not have."""
        if not self.worlds:
            return self
        if world not in self.worlds:
            raise WrongUse(f"dataset {self.name!r} has no size {world!r}; it has {', '.join(self.worlds)}")
        return self.model_copy(update={"world": self.worlds[world], "worlds": {}})

    @model_validator(mode="after")
    def _ids_fit(self) -> Dataset:
        if self.class_ids and len(self.class_ids) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes, but {len(self.class_ids)} class_ids")
        if len(self.box_class_ids) != len(self.box_classes):
            raise ValueError(f"{len(self.box_classes)} box_classes, but {len(self.box_class_ids)} box_class_ids")
        strange = set(self.stuff_classes) - set(self.classes)
        if strange:
            raise ValueError(f"stuff_classes names {sorted(strange)[0]!r}, which is no class")
        if self.box_mean_sizes_metres and len(self.box_mean_sizes_metres) != len(self.detected_classes):
            raise ValueError(
                f"{len(self.detected_classes)} classes of boxes, but {len(self.box_mean_sizes_metres)} box_mean_sizes_metres"
            )
        return self

    @property
    def detected_classes(self) -> tuple[str, ...]:
        """Classes of the detection boxes."""
        return self.box_classes or self.classes

    @property
    def thing_classes(self) -> tuple[str, ...]:
        """Classes whose instances are told apart."""
        return tuple(c for c in self.classes if c not in self.stuff_classes)


HeadlineMetric = Literal["miou_voxel", "miou_point", "ap50", "map50"]
"""What a task is judged and its checkpoints are selected by."""


class Task(Spec):
    """What is fine-tuned and scored."""

    name: Name
    title: str
    kind: Literal["semantic", "instance", "detection"]
    dataset: Name
    headline_metric: HeadlineMetric
    evaluation: str = Field(description="the protocol, in words: resolution, augmentation at test time, selection")


class MethodStage(Spec):
    """One pre-training stage; `share` is its part of the budget's pretrain half."""

    name: Name
    share: Share
    title: str
    recipe: str | None = Field(None, description="the profile section that it reads, or tasks.NAME")


class Method(Spec):
    """A way to produce backbone weights."""

    name: Name
    title: str
    group: Literal["baseline", "single-scan", "multi-scan"]
    needs: Needs = Needs()
    stages: tuple[MethodStage, ...] = Field(min_length=1)
    image: str | None = Field(None, description="of a user's own method: the container image that runs its stages")
    settings: dict[str, bool | int | float | str] = Field({}, description="handed to the stages as they are")
    code_sha256: str | None = Field(None, description="filled in when a user's own method is loaded; never written")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = sum(s.share for s in self.stages)
        if self.needs.data and abs(total - 1.0) > 1e-9:
            raise ValueError(f"the shares of the stages must add up to 1, they add up to {total:g}")
        return self


# ---------------------------------------------------------------------------------------------------- ratio and cell


class LabelRatio(Spec):
    """What labels may be used: a share of the training scenes in per cent, or so many points or boxes of every training scene
    (the limited-annotation mode, spec C.2)."""

    percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    points: PositiveInt | None = Field(None, description="labelled points of each training scene; None: all")
    boxes: PositiveInt | None = Field(None, description="labelled boxes of each training scene; None: all")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read '5%' or '5', '20points', '2boxes'. A bare fraction such as '0.05' is refused, because it is ambiguous.

        Raises WrongUse with what is allowed.
        """
        limited = re.fullmatch(r"\s*([1-9]\d{0,5})\s*(point|box)(?:s|es)?\s*", text)
        if limited:
            return cls(**{"points" if limited.group(2) == "point" else "boxes": int(limited.group(1))})
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
        percent = float(match.group(1)) if match else -1.0
        if not match or not 1.0 <= percent <= 100.0:
            raise WrongUse(
                f"label ratio {text!r}: expected per cent of the training scenes from 1% to 100%, such as 5%, or labels of "
                "each scene, such as 20points or 2boxes"
            )
        return cls(percent=percent)

    def __str__(self) -> str:
        if self.points is not None:
            return f"{self.points}points"
        return f"{self.percent:g}%" if self.boxes is None else f"{self.boxes}boxes"


class Cell(Spec):
    """One point of the matrix, under one budget and profile."""

    method: Name
    pretrain_dataset: Name
    task: Name
    label_ratio: LabelRatio = LabelRatio()
    pretrain_seed: Annotated[int, Field(ge=0)] = 0
    finetune_seed: Annotated[int, Field(ge=0)] = 0
    budget: Name
    profile: Name
