"""Methods over all tasks: gains, corrected tests, ranks."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pretrain_bench.reports.analysis.ranks import heads_over_tasks, over_tasks
from pretrain_bench.reports.tables.task_table import task_table
from tests.reports.frames import METHODS, planted_scores, runs_of


def test_a_task_under_two_conditions_counts_once() -> None:
    runs = runs_of(planted_scores(2, 3, {}, 0.3))
    assert over_tasks(runs) and over_tasks(runs.assign(task="one")) == []


def test_over_tasks_a_method_differs_only_where_enough_pretrainings_say_so() -> None:
    gains = {"supervised": 9.0, "csc": 6.0, "ours": 3.0}
    (over,) = over_tasks(runs_of(planted_scores(4, 5, gains, 0.3)))
    table = task_table(over).set_index("method")
    assert over.title == "Over all tasks, all labels, budget b, profile p, selected checkpoint" and list(
        table.index
    ) == list(METHODS)
    assert {m: table.loc[m, "verdict"] for m in gains} == dict.fromkeys(gains, "differs")
    assert table.loc["pointcontrast", "verdict"] == table.loc["depthcontrast", "verdict"] == "not distinguishable"
    assert table.loc["supervised", "p (Holm)"] == "<0.001", "no p value is nothing"
    assert table.loc["supervised", "mean rank"] == "1.0" and table.loc["scratch", "p (Holm)"] == "-"
    assert set(table["seeds"]) == {5} and re.fullmatch(
        r"\+\d\.\d \[\+?\d\.\d, \d+\.\d\]", table.loc["csc", "mean gain"]
    )
    assert over.ranks is not None and over.ranks.critical_difference is not None


@pytest.mark.parametrize(
    ("protocols", "budgets", "heads"),
    [
        (("finetune",), ("a",), [""]),
        (("finetune", "linear"), ("a",), ["", "protocol linear"]),
        (("linear",), ("a", "b"), ["budget a, profile p, protocol linear", "budget b, profile p, protocol linear"]),
    ],
)
def test_tables_over_tasks_are_told_apart(
    protocols: tuple[str, ...], budgets: tuple[str, ...], heads: list[str]
) -> None:
    (over,) = over_tasks(runs_of(planted_scores(2, 3, {}, 0.3)))
    tables = [over._replace(protocol=protocol, budget=budget) for protocol in protocols for budget in budgets]
    assert heads_over_tasks(tables) == heads


@pytest.mark.slow
def test_over_tasks_one_pretraining_is_one_draw_however_many_tasks_it_serves() -> None:
    one = planted_scores(7, 1, {"ours": 5.0}, 0.0)
    (over,) = over_tasks(runs_of(one))
    table = task_table(over).set_index("method")
    assert set(table["verdict"]) == {"-", "cannot be tested with this n"} and set(table["mean rank"]) == {"-"}
    assert table.loc["ours", "mean gain"] in ("+4.7", "+4.8"), "and no interval"
    rng = np.random.default_rng(1)
    said = 0
    for _ in range(60):
        null = {m: rng.normal(0, 1, (1, 3)) + rng.normal(0, 0.3, (7, 3)) for m in METHODS}
        (over,) = over_tasks(runs_of(null))
        said += "differs" in set(task_table(over)["verdict"])
    assert said <= 9, "5 % of 60, and chance; with the task as unit it is most of them"
    assert over_tasks(runs_of(planted_scores(1, 3, {}, 0.3))) == [], "one task does not make a comparison over tasks"


def test_a_method_that_lacks_a_task_has_no_rank_and_is_compared_on_the_rest() -> None:
    scores = planted_scores(4, 4, {"csc": 3.0, "supervised": 9.0, "ours": 6.0, "depthcontrast": -3.0}, 0.1)
    scores["ours"][2:] = np.nan
    scores["csc"][1, 3] = np.nan
    (over,) = over_tasks(runs_of(scores))
    table = task_table(over).set_index("method")
    assert table.loc["ours", "mean rank"] == "-" and table.loc["ours", "tasks"] == "2 of 4"
    assert table.loc["ours", "mean gain"].startswith(("+5", "+6")), (
        "the hard tasks that it lacks do not add to its gain"
    )
    assert table.loc["csc", "seeds"] == 3, "the seed that failed at one task is left out, not imputed"
    assert "ours" not in over.ranked and len(over.ranked) == 5


@pytest.mark.slow
def test_over_tasks_counts_are_those_of_the_test() -> None:
    """Counts cover the tasks that scratch has too, and the seeds that have all of them; a single task gives no mean over tasks."""
    scores = planted_scores(3, 4, {"ours": 3.0}, 0.1)
    scores["scratch"][1:] = np.nan
    (over,) = over_tasks(runs_of(scores))
    row = task_table(over).set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["mean gain"], row["failed"]) == ("1 of 3", 4, "-", "0")
    scores = planted_scores(3, 4, {"ours": 3.0}, 0.1)
    scores["scratch"][2] = np.nan
    scores["ours"][2, 1:] = np.nan
    (over,) = over_tasks(runs_of(scores))
    row = task_table(over).set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["failed"]) == ("2 of 3", 4, "3 crashed") and "[" in row["mean gain"]
    scores["ours"][:2] = np.nan
    scores["ours"][2] = 40.0
    (over,) = over_tasks(runs_of(scores).assign(outcome="ok"))
    row = task_table(over).set_index("method").loc["ours"]
    assert (row["tasks"], row["seeds"], row["failed"]) == ("0 of 3", 0, "8 without a score")


def test_over_tasks_nothing_without_spread_is_a_difference() -> None:
    scores = {m: np.full((2, 3), level) for m, level in (("scratch", 0.0), ("ours", 1.2))}
    (over,) = over_tasks(runs_of(scores))
    row = task_table(over).set_index("method").loc["ours"]
    assert (row["mean gain"], row["p (Holm)"], row["verdict"]) == ("+1.2", "-", "cannot be tested without spread")
