"""Processing rates of machines, for estimates of work without earlier runs."""

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
    source: str = Field(description="source of the rates")
    flops_a_second: PositiveFloat = Field(
        description="FLOPs per second of the sparse 3D network, forward and backward, of one CPU core or GPU"
    )
    seconds_a_voxel: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="time per voxel of loading, augmentation and calls, which does not depend on the network's width",
    )
    seconds_a_pixel: PositiveFloat = Field(description="time per pixel of the 2D network")
    seconds_a_point: Annotated[float, Field(ge=0)] = Field(0.0, description="time per point of networks on points")
    within: Annotated[float, Field(ge=1)] = Field(
        description="factor by which the true time may be shorter or longer than the estimate"
    )
    remark: str = Field("", description="other limits of such a machine")
