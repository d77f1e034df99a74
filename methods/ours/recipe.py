"""The recipes of the two stages of `ours` (spec E)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Probability, Range
from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay, SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame


class OursImages(Recipe):
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
    norm_over: Literal["both_views", "each_view"] = Field(
        "both_views", description="images over which batch norm averages: both views together, or each view separately"
    )
    negatives: Literal["within_pair", "batch"] = Field(
        "within_pair",
        description="J-3: other matched pixels in the second view of the same image, or of all images of the step",
    )
    reduction: Literal["mean", "sum"] = Field("mean", description="J-4: reduction over the pairs of a step")
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

    @property
    def samples_per_step(self) -> int:
        """Images of one step."""
        return self.images_per_step

    def work_per_step(self) -> Work:
        """Two views of each image pass through the 2D network."""
        return Work(pixels=2 * self.images_per_step * self.image_side**2)


class OursPoints(Recipe):
    """Stage 2 of `ours`: the 3D network learns to reproduce frozen pixel features (spec E.5)."""

    steps: PositiveInt = 20_000
    frames_per_step: PositiveInt = 8
    pairs_per_frame: PositiveInt = 2000
    voxel_metres: PositiveFloat = 0.05
    image_side: PositiveInt = Field(224, description="side of the centre crop, in pixels")
    resize_side: PositiveInt = Field(256, description="shorter side of the image before the crop, in pixels")
    max_voxels_per_frame: PositiveInt | None = Field(
        None, description="spatial crop for small machines; the papers use none"
    )
    temperature: PositiveFloat = 0.4
    head: Literal["final16", "final32_mlp"] = Field("final16", description="J-8")
    negatives: Literal["batch", "per_frame", "batch_points"] = Field(
        "batch",
        description="J-10: pixel features of the other pairs of the step, or of the same frame; or point features of the step",
    )
    frozen_norm: Literal["eval", "train"] = Field("eval", description="J-11: batch norm of the frozen 2D network")
    normalise: Literal["imagenet", "none"] = Field("imagenet", description="J-5")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="J-5")
    antialias: bool = Field(True, description="whether the image is resized with antialiasing")
    lookup: Literal["bilinear", "author_code"] = Field("bilinear", description="spec 0.2, item 4")
    scale: Range = (0.9, 1.1)
    rotation_degrees: tuple[float, float, float] = (180 / 32, 180 / 32, 180.0)
    contrast_probability: Probability = 0.2
    translation_ratio: PositiveFloat = 0.05
    jitter_std: PositiveFloat = 0.005
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1, weight_decay=0.004)
    decay: ExponentialDecay = ExponentialDecay()

    @property
    def samples_per_step(self) -> int:
        """Frames of one step."""
        return self.frames_per_step

    def work_per_step(self) -> Work:
        """The voxels of each frame pass through the 3D network; the cost of the frozen 2D network is small and left out."""
        return Work(voxels=self.frames_per_step * voxels_of_frame(self.voxel_metres, self.max_voxels_per_frame))
