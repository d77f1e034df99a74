"""How long stages train under each currency, and when a budget counts as kept."""

from __future__ import annotations

import pytest

from pretrain_bench.harness.contract.events import Ledger
from pretrain_bench.harness.contract.run_length import AS_LONG_AS_IT_LASTS, budget_problem, run_length
from pretrain_bench.harness.contract.stage import Limits


def limits(currency: str, amount: float, uniformity: str = "at_most", horizon: str = "budget") -> Limits:
    return Limits(
        budget="b", budget_version=1, currency=currency, amount=amount, uniformity=uniformity, schedule_horizon=horizon
    )


@pytest.mark.parametrize(
    ("currency", "amount", "uniformity", "steps", "scheduled"),
    [
        ("optimizer_steps", 30, "at_most", 30, 30),
        ("optimizer_steps", 500, "at_most", 100, 100),
        ("optimizer_steps", 500, "exactly", 500, 500),
        ("samples_seen", 100, "at_most", 12, 12),
        ("samples_seen", 1000, "at_most", 100, 100),
        ("samples_seen", 1000, "exactly", 125, 125),
        ("flops", 1e12, "at_most", 100, 100),
        ("flops", 1e12, "exactly", AS_LONG_AS_IT_LASTS, 100),
        ("gpu_seconds", 60, "exactly", AS_LONG_AS_IT_LASTS, 100),
    ],
)
def test_steps_of_a_recipe_of_100_steps_of_8_samples(
    currency: str, amount: float, uniformity: str, steps: int, scheduled: int
) -> None:
    length = run_length(limits(currency, amount, uniformity), 100, 8)
    assert (length.steps, length.scheduled) == (steps, scheduled)


def test_the_recipes_schedule_is_cut_where_the_budget_says_so() -> None:
    length = run_length(limits("optimizer_steps", 30, horizon="recipe"), 100, 8)
    assert (length.steps, length.scheduled, length.expected_steps) == (30, 100, 30)
    by_flops = run_length(limits("flops", 1000, horizon="recipe"), 100, 8)
    assert by_flops.place(7, Ledger(flops=990)) == 7


def test_a_counted_amount_moves_the_place_on_the_schedule() -> None:
    exactly = run_length(limits("flops", 1000, "exactly"), 100, 8)
    assert [exactly.place(3, Ledger(flops=n)) for n in (0, 499, 500, 1000)] == [0, 49, 50, 100]
    assert not exactly.is_over(10**6, Ledger(flops=999)) and exactly.is_over(3, Ledger(flops=1000))
    capped = run_length(limits("flops", 1000), 100, 8)
    assert capped.place(60, Ledger(flops=200)) == 60, "the recipe's steps end it first"
    assert capped.place(60, Ledger(flops=900)) == 90, "the FLOPs end it first"
    assert capped.is_over(100, Ledger(flops=200))


@pytest.mark.parametrize(
    ("currency", "amount", "ledger", "problem"),
    [
        ("optimizer_steps", 10, {"optimizer_steps": 10}, None),
        ("optimizer_steps", 10.5, {"optimizer_steps": 10}, None),
        ("optimizer_steps", 10, {"optimizer_steps": 11}, "11 steps, budget 'b' allows 10"),
        ("optimizer_steps", 10, {"optimizer_steps": 9}, "9 steps, budget 'b' asks for exactly 10"),
        ("samples_seen", 100, {"optimizer_steps": 12, "samples": 96}, None),
        ("samples_seen", 100, {"optimizer_steps": 11, "samples": 88}, "88 samples, budget 'b' asks for exactly 100"),
        ("samples_seen", 100, {"optimizer_steps": 13, "samples": 104}, "104 samples, budget 'b' allows 100"),
        ("flops", 1000, {"optimizer_steps": 11, "flops": 1050}, None),
        ("flops", 1000, {"optimizer_steps": 15, "flops": 1500}, "1,500 FLOPs, budget 'b' allows 1,000"),
        ("flops", 1000, {"optimizer_steps": 9, "flops": 900}, "900 FLOPs, budget 'b' asks for exactly 1,000"),
        ("gpu_seconds", 100, {"optimizer_steps": 50, "gpu_seconds": 104.0}, None),
        ("gpu_seconds", 100, {"optimizer_steps": 50, "gpu_seconds": 130.0}, "130 GPU seconds, budget 'b' allows 100"),
    ],
)
def test_a_budget_is_kept_exactly(currency: str, amount: float, ledger: dict, problem: str | None) -> None:
    assert budget_problem(limits(currency, amount, "exactly"), Ledger(**ledger), may_use_less=False) == problem


def test_less_than_the_amount_is_fine_where_it_is_a_cap_or_time_ended_the_stage() -> None:
    half = Ledger(optimizer_steps=5)
    assert budget_problem(limits("optimizer_steps", 10), half, may_use_less=False) is None
    assert budget_problem(limits("optimizer_steps", 10, "exactly"), half, may_use_less=True) is None
