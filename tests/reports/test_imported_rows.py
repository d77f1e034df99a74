"""Imported checkpoints in tables: marked, never counted as equal budget, and one file is never counted as several pre-trainings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pretrain_bench.benchmarks.specs.checkpoint import ImportedFrom
from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.cost import with_hours
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.cost_table import cost_table
from tests.reports.stores import add
from tests.reports.test_budgets import USED

MARKED = {name: f"{name} (imported, budget unknown)" for name in ("mine", "one")}


def file(letter: str, **more: object) -> ImportedFrom:
    return ImportedFrom.model_validate({"file": f"{letter}.pth", "sha256": letter * 64, "origin": "csc", **more})


def fill(store: Store) -> None:
    """Three pre-trainings each of ours and scratch, a method `mine` of three files, and one of a single file."""
    limits = {"uniformity": "exactly", "amount": 20000, "ledger": USED}
    for seed, letter in enumerate("abc"):
        add(store, "scratch", 0.40 + 0.01 * seed, seed, source="none", **limits)
        add(store, "ours", 0.50 + 0.01 * seed, seed, **limits)
        add(store, "mine", 0.60 + 0.01 * seed, seed, source="none", imported=file(letter), **limits)
    add(store, "one", 0.70, source="none", imported=file("d"), **limits)


def test_imported_rows_are_marked_and_their_cost_is_unknown(store: Store) -> None:
    fill(store)
    runs = load(store).runs
    assert runs.groupby("row")["pretrain_seed"].nunique().to_dict() == {
        "scratch": 3, "ours": 3, MARKED["mine"]: 3, MARKED["one"]: 1,
    }  # fmt: skip
    assert set(runs.loc[runs["method"] == "mine", "imported"]) == {f"{letter * 64} csc" for letter in "abc"}
    words = budget_words(runs)
    assert words.startswith("budget: pre-training equal, exactly 20,000 optimiser steps, fine-tuning equal")
    assert f"NOT EQUAL in pre-training: {MARKED['mine']}, {MARKED['one']}" in words
    costs = cost_table(runs).set_index("method")
    row = costs.loc[MARKED["mine"]]
    assert (row["steps"], row["FLOPs"], row["labels"]) == ("unknown + 20,000", "unknown + 3e+15", "unknown + 7")
    assert (row["GPU-hours"], row["GPU-hours amortised"]) == ("unknown + 2.000", "unknown")
    assert costs.loc["ours", "steps"] == "20,000 + 20,000" and costs.loc["scratch", "steps"] == "0 + 20,000"
    assert set(with_hours(effects(runs), runs)["row"]) == {"scratch", "ours"}, "no hours are known of the others"


def test_one_name_for_two_files_of_one_seed_is_two_rows(store: Store) -> None:
    for letter in "ab":
        add(store, "mine", 0.5, source="none", imported=file(letter))
    add(store, "mine", 0.5, 1, source="none", imported=file("c"))
    rows = load(store).runs.set_index("imported")["row"]
    assert len(set(rows)) == 3 and all(r.startswith(f"{MARKED['mine']} #") for r in rows)
    assert rows.to_dict().keys() == {f"{letter * 64} csc" for letter in "abc"}


@pytest.mark.slow
def test_a_report_says_what_one_file_cannot_show(store: Store, tmp_path: Path, undrawn: None) -> None:
    fill(store)
    built = build_report(store, tmp_path / "out")
    text = " ".join(built.text.split())
    assert f"NOT EQUAL in pre-training: {MARKED['mine']}, {MARKED['one']}" in text
    assert f"one file, so no variance over pre-trainings: {MARKED['one']}" in text
    table = pd.read_csv(next((tmp_path / "out").glob("groups/*/table.csv"))).set_index("method")
    assert table.loc[MARKED["one"], "verdict"] == "cannot be tested with this n" and table.loc[MARKED["one"], "n"] == 1
    assert table.loc[MARKED["mine"], "verdict"] == "better"
    assert (tmp_path / "out/tables/table1.md").read_text().count("imported") >= 4, "the group, the marks"
    page = (tmp_path / "out/index.html").read_text()
    assert "unknown pre-training, 20,000 fine-tuning" in page and "d.pth" in page
    assert "unknown (--pretrained-on FILE states the scenes)" in page
