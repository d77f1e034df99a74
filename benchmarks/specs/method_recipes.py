"""Recipes of the pre-training methods."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.base import Probability, Range, Spec
from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay, SgdSettings


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
