"""The training length of a stage: steps if the budget counts them, else as many as its FLOPs or GPU seconds allow."""

from __future__ import annotations

from typing import NamedTuple

from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.harness.contract.events import Ledger
from pretrain_bench.harness.contract.stage import Limits

COUNTED_IN_TRAINING = (Currency.flops, Currency.gpu_seconds)
"""Currencies whose use is known only after each step; the others translate to a number of steps in advance."""
AS_LONG_AS_IT_LASTS = 10**12
UNITS = {
    Currency.optimizer_steps: "steps",
    Currency.samples_seen: "samples",
    Currency.flops: "FLOPs",
    Currency.gpu_seconds: "GPU seconds",
}


class RunLength(NamedTuple):
    """The training length of a stage. `steps` is its maximum, `scheduled` the length of its learning-rate schedule."""

    steps: int
    scheduled: int
    limits: Limits

    @property
    def expected_steps(self) -> int:
        """The number of steps to display before the first step; exact if the budget counts steps or samples."""
        return min(self.steps, self.scheduled)

    def is_over(self, step: int, ledger: Ledger) -> bool:
        """Whether a stage ends after `step` steps: it has taken all of them, or used its whole amount."""
        return step >= self.steps or (
            self.is_counted and amount_used(ledger, self.limits.currency) >= self.limits.amount
        )

    def share(self, step: int, ledger: Ledger) -> float:
        """The finished share of the run, from 0 to 1."""
        by_steps = step / self.steps if self.steps else 1.0
        if not self.is_counted or not self.limits.amount:
            return by_steps
        return min(1.0, max(by_steps, amount_used(ledger, self.limits.currency) / self.limits.amount))

    def place(self, step: int, ledger: Ledger) -> int:
        """The position of the next step on the schedule, from 0: the step itself, unless the amount is measured during
        training. The schedule then follows the finished share of the run."""
        if not self.is_counted or self.limits.schedule_horizon == "recipe":
            return step
        return int(self.share(step, ledger) * self.scheduled)

    @property
    def is_counted(self) -> bool:
        """Whether the amount is measured during training, so that the number of steps is unknown in advance."""
        return self.limits.currency in COUNTED_IN_TRAINING


def run_length(limits: Limits, recipe_steps: int, samples_per_step: int) -> RunLength:
    """The training length of a stage whose recipe asks for `recipe_steps` steps.

    `exactly` trains for the amount regardless of the recipe; `at_most` takes the recipe's steps, or fewer if the amount runs out.
    """
    exactly = limits.uniformity == "exactly"
    if limits.currency in COUNTED_IN_TRAINING:
        return RunLength(AS_LONG_AS_IT_LASTS if exactly else recipe_steps, recipe_steps, limits)
    per_step = samples_per_step if limits.currency == Currency.samples_seen else 1
    allowed = int(limits.amount // per_step)
    steps = allowed if exactly else min(recipe_steps, allowed)
    return RunLength(steps, steps if limits.schedule_horizon == "budget" else recipe_steps, limits)


def amount_used(ledger: Ledger, currency: Currency) -> float:
    """The amount of a currency that a stage reports to have used."""
    return float(ledger.samples if currency == Currency.samples_seen else getattr(ledger, currency.value))


def budget_problem(limits: Limits, ledger: Ledger, may_use_less: bool) -> str | None:
    """Check the amount that a stage reports to have used; None if it is acceptable.

    Steps and samples never exceed the amount. FLOPs and GPU seconds may, by the step that reached it: two steps of mean size are
    tolerated, and 5% of GPU seconds for the last checkpoint. With `exactly`, the rest must be too small for another step,
    unless the stage `may_use_less`: it trains nothing, or a time limit ended it.
    """
    used, unit = amount_used(ledger, limits.currency), UNITS[limits.currency]
    a_step = used / max(1, ledger.optimizer_steps)
    tolerated = 2 * a_step if limits.currency in COUNTED_IN_TRAINING else 0.0
    if limits.currency == Currency.gpu_seconds:
        tolerated += 0.05 * limits.amount
    if used > limits.amount + tolerated:
        return f"{_written(used)} {unit}, budget {limits.budget!r} allows {_written(limits.amount)}"
    left = limits.amount - used
    enough = left > 0 if limits.currency in COUNTED_IN_TRAINING else left >= max(1.0, a_step)
    if limits.uniformity == "exactly" and enough and not may_use_less:
        return f"{_written(used)} {unit}, budget {limits.budget!r} asks for exactly {_written(limits.amount)}"
    return None


def _written(amount: float) -> str:
    return f"{amount:.4g}" if amount >= 1e12 else f"{amount:,.10g}"
