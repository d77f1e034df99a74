"""Sizes of the backbone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pretrain_bench.benchmarks.specs.base import Spec


class NetworkSettings(Spec):
    """Res16UNet34C (spec A); `width` scales every plane, for machines that cannot carry the full network."""

    width: PositiveFloat = Field(1.0, description="factor of the channels of every layer; 1 is the full network")
    input_channels: PositiveInt = Field(3, description="channels of the input: colour")
    first_kernel: Literal[3, 5] = Field(3, description="side of the first kernel, in voxels")
    pretrain_bn_momentum: PositiveFloat = Field(
        0.02, description="momentum of norms outside blocks; those inside keep 0.1 (spec A.2)"
    )
    finetune_bn_momentum: PositiveFloat = Field(0.02, description="as pretrain_bn_momentum, in fine-tuning")
