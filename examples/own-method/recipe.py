"""The recipe of the example: its fields, and how much work a step is. Imports no torch, because planning reads it too."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.optimisers import SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame


class ColourRecipe(Recipe):
    """Frames of one step, the size of their voxels, and the optimiser."""

    steps: PositiveInt = 20_000
    frames_per_step: PositiveInt = 8
    voxel_metres: PositiveFloat = 0.05
    max_voxels_per_frame: PositiveInt | None = None
    optimiser: SgdSettings = SgdSettings(learning_rate=0.05)

    @property
    def samples_per_step(self) -> int:
        """Frames of one step."""
        return self.frames_per_step

    def work_per_step(self) -> Work:
        """The voxels of each frame pass through the network."""
        return Work(voxels=self.frames_per_step * voxels_of_frame(self.voxel_metres, self.max_voxels_per_frame))
