"""The overview of gains on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.build import build_report
from pretrain_bench.reports.page.matrix import SHADES, matrix_cell
from tests.reports.stores import add

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_gain_that_cannot_be_tested_has_no_colour() -> None:
    cell = {
        "group": "g",
        "n": 1,
        "failed": 0,
        "lost_pretrainings": 0,
        "part_of_test_split": "",
        "contamination_mark": "",
        "runs": 1,
        "mean": 40.0,
        "method": "ours",
        "gain": -3.0,
    }
    assert matrix_cell({**cell, "verdict": "cannot be tested with this n"}, 4.0)["colour"] == ""
    tested = matrix_cell({**cell, "n": 5, "verdict": "worse"}, 4.0)
    assert tested["colour"] == SHADES[1] and tested["sure"] and tested["text"] == "-3.0"
    assert matrix_cell({**cell, "gain": 4.0, "verdict": "better"}, 4.0)["colour"] == SHADES[-1]
    assert matrix_cell({**cell, "n": 0, "failed": 1, "verdict": "-"}, 4.0)["text"] == "failed"


def test_a_cell_that_has_not_run_yet_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / "runs")
    add(store, "scratch", 0.5)
    add(store, "scratch", 0.4, percent=20.0)
    add(store, "csc", 0.6)
    text = build_report(store, tmp_path / "report").files["page"].read_text()
    assert text.count('<span class="soft">not run</span>') == 1
    assert "in points of what each task is judged by" in text
