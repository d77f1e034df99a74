"""Effects over scratch, on a store with planted effects."""

from __future__ import annotations

from pathlib import Path

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.figures.scores import draw_scores
from pretrain_bench.reports.tables.group_table import group_table
from tests.reports.planted import GAINS
from tests.reports.stores import add


def test_planted_effects_are_found(planted_store: Store) -> None:
    found = effects(load(planted_store).runs)
    full = found[found["label_ratio"] == "100%"].set_index("method")
    for method, gain in GAINS.items():
        if method != "scratch":
            row = full.loc[method]
            assert row["gain_low"] - 0.5 < gain < row["gain_high"] + 0.5 and row["n"] == 4
    assert full.loc["supervised", "verdict"] == "better"
    assert full.loc["depthcontrast", "verdict"] in ("not distinguishable", "equivalent within 1"), "half a point below"
    assert full.loc["supervised", "probability_of_improvement"] == 1
    assert 0.5 < full.loc["ours", "could_show"] < 6 and 2 < full.loc["ours", "seeds_for_1"] < 60
    few = found[(found["label_ratio"] == "5%") & (found["method"] == "csc")]["gain"].item()
    assert few > full.loc["csc", "gain"] + 1


def test_a_run_without_a_score_is_a_failure(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add(store, "csc", 0.5, 0)
    add(store, "csc", 0.5, 1, checkpoints=("best",))
    loaded = load(store)
    (row,) = group_table(loaded.runs).to_dict("records")
    assert (row["n"], row["failed"]) == (1, "1 without a score")
    (text,) = draw_scores(loaded.runs, "t").axes[0].texts
    assert text.get_text() == "1 failed", "in the figure as well"
    (effect,) = effects(loaded.runs).to_dict("records")
    assert (effect["n"], effect["failed"], effect["runs"]) == (1, 1, 2)
