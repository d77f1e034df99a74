"""Group-sequential bounds: the table against its distribution, and the error rate of Welch's test with them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.reports.analysis.sequential import RULES, Rule, critical_values, levels, looks_for


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("looks", [1, 2, 3, 5])
def test_the_bounds_spend_five_per_cent(rule: Rule, looks: int) -> None:
    """The probability that a normal process stays within all bounds, from scipy's multivariate normal distribution."""
    bounds = np.array(critical_values(rule, looks))
    k = np.arange(1, looks + 1)
    covariance = np.sqrt(np.minimum.outer(k, k) / np.maximum.outer(k, k))
    normal = stats.multivariate_normal(np.zeros(looks), covariance, seed=np.random.default_rng(0))
    inside = normal.cdf(bounds, lower_limit=-bounds)
    assert 1 - inside == pytest.approx(0.05, abs=5e-4)


def test_rules_differ_in_when_they_are_strict() -> None:
    pocock, fleming = levels("pocock", 3), levels("obrien-fleming", 3)
    assert len(set(pocock)) == 1 and pocock[0] == pytest.approx(0.0221, abs=1e-4)
    assert fleming[0] < 0.001 and fleming[0] < fleming[1] < fleming[2] and fleming[2] == pytest.approx(0.045, abs=1e-3)


def test_looks_are_evenly_spaced_or_refused() -> None:
    assert looks_for(4) == 2 and looks_for(10) == 5
    for seeds in (1, 2, 3, 5):
        with pytest.raises(WrongUse, match=f"the suite has {seeds}, expected a multiple of 2 from 4 on"):
            looks_for(seeds)
    with pytest.raises(WrongUse, match="11 looks"):
        levels("pocock", 11)
    with pytest.raises(WrongUse, match="expected one of pocock, obrien-fleming"):
        levels("haybittle", 2)  # type: ignore[arg-type]
