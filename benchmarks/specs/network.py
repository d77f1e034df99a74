"""Sizes of the backbone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Spec


class NetworkSettings(Spec):
    """Res16UNet34C (spec A); `width` scales every plane, for machines that cannot carry the full network."""

    width: PositiveFloat = 1.0
    input_channels: PositiveInt = 3
    first_kernel: Literal[3, 5] = 3
    pretrain_bn_momentum: PositiveFloat = Field(0.02, description="outside blocks; norms inside blocks keep 0.1 (A.2)")
    finetune_bn_momentum: PositiveFloat = 0.02
