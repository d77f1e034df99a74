"""The overview of gains on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load_runs
from pretrain_bench.reports.analysis.titles import group_id
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page.matrix import matrix, matrix_cell
from tests.reports.stores import add

pytestmark = pytest.mark.usefixtures("undrawn")


CELL = {
    "group": "g", "n": 5, "failed": 0, "lost_pretrainings": 0, "part_of_test_split": "", "contamination_mark": "", "runs": 5,
    "mean": 40.0, "method": "ours", "gain": -3.0, "gain_low": -4.0, "gain_high": -2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "kind", "symbol"),
    [
        ("better", "better", "▲"),
        ("worse", "worse", "▼"),
        ("equivalent within 1", "equivalent", "≈"),
        ("not distinguishable", "", ""),
        ("cannot be tested with this n", "", ""),
        ("cannot be tested without spread", "", ""),
    ],
)
def test_a_cell_has_the_kind_and_symbol_that_its_test_supports(verdict: str, kind: str, symbol: str) -> None:
    cell = matrix_cell({**CELL, "verdict": verdict})
    assert (cell["kind"], cell["symbol"]) == (kind, symbol)
    assert cell["text"] == "-3.0" and cell["interval"] == "[-4.0, -2.0]" and cell["words"] == f"-3.0 points, {verdict}"


def test_a_cell_without_a_score_says_failed() -> None:
    assert matrix_cell({**CELL, "n": 0, "failed": 1, "verdict": "-"})["text"] == "failed"


def test_columns_are_grouped_by_task_with_short_heads_and_the_protocol_once(planted_store: Store) -> None:
    table = effects(load_runs(planted_store))
    shown = matrix("t", table.assign(group=[group_id(row) for row in table.to_dict("records")]))
    assert [(head["text"], head["span"]) for head in shown["heads"]] == [("s3dis-sem", 5)]
    assert [column["text"] for column in shown["columns"]] == ["5%", "10%", "20%", "40%", "100%"]
    assert shown["heads"][0]["note"] == "s3dis-sem on s3dis, budget b, profile p, selected checkpoint"


def test_a_cell_that_has_not_run_yet_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    add(store, "scratch", 0.5)
    add(store, "scratch", 0.4, percent=20.0)
    add(store, "csc", 0.6)
    text = build_report(store, tmp_path / "report").files["page"].read_text()
    assert text.count('<span class="soft">not run</span>') == 1
    assert "in points of each task's headline metric" in text
