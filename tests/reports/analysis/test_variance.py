"""Variance by seed, in the table and in the figure."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.analysis.variance import variances
from pretrain_bench.reports.figures.variance import BOTH, RESIDUAL, WITH_SEED, draw_variances
from tests.reports.stores import add


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


def test_fine_tuning_seeds_of_each_pretraining_are_part_of_the_residual(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    scores = np.array([[40.0, 42.0], [46.0, 44.0], [41.0, 41.0]])
    for (seed, number), score in np.ndenumerate(scores):
        add(store, "ours", score / 100, seed, 2 * seed + number)
    found = variances(load(store).runs)
    row = found.iloc[0]
    within = (2 + 2 + 0) / 3
    between = np.var([41.0, 45.0, 41.0], ddof=1) - within / 2
    assert len(found) == 1 and (row["seeds"], row["missing"]) == ("3 x 2", 0) and np.isnan(row["fine-tuning seed"])
    assert [row["pre-training seed"], row["residual"]] == pytest.approx([between**0.5, within**0.5])
    assert said_in_legend(found) == ["pre-training seed", WITH_SEED]
    for seed in range(2):
        for number in range(2):
            add(store, "scratch", 0.4 + seed / 100, seed, number, source="none")
    assert said_in_legend(variances(load(store).runs)) == ["pre-training seed", "fine-tuning seed", BOTH]
    crossed = found.assign(**{"fine-tuning seed": 1.0})
    assert said_in_legend(crossed) == ["pre-training seed", "fine-tuning seed", RESIDUAL]


def said_in_legend(found: pd.DataFrame) -> list[str]:
    return [text.get_text() for text in draw_variances(found, "t").legends[0].get_texts()]
