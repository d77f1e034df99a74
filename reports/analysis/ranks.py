"""Methods over all tasks: mean gains over scratch, and ranks where a test supports them.

One pre-training serves all tasks, so tasks are not independent units: the unit is the pre-training seed, whose scores are
averaged over tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis.columns import GROUP, ROW, UNIT
from pretrain_bench.reports.analysis.failed_pretraining import FailedPretraining, failed_by_row
from pretrain_bench.reports.analysis.rows import baseline_rows, by_row, row_names
from pretrain_bench.reports.analysis.scores import headline_checkpoint
from pretrain_bench.reports.analysis.statistics import (
    Estimate,
    Ranking,
    difference,
    holm,
    ranking,
    verdict,
    welch_p,
    words_for,
)
from pretrain_bench.reports.analysis.titles import protocol_mark

if TYPE_CHECKING:
    import pandas as pd


UNDER = ["protocol", "budget", "profile"]
"""Runs over several tasks are combined only if these are equal."""


class TaskGain(NamedTuple):
    """One row over at least two tasks that it shares with scratch: gain in points, p value, and p with Holm's correction."""

    tasks: int
    seeds: int
    """Pre-training seeds of the row that have all shared tasks."""
    gain: Estimate | None = None
    p: float = float("nan")
    adjusted_p: float | None = None

    @property
    def verdict(self) -> str:
        """The verdict of the corrected p value, or the reason why there is none."""
        if self.gain is None or self.adjusted_p is None:
            return "-"
        return words_for(self.adjusted_p) if np.isfinite(self.adjusted_p) else verdict(self.gain)


class Failures(NamedTuple):
    """Failures of one row: outcomes of its runs, the number without a score, and the number of failed pre-trainings."""

    outcomes: list[str]
    without_score: int
    pretrainings: int


class OverTasks(NamedTuple):
    """One protocol, budget and profile with all labels, over its tasks. Ranks belong to `ranked`, the rows with all tasks, in
    order; None if rows or seeds are too few."""

    protocol: str
    budget: str
    profile: str
    title: str
    tasks: int
    gains: dict[str, TaskGain]
    failures: dict[str, Failures]
    ranked: list[str]
    ranks: Ranking | None

    @property
    def supported_ranks(self) -> dict[str, float]:
        """Mean rank of each ranked row, 1 the best; empty where Friedman's test does not support a ranking."""
        if self.ranks is None or self.ranks.critical_difference is None:
            return {}
        return dict(zip(self.ranked, map(float, self.ranks.mean_ranks), strict=True))


def over_tasks(runs: pd.DataFrame, failed_pretrainings: Iterable[FailedPretraining] = ()) -> list[OverTasks]:
    """For each protocol, budget and profile with at least two tasks with all labels: every row's mean over them against
    scratch's.

    Uses Welch's test of seed means, with Holm's correction for the number of rows. A budget under which a task was run under two
    conditions (recipe, data or code) is excluded, since neither condition takes precedence.
    """
    full = runs[runs["label_ratio"] == "100%"] if len(runs) else runs
    failed, results = list(failed_pretrainings), []
    for (protocol, budget, profile), part in full.groupby(UNDER, sort=True) if len(full) else []:
        groups = [group for _, group in part.groupby(GROUP, dropna=False)]
        tasks = len(part[["task", "dataset"]].drop_duplicates())
        if tasks < 2 or tasks < len(groups):
            continue
        kinds = {headline_checkpoint(group) for group in groups if (group["outcome"] == "ok").any()} or {"final"}
        title = (
            f"Over all tasks, all labels, budget {budget}, profile {profile}, {' or '.join(sorted(kinds))} checkpoint"
            + protocol_mark(protocol)
        )
        results.append(_over_tasks_of_budget(title, part, groups, failed))
    return results


def heads_over_tasks(tables: Sequence[OverTasks]) -> list[str]:
    """What tells each of these from the others: budget and profile, if they differ, and a protocol other than fine-tuning."""
    several = len({(over.budget, over.profile) for over in tables}) > 1
    heads = []
    for over in tables:
        budget = f"budget {over.budget}, profile {over.profile}" if several else ""
        heads.append((budget + protocol_mark(over.protocol)).removeprefix(", "))
    return heads


def _over_tasks_of_budget(
    title: str, runs: pd.DataFrame, groups: Sequence[pd.DataFrame], failed: list[FailedPretraining]
) -> OverTasks:
    import pandas as pd

    tasks = len(groups)
    scores = _scores_by_seed(runs)
    base = baseline_rows(runs)
    gains = _gains(base[0], scores) if len(base) == 1 else {}
    complete = [name for name, mine in scores.items() if len(mine.columns) == tasks]
    means = pd.DataFrame({name: scores[name].dropna().mean(axis=1) for name in complete}).dropna()
    failures = _failures(runs, groups, failed)
    for name in failures:
        mine = scores.get(name, pd.DataFrame())
        gains.setdefault(name, TaskGain(len(mine.columns), len(mine.dropna())))
    protocol, budget, profile = map(str, runs[UNDER].iloc[0])
    return OverTasks(protocol, budget, profile, title, tasks, gains, failures, complete, ranking(means.to_numpy()))


def _scores_by_seed(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Printed row name to scores (pre-training seeds, tasks) of its successful runs, mean over fine-tuning seeds.

    A task without any has no column. A row stands for the same pre-training at every task.
    """
    import pandas as pd

    columns: dict[str, dict[object, pd.Series]] = {name: {} for name in row_names(runs)}
    for group, part in runs.groupby(GROUP, dropna=False):
        for name, mine in part[part["outcome"] == "ok"].groupby("row"):
            means = mine.groupby(UNIT)[f"score_{headline_checkpoint(part)}"].mean().dropna()
            if len(means):
                columns[str(name)][group] = means
    return {name: pd.DataFrame(tasks) for name, tasks in columns.items()}


def _gains(base: str, scores: Mapping[str, pd.DataFrame]) -> dict[str, TaskGain]:
    """Every row but `base` against it, on the tasks that both have; `scores` as from `_scores_by_seed`."""
    gains = {}
    for name, mine in scores.items():
        if name == base:
            continue
        shared = [task for task in mine if task in scores[base]]
        ours, theirs = (100 * s[shared].dropna().mean(axis=1).to_numpy() for s in (mine, scores[base]))
        enough = len(shared) > 1 and len(ours) and len(theirs)
        tested = (difference(ours, theirs), welch_p(ours, theirs)) if enough else ()
        gains[name] = TaskGain(len(shared), len(ours) if shared else 0, *tested)
    tested_rows = [name for name, gain in gains.items() if gain.gain is not None]
    adjusted = holm(np.array([gains[name].p for name in tested_rows]))
    for name, p in zip(tested_rows, adjusted, strict=True):
        gains[name] = gains[name]._replace(adjusted_p=float(p))
    return gains


def _failures(
    runs: pd.DataFrame, groups: Sequence[pd.DataFrame], failed: list[FailedPretraining]
) -> dict[str, Failures]:
    """Failures of each row in table order, rows of which every pre-training failed last."""
    import pandas as pd

    seeds: dict[str, set[int]] = {}
    for group in groups:
        for name, pretrainings in failed_by_row(group, failed).items():
            seeds.setdefault(name, set()).update(one.seed for one in pretrainings)
    scored = pd.concat([group[f"score_{headline_checkpoint(group)}"].notna() for group in groups])
    failures = {}
    for name, mine in by_row(runs[["row", *ROW, "outcome"]].assign(scored=scored)).items():
        without_score = int(((mine["outcome"] == "ok") & ~mine["scored"]).sum())
        failures[name] = Failures(list(mine["outcome"]), without_score, len(seeds.get(name, ())))
    return failures | {name: Failures([], 0, len(own)) for name, own in seeds.items() if name not in failures}
