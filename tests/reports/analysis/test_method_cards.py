"""Colour, place and group of methods, with and without a card."""

from __future__ import annotations

import pandas as pd
import pytest

from pretrain_bench.benchmarks.specs.method import Method, MethodCard
from pretrain_bench.harness.contract.records import Record
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.reports.analysis import method_cards
from pretrain_bench.reports.analysis.method_cards import BASELINE, colour_of, group_of, place_of, uses_labels
from pretrain_bench.reports.analysis.sources import OTHER, with_source

CARDED = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")


def test_a_users_methods_have_a_separate_group_and_may_have_no_source() -> None:
    assert [group_of(m) for m in ("scratch", "supervised", "csc", "ours", "mine")] == [
        "baseline", "baseline", "multi-scan", "single-scan", "other",
    ]  # fmt: skip
    rows = [{"method": "mine", "pretrain_dataset": d, "dataset": "s3dis", "gain": 1.0} for d in ("none", "scannet")]
    assert list(with_source(pd.DataFrame(rows))["pre-trained on"]) == [OTHER]


def test_methods_have_one_colour_each_and_the_order_of_table_one() -> None:
    assert sorted([*reversed(CARDED), "mine"], key=place_of) == [*CARDED, "mine"]
    assert len({colour_of(m) for m in CARDED}) == 6 and colour_of("mine") not in {colour_of(m) for m in CARDED}
    assert place_of("mine") == place_of("theirs") > 5 and place_of(BASELINE) == 0
    assert [m for m in (*CARDED, "mine") if uses_labels(m)] == ["supervised"]


def test_cards_of_built_in_methods_are_those_of_their_folders() -> None:
    assert method_cards._shipped() == {name: find(Method, name).card for name in available(Method)}


def test_the_newest_record_of_a_method_says_how_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_cards, "_recorded", {})
    records = [
        Record.model_construct(method=method, method_card=card, ended_at=ended_at)
        for method, card, ended_at in (
            ("theirs", MethodCard(title="Theirs", group="multi-scan", colour="#111111", place=9), "2026-01-02"),
            ("theirs", MethodCard(title="Theirs", group="multi-scan", colour="#222222", place=8), "2026-01-01"),
            ("ours", MethodCard(title="Not ours", group="baseline", colour="#ff0000", place=0), "2026-01-03"),
            ("plain", MethodCard(title="No colour of its own", group="baseline"), "2026-01-01"),
        )
    ]
    method_cards.use_cards_of(records)
    assert (colour_of("theirs"), place_of("theirs"), group_of("theirs")) == ("#111111", 9, "multi-scan")
    assert colour_of("ours") == "#D55E00", "no record recolours a method that ships"
    method_cards.use_cards_of(records[3:])
    assert group_of("theirs") == "other", "cards of an earlier report are gone"
    assert colour_of("plain") in method_cards.OTHER_COLOURS
