"""Triton kernels of the masked implicit GEMM. It needs Triton, so only `implicit_gemm.py` imports it, after a check.

Rows are processed in the order of their masks, so that the rows of a tile have partners at nearly the same offsets, and a tile
skips offsets that do not occur in it. Each result is stored once, without atomics: the arguments fix the order of sums.
"""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def product(
    source,
    weight,
    table,
    order,
    masks,
    out,
    rows,
    table_stride,
    weight_in,
    weight_out,
    OFFSETS: tl.constexpr,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    FLIP: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDE: tl.constexpr,
    NARROW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out[o] = sum over k of source[table[k, o]] @ weight[k]; with FLIP weight[OFFSETS - 1 - k].

    source (M, C_IN) and out (rows, C_OUT) are contiguous; weight (OFFSETS, C_IN, C_OUT) has the given last two strides and the
    first stride C_IN * C_OUT; table (OFFSETS, rows) int32 has the given first stride; order (rows,) int64; masks (rows,) int32. A
    program computes ROWS rows and WIDE + NARROW columns, DEPTH channels at a time, from one gather.
    """
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = places < rows
    row = tl.load(order + places, mask=inside, other=0)
    present = tl.reduce(tl.load(masks + row, mask=inside, other=0), 0, _either)
    first = tl.program_id(1) * (WIDE + NARROW)
    wide = first + tl.arange(0, WIDE)
    wide_sums = tl.zeros((ROWS, WIDE), dtype=tl.float32)
    if NARROW:
        narrow = first + WIDE + tl.arange(0, NARROW)
        narrow_sums = tl.zeros((ROWS, NARROW), dtype=tl.float32)
    for k in range(OFFSETS):
        if (present >> k) & 1:
            partner = tl.load(table + k * table_stride + row, mask=inside, other=-1).to(tl.int64)
            has_partner = partner >= 0
            matrix = (OFFSETS - 1 - k if FLIP else k) * C_IN * C_OUT
            for start in range(0, C_IN, DEPTH):
                channel = start + tl.arange(0, DEPTH)
                real = channel < C_IN
                gathered = tl.load(
                    source + partner[:, None] * C_IN + channel[None, :],
                    mask=has_partner[:, None] & real[None, :],
                    other=0.0,
                )
                corner = weight + matrix + channel[:, None] * weight_in
                part = tl.load(
                    corner + wide[None, :] * weight_out, mask=real[:, None] & (wide[None, :] < C_OUT), other=0.0
                )
                wide_sums = tl.dot(gathered, part, wide_sums, input_precision=PRECISION)
                if NARROW:
                    part = tl.load(
                        corner + narrow[None, :] * weight_out, mask=real[:, None] & (narrow[None, :] < C_OUT), other=0.0
                    )
                    narrow_sums = tl.dot(gathered, part, narrow_sums, input_precision=PRECISION)
    to = out + row[:, None] * C_OUT
    element = out.dtype.element_ty
    tl.store(to + wide[None, :], wide_sums.to(element), mask=inside[:, None] & (wide[None, :] < C_OUT))
    if NARROW:
        tl.store(to + narrow[None, :], narrow_sums.to(element), mask=inside[:, None] & (narrow[None, :] < C_OUT))


@triton.jit
def kernel_gradient(
    source,
    gradient,
    table,
    order,
    masks,
    partials,
    rows,
    share,
    table_stride,
    OFFSETS: tl.constexpr,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """partials[s, k] = sum over the rows of share s of outer(source[table[k, o]], gradient[o]), float32.

    source (M, C_IN), gradient (rows, C_OUT) and partials (shares, OFFSETS, C_IN, C_OUT) are contiguous. Share s consists of the
    `share` rows from position s * share in `order`; `share` is a multiple of ROWS. A program computes IN x OUT numbers of one
    offset and share.
    """
    k, tile, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tiles_out = tl.cdiv(C_OUT, OUT)
    c_in = tile // tiles_out * IN + tl.arange(0, IN)
    c_out = tile % tiles_out * OUT + tl.arange(0, OUT)
    sums = tl.zeros((IN, OUT), dtype=tl.float32)
    for start in range(part * share, tl.minimum(rows, (part + 1) * share), ROWS):
        places = start + tl.arange(0, ROWS)
        inside = places < rows
        row = tl.load(order + places, mask=inside, other=0)
        present = tl.reduce(tl.load(masks + row, mask=inside, other=0), 0, _either)
        if (present >> k) & 1:
            partner = tl.load(table + k * table_stride + row, mask=inside, other=-1).to(tl.int64)
            has_partner = partner >= 0
            left = tl.load(
                source + partner[None, :] * C_IN + c_in[:, None],
                mask=has_partner[None, :] & (c_in[:, None] < C_IN),
                other=0.0,
            )
            right = tl.load(
                gradient + row[:, None] * C_OUT + c_out[None, :],
                mask=inside[:, None] & (c_out[None, :] < C_OUT),
                other=0.0,
            )
            sums = tl.dot(left, right, sums, input_precision=PRECISION)
    to = partials + (part * OFFSETS + k).to(tl.int64) * C_IN * C_OUT
    real = (c_in[:, None] < C_IN) & (c_out[None, :] < C_OUT)
    tl.store(to + c_in[:, None] * C_OUT + c_out[None, :], sums, mask=real)
