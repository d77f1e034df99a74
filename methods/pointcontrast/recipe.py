"""The recipe of PointContrast (spec B)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.optimisers import ExponentialDecay, SgdSettings
from pretrain_bench.methods.training.frame_pairs_recipe import FramePairs

RATES = {"info_nce": 0.05, "hardest": 0.1}
"""Learning rate by loss, as in upstream's scripts (J-13)."""


class PointContrast(FramePairs):
    """PointContrast: arbitrary rotations, geometry as the only input (spec B)."""

    loss: Literal["info_nce", "hardest"] = Field("info_nce", description="J-13")
    hardest_positives_per_pair: PositiveInt = 1024
    hardest_candidates_per_pair: PositiveInt = 256
    optimiser: SgdSettings = SgdSettings(learning_rate=RATES["info_nce"], momentum=0.8, dampening=0.0)
    decay: ExponentialDecay = ExponentialDecay(every_steps=250, after_first=True)

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_loss(cls, values: Any) -> Any:
        """If no learning rate is given, use upstream's rate for the loss."""
        rate = RATES.get(values.get("loss", "info_nce")) if isinstance(values, dict) else None
        optimiser = values.get("optimiser", {"momentum": 0.8, "dampening": 0.0}) if rate is not None else None
        if not isinstance(optimiser, dict) or "learning_rate" in optimiser:
            return values
        return {**values, "optimiser": {**optimiser, "learning_rate": rate}}
