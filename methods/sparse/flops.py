"""Counts the work of sparse convolutions."""

from __future__ import annotations


class FlopCounter:
    """Multiply-adds times two of forward convolutions, counted from the pairs; training costs about three times it."""

    def __init__(self) -> None:
        self.total = 0


flops = FlopCounter()
