"""The recipe of PointContrast (spec B)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay
from pretrain_bench.methods.training.frame_pairs_recipe import FramePairs


class PointContrast(FramePairs):
    """PointContrast: turned by any rotation, nothing but geometry as input (spec B)."""

    loss: Literal["info_nce", "hardest"] = Field("info_nce", description="J-13")
    hardest_positives_per_pair: PositiveInt = 1024
    hardest_candidates_per_pair: PositiveInt = 256
    decay: ExponentialDecay = ExponentialDecay(every_steps=250, after_first=True)
