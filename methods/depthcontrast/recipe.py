"""The recipe of DepthContrast (spec D)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.backbone_shapes import TRANSFER_MEANS, Transfer
from pretrain_bench.benchmarks.specs.base import Probability, Range
from pretrain_bench.benchmarks.specs.optimisers import SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame


class DepthContrast(Recipe):
    """DepthContrast: momentum contrast of whole scans, as points and as voxels (spec D)."""

    epochs: PositiveInt = Field(
        40, description="epochs, also the stairs of the learning rate; 40 in the paper, officially 400"
    )
    steps: PositiveInt | None = Field(None, description="fixed number of steps instead of epochs, for small machines")
    scans_per_step: PositiveInt = 32
    scans_per_pass: PositiveInt = Field(32, description="scans in one forward pass; a step adds up its passes")
    format: Literal["joint", "voxel"] = Field("joint", description="J-15: points and voxels, or voxels only")
    trunk: Literal["res16unet34c"] = Field(
        "res16unet34c", description="J-16: upstream Res16UNet34, whose wider decoder does not fit the tasks' network"
    )
    transfer: Transfer = Field("encoder", description=TRANSFER_MEANS)
    queue_keys: PositiveInt = Field(
        131072, description="J-15: or half of the frames (but a batch at least), whichever is less"
    )
    key_momentum: Probability = 0.999
    temperature: PositiveFloat = 0.1
    embedding_channels: PositiveInt = 128
    scan_points: PositiveInt = Field(50_000, description="points drawn from a frame before augmentation")
    points: PositiveInt = Field(20_000, description="points of each augmented copy")
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
    laser_radius_factor: PositiveFloat = Field(
        4.0,
        description="factor by which laser scans enlarge the radii of the point network, which are for rooms",
    )
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

    @property
    def samples_per_step(self) -> int:
        """Scans of one step."""
        return self.scans_per_step

    @property
    def planned_steps(self) -> int | None:
        """The steps, or None where the recipe counts epochs: then as many as the budget allows is a fair estimate."""
        return self.steps

    def work_per_step(self) -> Work:
        """Two copies of each scan, as voxels and with the format `joint` as points too."""
        voxels = 2 * self.scans_per_step * voxels_of_frame(self.voxel_metres, self.points)
        return Work(voxels=voxels, points=2 * self.scans_per_step * self.points if self.format == "joint" else 0)
