"""Suites: their cells, exclusions and filters."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.loading import load_spec
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import NO_SEED, Suite, parse_filters
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.recipes import stage_recipe
from pretrain_bench.reports.analysis import published
from tests.conftest import REPOSITORY

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


def test_an_exclusion_by_fine_tuning_seed_leaves_linear_probes() -> None:
    """Probes have no fine-tuning seed: those of a suite that differ only in it are one cell."""
    probed = SUITE.model_copy(update={"protocols": ("finetune", "linear"), "exclude": ({"finetune_seed": 0},)})
    found = [(c.protocol, c.finetune_seed) for c in probed.cells("smoke", "smoke")]
    assert found.count(("linear", NO_SEED)) == 8 and found.count(("finetune", 1)) == 8 and len(found) == 24
    none = probed.model_copy(update={"exclude": ({"protocol": "linear"},)})
    assert {c.protocol for c in none.cells("smoke", "smoke")} == {"finetune"}


def test_each_pretraining_seed_can_have_fine_tuning_seeds_of_its_own() -> None:
    """Its numbers in filters and exclusions stay those of the suite; linear probes have none."""
    fields = SUITE.model_dump() | {"own_finetune_seeds": True}
    own = Suite.model_validate(fields)
    assert {c[2:] for c in cells(own)} == {(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)}
    assert {c[2:] for c in cells(own, "finetune_seed=1")} == {(0, 1), (1, 4)}
    less = Suite.model_validate(fields | {"exclude": [{"finetune_seed": [1, 2]}], "protocols": ["decoder", "linear"]})
    found = {(c.protocol, c.pretrain_seed, c.finetune_seed) for c in less.cells("smoke", "smoke")}
    assert found == {("decoder", 0, 0), ("decoder", 1, 3), ("linear", 0, NO_SEED), ("linear", 1, NO_SEED)}
    with pytest.raises(ValueError, match=r"own_finetune_seeds: expected finetune_seeds \[0, 1\]"):
        Suite.model_validate(fields | {"finetune_seeds": [0, 2]})
    with pytest.raises(ValueError, match="own_finetune_seeds: pretrain_seeds up to 6148914691236517204 are possible"):
        Suite.model_validate(fields | {"pretrain_seeds": [2**63]})


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
        ("label_ratios: ['1.0']", "expected per cent"),
        ("pretrain_seeds: [0, 0]", "a value is listed twice"),
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
def test_built_in_specs_name_built_in_specs(name: str) -> None:
    suite = find(Suite, name)
    assert suite.name == name and suite.description
    budget = find(Budget, suite.budget)
    profile = find(Profile, suite.profile or budget.default_profile or "headline")
    assert all(find(Method, m) for m in suite.methods)
    assert all(find(Task, t).name in profile.tasks for t in suite.tasks)
    assert list(suite.cells(budget.name, profile.name))


PANELS = {
    "Table I": ("table1-paper", "table1_corrected", ""),
    "Table I, equal budgets": ("table1", "table1_corrected", ""),
    "Figure 3 (a)": ("figure3a", "figure3_data_fraction", ""),
    "Figure 3 (b)": ("figure3b", "figure3_data_fraction", ""),
    "Figure 3 (c)": ("figure3c", "figure3_data_fraction", ""),
    "Figure 4": ("figure3a", "figure3_data_fraction", ""),
    "Figure 5": ("figure5", "figure5_curves", ""),
    "draft, pairs of 70 % overlap": ("ablation-overlap", "figure3_data_fraction", " (>70% overlap)"),
    "draft, both views of one scan": ("ablation-same-scan", "figure3_data_fraction", " (same scan)"),
}
"""Panel to (suite, file of published numbers, name of the pre-training in that file)."""


def published_cells(file: str, ablation: str) -> set[tuple[str, str, str]]:
    """Method, task and label ratio of each published number, of the methods or of one of their ablations."""
    cells = set()
    with (published.FOLDER / f"{file}.csv").open() as lines:
        for row in csv.DictReader(lines):
            task, _, percent = row["task"].partition(" (")
            percent = percent.partition("%")[0] or row.get("label_fraction_percent") or "100"
            method, _, which = published.METHODS[row["method"]].partition(" ")
            if which == ablation.strip():
                cells.add((method, published.TASKS[task], f"{percent}%"))
    return cells


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_of_the_paper_has_its_suite(panel: str) -> None:
    name, file, ablation = PANELS[panel]
    suite = find(Suite, name)
    theirs = {cell for cell in published_cells(file, ablation) if cell[1] in suite.tasks}
    ours = {(c.method, c.task, str(c.label_ratio)) for c in suite.cells("paper", "headline")}
    assert theirs and theirs <= ours
    assert len(suite.pretrain_seeds) >= 3 and len(suite.finetune_seeds) >= 2, "claims are not conditional on one seed"
    profile = find(Profile, suite.profile or "headline")
    for method in {method for method, *_ in theirs} & {"pointcontrast", "csc"}:
        spec = find(Method, method)
        recipe = stage_recipe(spec, spec.stages[0], profile)
        assert recipe is not None
        assert published.published_name(method, [recipe.model_dump(mode="json")]) == method + ablation


def test_figure_4_is_the_distribution_of_figure_3a_alone() -> None:
    """Its boxes show the gains of one task over all label ratios, so the suite has no other task."""
    suite = find(Suite, PANELS["Figure 4"][0])
    assert suite.tasks == ("scannet-sem",) and "Figure 4" in suite.description


def test_the_docs_name_the_suite_of_each_panel() -> None:
    section = (REPOSITORY / "docs/reports.md").read_text().partition("## The paper's panels")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+) \| `([\w-]+)` \|", section, flags=re.MULTILINE)
    assert rows == [(panel, suite) for panel, (suite, *_) in PANELS.items()]


def test_every_number_of_the_draft_is_in_a_panel() -> None:
    listed = [(find(Suite, name).tasks, *rest) for name, *rest in PANELS.values()]
    shown = {(m + a, t, p) for tasks, file, a in listed for m, t, p in published_cells(file, a) if t in tasks}
    with (published.FOLDER / "figure3_data_fraction.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {
        (published.METHODS[r["method"]], published.TASKS[r["task"]], f"{r['label_fraction_percent']}%") for r in rows
    } <= shown


def test_a_protocol_is_an_axis() -> None:
    """Fine-tuning is the default, and its cells are written as before other protocols existed."""
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


def test_no_published_task_is_without_a_suite() -> None:
    for file in {file for _, file, _ in PANELS.values()}:
        suites = [find(Suite, name) for name, other, _ in PANELS.values() if other == file]
        assert {task for _, task, _ in published_cells(file, "")} <= {task for suite in suites for task in suite.tasks}
