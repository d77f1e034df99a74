"""Profiles: one full answer to the decision register each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from pretrain_bench.benchmarks.specs.base import Name, Spec
from pretrain_bench.benchmarks.specs.method_recipes import (
    DepthContrast,
    OursImages,
    OursPoints,
    PointContrast,
    SceneContexts,
)
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.recipes import TaskRecipe


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
