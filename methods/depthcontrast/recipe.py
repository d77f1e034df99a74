"""The recipe of DepthContrast (spec D)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.backbone_shapes import TRANSFER_MEANS, Transfer
from pretrain_bench.benchmarks.specs.base import Probability, Range
from pretrain_bench.benchmarks.specs.optimisers import SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame


class DepthContrast(Recipe):
    """DepthContrast: momentum contrast between whole scans, as points and as voxels (spec D)."""

    epochs: PositiveInt = Field(
        40, description="epochs; the learning rate drops once per epoch. 40 in the paper, 400 in the released code"
    )
    steps: PositiveInt | None = Field(None, description="fixed number of steps instead of epochs, for small machines")
    scans_per_step: PositiveInt = 32
    scans_per_pass: PositiveInt = Field(
        32, description="scans in one forward pass; a step accumulates the gradients of its passes"
    )
    format: Literal["joint", "voxel"] = Field("joint", description="J-15: points and voxels, or voxels only")
    trunk: Literal["res16unet34c"] = Field(
        "res16unet34c",
        description="J-16: upstream uses Res16UNet34, whose wider decoder does not fit the network of the tasks",
    )
    transfer: Transfer = Field("encoder", description=TRANSFER_MEANS)
    queue_keys: PositiveInt = Field(
        131072, description="J-15: number of keys in a queue, limited to half of the frames (but at least one batch)"
    )
    key_momentum: Probability = 0.999
    temperature: PositiveFloat = 0.1
    embedding_channels: PositiveInt = 128
    scan_points: PositiveInt = Field(50_000, description="points drawn from a frame before augmentation")
    points: PositiveInt = Field(20_000, description="points of each augmented copy")
    sizes: tuple[PositiveInt, ...] = Field(
        (5000, 10_000, 15_000, 20_000), min_length=1, description="a copy is first resampled to one of these sizes"
    )
    crop_share: Range = (0.5, 1.0)
    crop_aspect: Probability = 0.75
    crop_least_points: PositiveInt = 10_000
    drop_share: Probability = 0.2
    scale: Range = (0.8, 1.2)
    voxel_metres: PositiveFloat = 0.05
    offset_voxels: Annotated[int, Field(ge=0)] = 99
    abstraction_points: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2048, 1024, 512, 256)
    abstraction_neighbours: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 32, 16, 16)
    laser_radius_factor: PositiveFloat = Field(
        4.0,
        description="factor on the radii of the point network, which are made for rooms, when it learns from laser scans",
    )
    optimiser: SgdSettings = Field(
        SgdSettings(learning_rate=0.12, dampening=0.0),
        description="J-15: learning rate 0.12 as released; scaled to the batch size it would be 0.00375",
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
            raise ValueError("points and abstraction_points must not grow from level to level, and must be 3 or more")
        return self

    @property
    def samples_per_step(self) -> int:
        """Scans of one step."""
        return self.scans_per_step

    @property
    def planned_steps(self) -> int | None:
        """The steps, or None if the recipe counts epochs; estimates then assume the budget's steps."""
        return self.steps

    def work_per_step(self) -> Work:
        """Two copies of each scan pass as voxels, and with `format: joint` also as points."""
        voxels = 2 * self.scans_per_step * voxels_of_frame(self.voxel_metres, self.points)
        return Work(voxels=voxels, points=2 * self.scans_per_step * self.points if self.format == "joint" else 0)
