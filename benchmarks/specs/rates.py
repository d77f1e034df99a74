"""Rates of machines: what a plan multiplies work with where nothing of its kind ran before."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from pretrain_bench.benchmarks.specs.base import Name, Spec


class Rates(Spec):
    """How fast one kind of machine trains; the time of a step is the sum of its parts."""

    name: Name
    title: str
    device: Literal["cpu", "cuda"]
    basis: Literal["measured", "derived"] = Field(
        description="measured: with this project's own stages; derived: from data sheets"
    )
    source: str = Field(description="where the rates come from")
    flops_a_second: PositiveFloat = Field(
        description="of the sparse 3D network, forward and backward; of one CPU core or one GPU"
    )
    seconds_a_voxel: Annotated[float, Field(ge=0)] = Field(
        0.0, description="loading, augmentation and calls, which do not depend on the width of the network"
    )
    seconds_a_pixel: PositiveFloat = Field(description="of the 2D network")
    seconds_a_point: Annotated[float, Field(ge=0)] = Field(0.0, description="of networks on points")
    within: Annotated[float, Field(ge=1)] = Field(
        description="factor by which the true time may be shorter or longer than the estimate"
    )
    remark: str = Field("", description="what else decides whether a suite fits such a machine")
