"""How many seeds: what the spread of existing runs says about a study that is planned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.benchmarks.support.errors import WrongUse

if TYPE_CHECKING:
    import pandas as pd


class Power(NamedTuple):
    """Seeds that a difference needs: as numbers (`reports.analysis.seeds.seeds_for` explains the columns), and as text."""

    seeds: pd.DataFrame
    table: pd.DataFrame


def power(runs: Runs = "runs", effect: float = 1.0, tasks: Iterable[str] = ()) -> Power:
    """Pre-training seeds of each method and of scratch that find a true difference of `effect` points at 80 % power, with their
    cost, for every method, task, label ratio and protocol that has runs.

    Raises WrongUse for a store that does not exist, an effect that is not positive, or a task without runs.
    """
    from pretrain_bench.reports.analysis.frame import load
    from pretrain_bench.reports.analysis.seeds import seeds_for
    from pretrain_bench.reports.tables.power_table import power_table

    if not effect > 0:
        raise WrongUse(f"--effect {effect:g}: expected points above 0, such as 1")
    frame = load(open_runs(runs)).runs
    wanted = list(tasks)
    if missing := [task for task in wanted if task not in set(frame["task"])]:
        known = ", ".join(sorted(set(frame["task"]))) or "none"
        raise WrongUse(f"--task {missing[0]}: no runs of that task; there are runs of: {known}")
    seeds = seeds_for(frame, effect, wanted)
    return Power(seeds, power_table(seeds, effect))
