"""The recipe that PointContrast and CSC share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Probability
from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay, SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame


class FramePairs(Recipe):
    """The recipe shared by PointContrast and CSC: two overlapping frames, rotated separately (spec B.1, B.2, C.1)."""

    steps: PositiveInt = 20_000
    pairs_per_step: PositiveInt = Field(8, description="J-13: the released code uses 32 on eight GPUs")
    min_overlap: Annotated[float, Field(ge=0.3, le=1)] = 0.3
    views: Literal["two_frames", "same_frame"] = Field(
        "two_frames",
        description="same_frame: two separately rotated copies of one frame (an ablation of the author's draft)",
    )
    voxel_metres: PositiveFloat = 0.025
    match_voxels: PositiveFloat = Field(1.5, description="largest distance between matching points, in voxels")
    positives: PositiveInt = Field(
        4096, description="maximum number of matches in the loss: per step, or for CSC per pair of frames"
    )
    max_voxels_per_frame: PositiveInt | None = Field(
        None, description="crop around a match, for small machines; none: whole frames"
    )
    output_channels: PositiveInt = 32
    bn_momentum: PositiveFloat = Field(0.05, description="as network.pretrain_bn_momentum, for these two methods (A.2)")
    temperature: PositiveFloat = 0.4
    jitter_std: Annotated[float, Field(ge=0)] = 0.01
    jitter_probability: Probability = 0.95
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1, momentum=0.8, dampening=0.0)
    decay: ExponentialDecay = ExponentialDecay(after_first=True)

    @property
    def samples_per_step(self) -> int:
        """Pairs of frames in one step."""
        return self.pairs_per_step

    def work_per_step(self) -> Work:
        """Both frames of each pair pass through the network."""
        return Work(voxels=2 * self.pairs_per_step * voxels_of_frame(self.voxel_metres, self.max_voxels_per_frame))
