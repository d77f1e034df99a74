"""Colour, place and group of methods, with and without a card."""

from __future__ import annotations

import pandas as pd

from pretrain_bench.reports.analysis.method_cards import BASELINE, colour_of, group_of, place_of, uses_labels
from pretrain_bench.reports.analysis.sources import OTHER, with_source

CARDED = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")


def test_methods_of_ones_own_have_a_group_of_their_own_and_may_have_no_source() -> None:
    assert [group_of(m) for m in ("scratch", "supervised", "csc", "ours", "mine")] == [
        "baseline", "baseline", "multi-scan", "single-scan", "other",
    ]  # fmt: skip
    rows = [{"method": "mine", "pretrain_dataset": d, "dataset": "s3dis", "gain": 1.0} for d in ("none", "scannet")]
    assert list(with_source(pd.DataFrame(rows))["pre-trained on"]) == [OTHER]


def test_methods_have_one_colour_each_and_the_order_of_table_one() -> None:
    assert sorted([*reversed(CARDED), "mine"], key=place_of) == [*CARDED, "mine"]
    assert len({colour_of(m) for m in CARDED}) == 6 and colour_of("mine") not in {colour_of(m) for m in CARDED}
    assert place_of("mine") == place_of("theirs") == 6 and place_of(BASELINE) == 0
    assert [m for m in (*CARDED, "mine") if uses_labels(m)] == ["supervised"]
