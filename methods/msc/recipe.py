"""The recipe of Masked Scene Contrast (spec 1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.base import Probability, Range
from pretrain_bench.benchmarks.specs.optimisers import SgdSettings
from pretrain_bench.benchmarks.specs.recipes import Recipe, Work, voxels_of_frame, voxels_of_scene

Strength = Annotated[float, Field(ge=0)]


class MaskedSceneContrast(Recipe):
    """Masked Scene Contrast: contrast matching voxels of two differently masked views of a scan, and predict masked colours."""

    steps: PositiveInt = 20_000
    scans_per_step: PositiveInt = 8
    scans_per_pass: PositiveInt = Field(
        4, description="scans that share masks, negatives and batch norm; a step averages the gradients of its passes"
    )
    source: Literal["auto", "clouds", "frames"] = Field(
        "auto",
        description="J-33: clouds of whole scenes, or single frames; auto: clouds if any scene has one with colours",
    )
    voxel_metres: PositiveFloat = 0.02
    max_voxels_per_view: PositiveInt | None = Field(
        None,
        description="crop for small machines; both views come from one region of a scan, so that they still overlap",
    )
    least_voxels_per_view: PositiveInt = Field(
        1000, description="a scan with fewer is replaced, since few voxels would be left at the coarsest level"
    )
    scale: Range = (0.9, 1.1)
    rotation_degrees: tuple[float, float, float] = (180 / 64, 180 / 64, 180.0)
    flip_probability: Probability = Field(0.5, description="probability of mirroring x, and of mirroring y")
    jitter_voxels: Strength = Field(0.25, description="J-28: standard deviation of the noise on each coordinate")
    jitter_clip_voxels: Strength = 1.0
    colour_jitter: tuple[Strength, Strength, Strength, Strength] = Field(
        (0.4, 0.4, 0.2, 0.02), description="brightness, contrast, saturation, and hue in turns of the hue circle"
    )
    colour_jitter_probability: Probability = Field(0.8, description="probability of each of the four colour operations")
    colour_noise: Strength = Field(
        0.05, description="standard deviation of colour noise, as a share of the colour range"
    )
    colour_noise_probability: Probability = 0.95
    crop_share: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="share of a view's voxels that is kept")
    mask_cell_voxels: PositiveFloat = Field(5.0, description="J-28: edge of the cells that are masked as a whole")
    mask_rate: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.4, description="share of the cells of a pass that is masked in each view"
    )
    mix_probability: Probability = Field(
        0.8, description="probability that a pass overlays pairs of scans in its first view"
    )
    match_voxels: PositiveFloat = Field(1.5, description="J-28: matching voxels are closer than this, in voxels")
    match_neighbours: PositiveInt = Field(8, description="number of nearest voxels from which one match is drawn")
    pairs: PositiveInt = Field(8192, description="maximum number of pairs per pass")
    least_pairs: PositiveInt = Field(32, description="a scan with fewer matching pairs is replaced")
    temperature: PositiveFloat = 0.4
    contrast_weight: Strength = Field(1.0, description="J-30: effectively 0.125 in upstream's eight processes")
    colour_weight: Strength = 1.0
    colour_target_scale: PositiveFloat = Field(
        2.0, description="J-27: factor from input colours in -0.5..0.5 to targets, which are then in -1..1"
    )
    optimiser: SgdSettings = SgdSettings(learning_rate=0.1, momentum=0.8, dampening=0.0)
    nesterov: bool = True
    momentum_cycle: tuple[Probability, Probability] | None = Field(
        (0.85, 0.95), description="J-31: momentum at the peak rate, and at both ends; none: the optimiser's own"
    )
    warmup_steps: PositiveInt = Field(302, description="J-41: warm-up, at most 5 % of the run")
    clip_gradient_norm: PositiveFloat | None = Field(
        1.0, description="J-41: upstream does not clip, but then the colour head diverges in short runs"
    )

    @model_validator(mode="after")
    def _passes_fit(self) -> Self:
        if self.scans_per_step % self.scans_per_pass:
            raise ValueError(
                f"scans_per_step ({self.scans_per_step}) must be a multiple of scans_per_pass ({self.scans_per_pass})"
            )
        if self.mix_probability and self.scans_per_pass < 2:
            raise ValueError("scans_per_pass must be 2 or more, or mix_probability 0: a single scan cannot be mixed")
        if self.nesterov and (self.optimiser.dampening or not self.optimiser.momentum):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")
        return self

    @property
    def samples_per_step(self) -> int:
        """Scans of one step."""
        return self.scans_per_step

    def work_per_step(self) -> Work:
        """Both views of each scan pass through the network."""
        voxels_of = voxels_of_frame if self.source == "frames" else voxels_of_scene
        view = self.crop_share * voxels_of(self.voxel_metres, None)
        return Work(voxels=2 * self.scans_per_step * min(view, self.max_voxels_per_view or view))
