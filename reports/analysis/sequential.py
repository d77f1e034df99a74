"""Group-sequential tests: repeated looks at results while seeds arrive, with error rates that hold over all looks.

Testing at 5 % after every seed claims a false difference in up to one of seven studies. Pocock's rule tests every look at one
smaller level; that of O'Brien and Fleming is strict early and close to 5 % at the last look. Constants for equally spaced
looks, two-sided 5 %: Jennison and Turnbull, Group Sequential Methods (2000), tables 2.1 and 2.3. They are exact for
normal values; Welch's test at a few seeds is a little conservative (`make verify-statistics` simulates both).
"""

from __future__ import annotations

from typing import Literal, get_args

from pretrain_bench.benchmarks.support.errors import WrongUse

Rule = Literal["pocock", "obrien-fleming"]
RULES: tuple[Rule, ...] = get_args(Rule)
POCOCK = (1.960, 2.178, 2.289, 2.361, 2.413, 2.453, 2.485, 2.512, 2.535, 2.555)
OBRIEN_FLEMING = (1.960, 1.977, 2.004, 2.024, 2.040, 2.053, 2.063, 2.072, 2.080, 2.087)
"""For 1 to 10 looks."""
SEEDS_A_LOOK = 2
"""Pre-training seeds from one look to the next: even steps, as the constants require, and enough to test at the first."""


def critical_values(rule: Rule, looks: int) -> tuple[float, ...]:
    """The normal quantile that each of `looks` looks must exceed. Raises WrongUse for an unknown rule or too many looks."""
    if rule not in RULES:
        raise WrongUse(f"--stop-when-decided {rule!r}: expected one of {', '.join(RULES)}")
    if not 1 <= looks <= len(POCOCK):
        raise WrongUse(f"{looks} looks; --stop-when-decided knows bounds for 1 to {len(POCOCK)}")
    if rule == "pocock":
        return (POCOCK[looks - 1],) * looks
    return tuple(OBRIEN_FLEMING[looks - 1] * (looks / k) ** 0.5 for k in range(1, looks + 1))


def levels(rule: Rule, looks: int) -> tuple[float, ...]:
    """The two-sided level at which each look is tested, first look first. Raises as `critical_values`."""
    from scipy.stats import norm

    return tuple(float(2 * norm.sf(bound)) for bound in critical_values(rule, looks))


def looks_for(seeds: int) -> int:
    """The number of looks for `seeds` pre-training seeds. Raises WrongUse unless they are a multiple of SEEDS_A_LOOK with at
    least two looks; a single look needs no rule."""
    if seeds % SEEDS_A_LOOK or seeds < 2 * SEEDS_A_LOOK:
        raise WrongUse(
            f"--stop-when-decided looks after every {SEEDS_A_LOOK} pre-training seeds; the suite has {seeds}, expected a "
            f"multiple of {SEEDS_A_LOOK} from {2 * SEEDS_A_LOOK} on"
        )
    return seeds // SEEDS_A_LOOK
