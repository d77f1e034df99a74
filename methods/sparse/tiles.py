"""Fixed tile sizes of the Triton kernels: tuning them at run time would change the order of sums, and so the bits of a result.

With them every kernel compiles for sm_80, sm_90 and sm_100 without register spills (tests/methods/triton_checks.py). Not yet
measured on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

VERSION = 1
"""Part of a run's `numerics`: increase it with any change below."""


class ProductTile(NamedTuple):
    """For layers with at most `columns` output channels: a program computes `rows` x (`wide` + `narrow`) numbers, `depth` input
    channels at a time. All but `columns` are powers of two; `narrow` may be 0."""

    columns: int
    rows: int
    depth: int
    wide: int
    narrow: int
    warps: int
    stages: int


class GradientTile(NamedTuple):
    """For layers with at most `columns` channels: a program computes `inputs` x `outputs` numbers of one offset, `rows` rows at a
    time. The rows are divided into up to `shares` parts, whose sums are then added in order."""

    columns: int
    rows: int
    inputs: int
    outputs: int
    shares: int
    warps: int
    stages: int


PRODUCT = (
    ProductTile(columns=32, rows=128, depth=32, wide=32, narrow=0, warps=4, stages=3),
    ProductTile(columns=64, rows=64, depth=32, wide=64, narrow=0, warps=4, stages=3),
    ProductTile(columns=96, rows=64, depth=32, wide=64, narrow=32, warps=4, stages=3),
    ProductTile(columns=128, rows=64, depth=32, wide=128, narrow=0, warps=8, stages=3),
    ProductTile(columns=192, rows=64, depth=32, wide=64, narrow=32, warps=4, stages=3),
    ProductTile(columns=4096, rows=64, depth=32, wide=128, narrow=0, warps=8, stages=3),
)
GRADIENT = (
    GradientTile(columns=32, rows=64, inputs=32, outputs=32, shares=32, warps=4, stages=2),
    GradientTile(columns=4096, rows=32, inputs=64, outputs=64, shares=16, warps=4, stages=2),
)
