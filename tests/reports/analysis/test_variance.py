"""Variance by seed, in the table and in the figure."""

from __future__ import annotations

import re

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.analysis.variance import variances
from pretrain_bench.reports.figures.variance import draw_variances


def test_the_variance_of_shared_pretraining_is_separated(planted_store: Store) -> None:
    found = variances(load(planted_store).runs)
    whole = found[found["missing"] == 0]
    assert len(whole) > 15 and whole["pre-training seed"].mean() > whole["fine-tuning seed"].mean()


def test_a_row_whose_variance_cannot_be_separated_states_it(planted_store: Store) -> None:
    found = variances(load(planted_store).runs)
    failed = sum(r.outcome != "ok" for r in planted_store.records())
    assert len(found) == 6 * 5, "every row at every ratio is there"
    assert failed and found["missing"].sum() == failed
    partly = found[found["missing"] > 0]
    assert partly[["pre-training seed", "fine-tuning seed", "residual"]].isna().all().all()
    figure = draw_variances(found, "Variance")
    words = [t.get_text() for t in figure.axes[0].texts]
    assert len(words) == len(partly) and all(re.fullmatch(r"not separable: \d runs? missing", w) for w in words)
