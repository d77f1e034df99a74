"""The one-cycle schedule of Masked Scene Contrast: learning rate and momentum (spec 1.8)."""

from __future__ import annotations

import math
from collections.abc import Callable

START_DIVISOR, END_DIVISOR = 10.0, 1e4
"""First rate = peak / START_DIVISOR; last rate = first rate / END_DIVISOR."""
LONGEST_WARMUP_SHARE = 0.05
LEAST_WARMUP = 2


def warmup_of(places: int, warmup_steps: int) -> int:
    """Length of the warm-up in places: `warmup_steps`, at most 5 % of the run, at least 2 (the cycle divides by length - 1)."""
    return max(LEAST_WARMUP, min(warmup_steps, math.ceil(LONGEST_WARMUP_SHARE * places)))


def one_cycle_rate(peak: float, warmup: int, places: int) -> Callable[[int], float]:
    """Rate at place t of `places`: a half cosine from peak / 10 to `peak` at place `warmup` - 1, then one to peak / 100,000."""
    start = peak / START_DIVISOR
    return _cycle((start, peak, start / END_DIVISOR), warmup, places)


def one_cycle_momentum(least: float, most: float, warmup: int, places: int) -> Callable[[int], float]:
    """Momentum at place t of `places`: `most` at both ends, `least` where the rate is at its peak."""
    return _cycle((most, least, most), warmup, places)


def _cycle(values: tuple[float, float, float], warmup: int, places: int) -> Callable[[int], float]:
    """Half cosines from the value at the first place to that at place `warmup` - 1, and on to that at the last place."""
    first, turn, last = values
    top = warmup - 1
    down = max(1, places - 1 - top)

    def value(t: int) -> float:
        begin, end, share = (first, turn, t / top) if t <= top else (turn, last, min(1.0, (t - top) / down))
        return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2

    return value
