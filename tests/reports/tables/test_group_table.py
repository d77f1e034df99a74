"""The table of one group of runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.tables.group_table import group_table
from tests.reports.stores import add, only_group

pytestmark = pytest.mark.usefixtures("undrawn")


def test_finetuning_seeds_are_averaged_before_anything_is_inferred(store: Store) -> None:
    for pretrain in range(2):
        for finetune in range(5):
            add(store, "ours", 0.5 + 0.1 * pretrain + 0.01 * finetune, pretrain, finetune)
            add(store, "scratch", 0.4 + 0.01 * finetune + 0.02 * pretrain, pretrain, finetune, source="none")
    table = group_table(only_group(store)).set_index("method")
    assert table.loc["ours", "n"] == 2, "ten runs, but two pre-trainings"
    assert table.loc["ours", "final"].startswith("57.0 [")
    assert table.loc["ours", "vs. scratch"].startswith("+14.0 [")


def test_failures_are_cells_and_never_dropped(store: Store, tmp_path: Path) -> None:
    add(store, "scratch", 0.4, source="none")
    add(store, "ours", 0.0, outcome="crashed", message="it broke")
    add(store, "ours", 0.0, 1, outcome="oom_host")
    table = group_table(only_group(store)).set_index("method")
    assert (table.loc["ours", "n"], table.loc["ours", "final"]) == (0, "-")
    assert set(table.loc["ours", "failed"].split(", ")) == {"1 crashed", "1 oom_host"}
    text = build_report(store, tmp_path / "out").text
    assert "1 crashed" in text and "it broke" in (tmp_path / "out/index.html").read_text()


def test_two_kinds_of_scratch_give_no_differences_and_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for seed in range(2):
        for code in ("0" * 64, "1" * 64):
            add(store, "scratch", 0.4, seed, source="none", pretrain_code=code)
        add(store, "ours", 0.5, seed)
    built = build_report(store, tmp_path / "out")
    for text in (built.files["table"].read_text(), built.text, built.files["page"].read_text()):
        assert re.search(r"no differences, since there are 2 kinds of scratch: scratch #\w+, scratch #\w+", text)
