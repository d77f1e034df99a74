"""The numbers of docs/study/design.md that follow from the suite and from the power of Welch's test."""

from __future__ import annotations

import re

import pytest

from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.reports.analysis.power import welch_power
from tests.conftest import REPOSITORY

DESIGN = (REPOSITORY / "docs/study/design.md").read_text()


def test_predicted_power_is_that_of_welchs_test() -> None:
    (spreads,) = re.findall(r"\| family \| true difference \| spread ([\d. |]+) \|\n", DESIGN)
    rows = re.findall(r"^\| ([AB]) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", DESIGN, re.M)
    assert len(rows) == 6
    comparisons = {"A": 4, "B": 3}
    for family, size, *powers in rows:
        for spread, power in zip(spreads.split(" | "), powers, strict=True):
            exact = welch_power(float(size) / float(spread), 5, 0.05 / comparisons[family])
            assert float(power) == pytest.approx(exact, abs=0.0051)


def test_the_suite_has_the_cells_of_the_design() -> None:
    cells = list(find(Suite, "study").cells("study", "study"))
    seeds: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        seeds.setdefault((cell.protocol, cell.method), set()).add(cell.pretrain_seed)
    assert {len(s) for (protocol, _), s in seeds.items() if protocol == "finetune"} == {5}
    assert {len(s) for (protocol, _), s in seeds.items() if protocol != "finetune"} == {8}
    assert {m for p, m in seeds if p == "decoder"} == {"scratch", "depthcontrast"}
    ran = [c for c in cells if not (c.method == "supervised" and c.task == "scannet-sem")]
    assert sum(c.protocol == "finetune" for c in ran) == 740
    assert sum(c.protocol == "decoder" for c in ran) == 48
