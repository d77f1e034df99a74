"""The recipe of Contrastive Scene Contexts (spec C.1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from pretrain_bench.methods.training.frame_pairs_recipe import FramePairs


class SceneContexts(FramePairs):
    """Contrastive Scene Contexts: colour as input, rotation mostly about z, negatives by scene context (spec C.1)."""

    partition: Literal["fast4", "general8"] = Field("fast4", description="J-14")
    inner_voxels: PositiveFloat = 2.0
    outer_voxels: PositiveFloat = 20.0
    weight_inner: bool = False
    rotation_degrees: tuple[float, float, float] = (180 / 64, 180 / 64, 180.0)
