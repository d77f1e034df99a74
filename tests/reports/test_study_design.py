"""The numbers of docs/study/design.md that follow from the suite and from the power of Welch's test."""

from __future__ import annotations

import json
import re

import pytest

from pretrain_bench.benchmarks.specs.cell import Cell
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.harness.planning.catalog import find
from pretrain_bench.harness.planning.recipes import finetune_recipe
from pretrain_bench.reports.analysis.claims import published_claims
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
    counts = {name: [c for c in ran if c.protocol == name] for name in ("finetune", "linear", "decoder")}
    assert {name: len(found) for name, found in counts.items()} == {"finetune": 740, "linear": 408, "decoder": 48}
    extractions = {(c.method, c.task, c.pretrain_seed) for c in counts["linear"]}
    assert len(extractions) == 136
    profile = find(Profile, "study")

    def voxel(cell: Cell) -> float | None:
        """`supervised` is pre-trained with the voxels of the task."""
        return finetune_recipe(profile, find(Task, cell.task)).voxel_metres if cell.method == "supervised" else None

    assert len({(c.method, c.pretrain_seed, voxel(c)) for c in ran}) == 69
    assert len({c.pretrain_seed for c in ran if c.method == "ours"}) == 8
    for printed in (
        "740 fine-tunings",
        "69 pre-trainings",
        "8 image stages",
        "408 linear probes",
        "136 extractions",
        "48 decoder",
    ):
        assert printed in " ".join(DESIGN.split())


def test_the_error_rates_are_those_that_were_simulated() -> None:
    found = json.loads((REPOSITORY / "docs/verification/statistics.json").read_text())["results"]["claims_per_cent"]
    rates = {
        noise: [found[f"D, {name}, noise of ours x {noise}: does not hold"] for name in ("spread", "lowest gain")]
        for noise in (1, 2)
    }
    order = [found[f"F, spread of methods x {spread}: holds"] for spread in (0, 2)]
    text = " ".join(DESIGN.split())
    assert f"give *does not hold* in {rates[1][0]:.0f} and {rates[1][1]:.0f} % of studies" in text
    assert f"and in {rates[2][0]:.0f} and {rates[2][1]:.0f} % if the seeds of `ours` vary twice as much" in text
    assert f"F holds in {order[0]:.0f} % of studies of six equal methods" in text
    assert f"and in {order[1]:.0f} % if the methods' standard deviation is twice" in text


def test_the_families_are_those_of_the_design() -> None:
    """Each family has as many statements as the design counts comparisons, and names its methods."""
    rows = re.findall(r"^\| ([A-F]) \| .* \| (\d)[^|]*\|$", DESIGN.split("## Predicted power")[0], re.M)
    families: dict[str, int] = {}
    for claim in published_claims():
        families[claim.family] = families.get(claim.family, 0) + 1
    assert {family: int(number) for family, number in rows} == families
    (line,) = (line for line in DESIGN.splitlines() if line.startswith("| D |"))
    assert all(f"`{rival}`" in line for claim in published_claims() for rival in claim.rivals)
