"""Suites: their cells, exclusions and filters."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite, parse_filters
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.reports.analysis import published

SUITE = Suite(
    name="test", version=1, budget="smoke", methods=("ours", "scratch"), tasks=("s3dis-sem",),
    label_ratios=("5%", "100%"), pretrain_seeds=(0, 1), finetune_seeds=(0, 1, 2),
)  # fmt: skip


def cells(suite: Suite, *filters: str) -> list[tuple[str, str, int, int]]:
    found = suite.cells("smoke", "smoke", parse_filters(filters))
    return [(c.method, str(c.label_ratio), c.pretrain_seed, c.finetune_seed) for c in found]


def test_the_product_of_the_axes() -> None:
    found = cells(SUITE)
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 3
    assert ("ours", "5%", 1, 2) in found


def test_exclusions_need_all_of_their_fields() -> None:
    less = SUITE.model_copy(update={"exclude": ({"method": "ours", "label_ratio": ("5%", "7")}, {"finetune_seed": 2})})
    found = cells(less)
    assert len(found) == 24 - 8 - 4, "eight with seed 2, and four more of ours at 5 %"
    assert not any(c[3] == 2 or c[:2] == ("ours", "5%") for c in found)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("method=ours",), 12),
        (("method=ours,scratch", "finetune_seed=1"), 8),
        (("method=o* label_ratio=5",), 6),
        (("label_ratio=5%", "pretrain_seed=0"), 6),
        (("method=*s", "method=o*"), 12),
    ],
)
def test_filters(filters: tuple[str, ...], count: int) -> None:
    assert len(cells(SUITE, *filters)) == count


def test_a_filter_that_lets_nothing_through_is_named() -> None:
    with pytest.raises(WrongUse, match=r"--only method=...: no method of suite 'test' matches; it has ours, scratch"):
        cells(SUITE, "method=csc")
    for text in ("colour=red", "method", "method="):
        with pytest.raises(WrongUse, match="expected FIELD=PATTERN"):
            parse_filters([text])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("label_ratios: [0.05]", "label_ratios.0: Input should be a valid string"),
        ("label_ratios: ['0.05']", "expected per cent"),
        ("pretrain_seeds: [0, 0]", "a value stands there twice"),
        ("exclude: [{methods: ours}]", "unknown field 'methods'"),
        ("seeds: [0]", "unknown key"),
        ("tasks: []", "at least 1 item"),
    ],
)
def test_a_bad_suite_file_is_refused_by_field(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    fields = {"name": "mine", "version": 1, "budget": "smoke", "methods": "[ours]", "tasks": "[s3dis-sem]"}
    lines = [f"{k}: {v}" for k, v in fields.items() if not line.startswith(k)]
    path.write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(WrongUse, match=r"mine\.yaml") as error:
        load_spec(path, Suite)
    assert said in str(error.value)


@pytest.mark.parametrize("name", available(Suite))
def test_what_ships_names_what_ships(name: str) -> None:
    suite = find(Suite, name)
    assert suite.name == name and suite.description
    budget = find(Budget, suite.budget)
    profile = find(Profile, suite.profile or budget.default_profile or "headline")
    assert all(find(Method, m) for m in suite.methods)
    assert all(find(Task, t).name in profile.tasks for t in suite.tasks)
    assert list(suite.cells(budget.name, profile.name))


PANELS = {
    "table1": "table1_corrected",
    "figure3a": "figure3_data_fraction",
    "figure3b": "figure3_data_fraction",
    "figure3c": "figure3_data_fraction",
    "figure5": "figure5_curves",
}
"""Suite to the file of published numbers. Figure 4 is the distribution of the gains of 3 (a)."""
ABLATIONS = ("(>70% overlap)", "(same scan)")
"""Rows of the draft that no method here reproduces yet."""


def published_cells(file: str) -> set[tuple[str, str, str]]:
    """Method, task and label ratio of each published number."""
    cells = set()
    with (published.FOLDER / f"{file}.csv").open() as lines:
        for row in csv.DictReader(lines):
            task, _, percent = row["task"].partition(" (")
            percent = percent.partition("%")[0] or row.get("label_fraction_percent") or "100"
            if not row["method"].endswith(ABLATIONS):
                cells.add((published.METHODS[row["method"]], published.TASKS[task], f"{percent}%"))
    return cells


@pytest.mark.parametrize("name", PANELS)
def test_each_panel_of_the_paper_has_its_suite(name: str) -> None:
    suite = find(Suite, name)
    theirs = {cell for cell in published_cells(PANELS[name]) if cell[1] in suite.tasks}
    ours = {(c.method, c.task, str(c.label_ratio)) for c in suite.cells("paper", "headline")}
    assert theirs and theirs <= ours
    assert len(suite.pretrain_seeds) >= 3 and len(suite.finetune_seeds) >= 2, "claims are not conditional on one seed"


def test_no_published_panel_is_without_a_suite() -> None:
    for file in set(PANELS.values()):
        covered = {task for name, of in PANELS.items() if of == file for task in find(Suite, name).tasks}
        assert {task for _, task, _ in published_cells(file)} <= covered


def test_a_protocol_is_an_axis() -> None:
    """Fine-tuning is the default, and cells of it are written as before there were others."""
    both = SUITE.model_copy(update={"protocols": ("finetune", "linear")})
    assert len(cells(both)) == 24 + 8, "a linear probe has no use for the three fine-tuning seeds"
    linear = cells(both, "protocol=linear", "finetune_seed=1,2")
    assert len(linear) == len(set(linear)) == 8 and {c[3] for c in linear} == {0}
    assert len(cells(both.model_copy(update={"exclude": ({"protocol": "linear", "method": "ours"},)}))) == 24 + 4
    written = {c.protocol: c.model_dump(mode="json") for c in both.cells("b", "p")}
    assert "protocol" not in written["finetune"] and written["linear"]["protocol"] == "linear"


def test_a_suite_of_probes_has_the_frozen_random_backbone() -> None:
    suites = [find(Suite, name) for name in available(Suite)]
    probing = [s for s in suites if set(s.protocols) != {"finetune"}]
    assert {s.name for s in probing} >= {"probe-tiny", "probe-table1"} and all("scratch" in s.methods for s in probing)
    tiny = find(Suite, "probe-tiny")
    assert len(list(tiny.cells("tiny", "tiny"))) == 7 * 5 * 3 * 2 and tiny.protocols == ("linear",)
