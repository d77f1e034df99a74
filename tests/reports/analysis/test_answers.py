"""The sentences that answer a report's question, from its statistical tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pretrain_bench.reports.analysis.answers import answers, answers_over_tasks
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.families import task_families
from pretrain_bench.reports.analysis.ranks import over_tasks
from tests.reports.frames import planted_scores, runs_of

SEEDS = np.array([0.0, 1.0, 2.0])


def ratio_runs(scores: dict[str, dict[float, np.ndarray]]) -> pd.DataFrame:
    """Runs of one task, from the scores in per cent of each method's seeds by label ratio."""
    parts = []
    for percent in next(iter(scores.values())):
        part = runs_of({method: by_ratio[percent][None, :] for method, by_ratio in scores.items()})
        parts.append(part.assign(label_ratio=f"{percent:g}%", label_percent=percent))
    return pd.concat(parts, ignore_index=True)


def test_a_sentence_has_every_comparison_once_and_its_numbers_are_those_of_the_effects() -> None:
    runs = ratio_runs(
        {
            "scratch": {20.0: 40 + SEEDS, 100.0: 50 + SEEDS},
            "csc": {20.0: 50 + SEEDS, 100.0: 51 + SEEDS},
            "depthcontrast": {20.0: 40.5 + SEEDS, 100.0: 40 + SEEDS},
            "ours": {20.0: 41 + SEEDS, 100.0: 50.5 + SEEDS},
        }
    )
    table = effects(runs)
    (answer,) = answers(table)
    cell = table[(table["row"] == "csc") & (table["label_ratio"] == "20%")].iloc[0]
    assert answer.sentence.startswith(
        f"On task0, csc is better than scratch at 20% of the labels "
        f"(+10.0 [{cell['gain_low']:.1f}, {cell['gain_high']:.1f}], n = 3); depthcontrast is worse than scratch at all labels (-10.0 ["
    )
    more = int(np.ceil(cell["seeds_for_1"])) - 3
    assert (
        "csc at all labels, depthcontrast at 20% of the labels and ours are not distinguishable from scratch "
        f"(about {more} more seeds of each method would show a difference of 1 point)." in answer.sentence
    )
    assert answer.comparisons == (
        "6 comparisons, uncorrected; with Holm's correction better or worse: csc at 20% of the labels and depthcontrast at all labels"
    )
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()


def test_a_difference_that_holms_correction_does_not_keep_is_not_listed_as_kept() -> None:
    others = {f"m{i}": {100.0: 50 + SEEDS + 0.1 * i} for i in range(8)}
    runs = ratio_runs({"scratch": {100.0: 50 + SEEDS}, "csc": {100.0: 53 + SEEDS}, **others})
    (answer,) = answers(effects(runs))
    assert "csc is better than scratch" in answer.sentence
    assert answer.comparisons == "9 comparisons, uncorrected; with Holm's correction better or worse: none"


def test_many_differences_of_one_method_are_one_range() -> None:
    ratios = (5.0, 10.0, 100.0)
    runs = ratio_runs(
        {"scratch": {r: 40 + SEEDS for r in ratios}, "ours": {r: 50 + i + SEEDS for i, r in enumerate(ratios)}}
    )
    (answer,) = answers(effects(runs))
    said = "On task0, ours is better than scratch at 5%, 10% and 100% of the labels (+10.0 to +12.0, n = 3)."
    assert answer.sentence == said


def test_without_a_test_a_sentence_says_why() -> None:
    one = np.array([50.0])
    reasons: dict[str, Any] = {
        "only scratch was run": {"scratch": one},
        "scratch was not run, so no method can be compared": {"ours": one},
        "no run of scratch succeeded": {"scratch": np.array([np.nan]), "ours": one},
        "ours is not tested, which needs two pre-training seeds": {"scratch": one, "ours": one},
        "ours is not tested, since all runs have the same score": {"scratch": np.full(2, 0.0), "ours": np.full(2, 0.0)},
        "ours is without a successful run": {"scratch": 50 + SEEDS, "ours": np.full(3, np.nan)},
    }
    for reason, scores in reasons.items():
        (answer,) = answers(effects(ratio_runs({m: {100.0: s} for m, s in scores.items()})))
        assert reason in answer.sentence and answer.comparisons == "no test"


def test_each_label_ratio_has_its_own_scratch() -> None:
    """Scratch at 5% was not run, at 10% failed, at 20% is of two kinds, and at 100% is compared."""
    ratios = (5.0, 10.0, 20.0, 100.0)
    runs = ratio_runs({"scratch": {r: 40 + SEEDS for r in ratios}, "ours": {r: 50 + SEEDS for r in ratios}})
    scratch, percent = runs["method"] == "scratch", runs["label_percent"]
    runs.loc[scratch & (percent == 10), ["outcome", "score_selected", "score_final"]] = ["crashed", np.nan, np.nan]
    other = runs[scratch & (percent == 20)].assign(row="scratch #2", pretraining="scratch2")
    runs = pd.concat([runs[~(scratch & (percent == 5))], other], ignore_index=True)
    (answer,) = answers(effects(runs))
    start = "On task0, ours is better than scratch at all labels (+10.0 ["
    assert answer.sentence.startswith(start)
    assert answer.sentence.partition("; ")[2] == (
        "ours at 5% of the labels is without a run of scratch to compare with; "
        "ours at 10% of the labels is without a successful run of scratch to compare with; "
        "ours at 20% of the labels is not compared, since several kinds of scratch were run: scratch, scratch #2."
    )
    (alone,) = answers(effects(runs[(runs["label_percent"] == 5) | (runs["method"] == "scratch")]))
    assert alone.sentence == "On task0, ours is without a run of scratch to compare with."


def test_groups_of_one_label_ratio_are_compared_with_their_own_scratch() -> None:
    runs = ratio_runs({"scratch": {100.0: 40 + SEEDS}, "ours": {100.0: 50 + SEEDS}})
    worse = ratio_runs({"scratch": {100.0: 60 + SEEDS}, "ours": {100.0: 50 + SEEDS}}).assign(conditions="other")
    (answer,) = answers(effects(pd.concat([runs, worse])))
    assert "ours is better than scratch at 100% #0 (" in answer.sentence
    assert "ours is worse than scratch at 100% #other (" in answer.sentence


def test_more_seeds_are_counted_from_the_smaller_number_and_are_never_none() -> None:
    scratch, ours = np.array([40.0, 42.0]), np.array([40.0, 41.0, 42.0, 43.0, 44.0])
    table = effects(ratio_runs({"scratch": {100.0: scratch}, "ours": {100.0: ours}}))
    missing = int(np.ceil(table.set_index("row")["seeds_for_1"]["ours"])) - 2
    (answer,) = answers(table)
    assert f"about {missing} more seeds of each method" in answer.sentence
    for seeds in (1.0, 2.0):
        (answer,) = answers(table.assign(seeds_for_1=seeds))
        assert answer.sentence == "On task0, ours is not distinguishable from scratch."


def test_heads_distinguish_families_of_one_task() -> None:
    table = effects(pd.concat([runs_of({"scratch": np.full((2, 1), 50.0)}, budget=b) for b in ("b", "c")]))
    assert [f.head for f in task_families(table)] == ["task0 (b)", "task0 (c)", "task1 (b)", "task1 (c)"]


def test_the_mean_over_tasks_is_answered_with_holms_correction() -> None:
    (answer,) = answers_over_tasks(over_tasks(runs_of(planted_scores(3, 5, {"csc": 8.0}, shared=0.2))))
    assert answer.sentence.startswith("On the mean of 3 tasks at all labels (budget b), csc (+")
    assert answer.sentence.endswith(" differs from scratch.") and answer.comparisons.startswith(
        "5 comparisons, with Holm"
    )
