"""Power of the tests, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pretrain_bench.reports.analysis import power


def test_the_detectable_difference_is_detected_so_often() -> None:
    size = power.detectable_difference(2.0, 5)
    rng = np.random.default_rng(1)
    p = stats.ttest_ind(rng.normal(0, 2, (4000, 5)), rng.normal(size, 2, (4000, 5)), axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    n = power.seeds_needed(1.0, 1.0)
    assert n == 17, "the textbook's 17 for one standard deviation at 80 % power"
    assert power.detectable_difference(1.0, 17) <= 1 < power.detectable_difference(1.0, 16)
    assert (
        power.seeds_needed(10, 0.01) is None
        and power.detectable_difference(1, 1) == np.inf
        and power.detectable_difference(0, 3) == 0
    )
