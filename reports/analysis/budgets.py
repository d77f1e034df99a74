"""Describe the equal budget of all methods in a table: the currency of each half, and its uniformity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.specs.budget import Currency
from pretrain_bench.harness.contract.run_length import COUNTED_IN_TRAINING
from pretrain_bench.harness.contract.stage import Limits
from pretrain_bench.reports.analysis.rows import imported_rows

if TYPE_CHECKING:
    import pandas as pd

HALVES = {"pretrain": "pre-training", "finetune": "fine-tuning"}
_UNDER_A_CAP = {"pretrain": "each method by its own recipe", "finetune": "one recipe for all methods"}
UNITS = {
    Currency.optimizer_steps: "optimiser steps",
    Currency.samples_seen: "samples",
    Currency.gpu_seconds: "GPU-seconds",
    Currency.flops: "FLOPs",
}
COLUMN_OF = {
    Currency.optimizer_steps: "steps",
    Currency.samples_seen: "samples",
    Currency.gpu_seconds: "gpu_seconds",
    Currency.flops: "flops",
}
"""The column of the frame of runs that holds each currency's use, for each half."""
TOLERANCE = 0.01
"""Tolerated relative difference in use of an exact budget: stage shares and samples per step are whole numbers."""
LAST_CHECKPOINT = 0.05
"""Share of a GPU-seconds budget that a stage may exceed for its last checkpoint, as in `budget_problem`."""


def limit_columns(half: str, limits: list[Limits]) -> dict[str, object]:
    """Columns of the frame for one half, `pretrain` or `finetune`: currency, amount (over all stages) and uniformity."""
    first = limits[0] if limits else None
    return {
        f"{half}_currency": first.currency.value if first else "",
        f"{half}_amount": sum(one.amount for one in limits),
        f"{half}_uniformity": first.uniformity if first else "",
    }


def budget_words(runs: pd.DataFrame) -> str:
    """Describe what is equal for the rows of these runs (from the frame, not empty), for each of their budgets:

    `budget: pre-training at most 20,000 optimiser steps (each method by its own recipe), fine-tuning at most 500 optimiser
    steps (one recipe for all methods)`. The text notes rows that are imported, or that used different amounts of an exact
    budget.
    """
    several = runs["budget"].nunique() > 1
    texts = []
    for budget, part in runs.groupby("budget", sort=True):
        halves = [f"{words} {_half_words(part, half)}" for half, words in HALVES.items()]
        texts.append(f"budget{f' {budget}' if several else ''}: {', '.join(halves)}")
    if imported := list(imported_rows(runs)):
        texts.append(f"NOT EQUAL in pre-training: {', '.join(imported)}")
    return "; ".join(texts)


def _half_words(runs: pd.DataFrame, half: str) -> str:
    """Describe one half; rows without training in it, such as scratch in pre-training, do not count."""
    used = runs[runs[f"{half}_amount"] > 0]
    limits = used[[f"{half}_{c}" for c in ("uniformity", "amount", "currency")]].drop_duplicates()
    words = [_limit_words(*one) for one in limits.itertuples(index=False, name=None)]
    if not words:
        return "none"
    if len(words) > 1:
        return f"NOT EQUAL: {' or '.join(sorted(words)).replace('equal, ', '')}"
    uniformity, _, currency = limits.iloc[0]
    return words[0] + (_unequal_use(used, half, currency) if uniformity == "exactly" else f" ({_UNDER_A_CAP[half]})")


def _limit_words(uniformity: str, amount: float, currency: str) -> str:
    text = f"{_number(amount)} {UNITS[Currency(currency)]}"
    return f"equal, exactly {text}" if uniformity == "exactly" else f"at most {text}"


def _unequal_use(runs: pd.DataFrame, half: str, currency: str) -> str:
    """The actual use of rows if it differs although the budget is exact; else empty.

    FLOPs and GPU seconds are counted after each step, so a row may exceed the amount by its last step.
    """
    column, good = f"{half}_{COLUMN_OF[Currency(currency)]}", runs[runs["outcome"] == "ok"]
    if not len(good):
        return ""
    used = good.groupby("row")[column].mean()
    tolerated = TOLERANCE * used.max()
    if currency in COUNTED_IN_TRAINING:
        tolerated += 2 * (good[column] / good[f"{half}_steps"].clip(lower=1)).max()
    if currency == Currency.gpu_seconds:
        tolerated += LAST_CHECKPOINT * used.max()
    if used.max() - used.min() <= tolerated:
        return ""
    return f", but NOT EQUAL in use: {_number(used.min())} to {_number(used.max())}"


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount < 1e9 else f"{amount:.3g}"
