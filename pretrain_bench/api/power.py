"""The number of seeds that a planned study needs, from the spread of existing runs."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.api.planning import Plan
from pretrain_bench.api.stores import Runs, open_runs
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.benchmarks.support.errors import WrongUse

if TYPE_CHECKING:
    import pandas as pd


class Power(NamedTuple):
    """Seeds that a difference needs, one row for each method of each group of comparable runs."""

    seeds: pd.DataFrame
    """Numbers. Columns that name the group (as in `load_runs`) and `method`, then:

    - `n`: pre-training seeds that have run, of method or scratch, whichever has fewer; `finetune_seeds`: of each of them;
    - `deviation`: standard deviation of a pre-training with its fine-tunings, in points; `pre-training seed`,
      `fine-tuning seed` and `residual`: its parts, NaN without two seeds of both kinds;
    - `seeds`: pre-training seeds that each of the two needs; NaN if the spread is unknown or 1,000 are not enough;
    - `deviation_own`, `seeds_own`: the same if each pre-training has fine-tuning seeds of its own;
    - `could_show`: the difference that `n` seeds detect, in points;
    - `hours`: cost of `seeds` of both, in `hours_of`: GPU-hours or CPU-hours.
    """
    table: pd.DataFrame
    """The same as `bench power` prints it: rounded, as texts, in few columns."""


def power(runs: Runs = "runs", effect: float = 1.0, tasks: Names = ()) -> Power:
    """Pre-training seeds that each method and scratch need to detect a true difference of `effect` points at 80 % power, with
    their cost, for every method, task, label ratio and protocol that has runs.

    Raises WrongUse for a store that does not exist, an effect that is not positive, or a task without runs.
    """
    from pretrain_bench.reports.analysis.frame import load
    from pretrain_bench.reports.analysis.seeds import seeds_for
    from pretrain_bench.reports.tables.power_table import power_table

    if not (isinstance(effect, Real) and effect > 0):
        shown = f"{effect:g}" if isinstance(effect, Real) else repr(effect)
        raise WrongUse(f"--effect {shown}: expected points above 0, such as 1")
    frame = load(open_runs(runs)).runs
    wanted = as_list(tasks)
    if missing := [task for task in wanted if task not in set(frame["task"])]:
        known = ", ".join(sorted(set(frame["task"]))) or "none"
        raise WrongUse(f"--task {missing[0]}: no runs of that task; there are runs of: {known}")
    seeds = seeds_for(frame, effect, wanted)
    return Power(seeds, power_table(seeds))


def power_of_plan(plan: Plan, runs: Runs = "runs", effect: float = 1.0) -> list[str]:
    """The smallest difference that a planned suite's seeds can show, at the spread of a store's runs: one line for each
    task, ratio and protocol that has runs."""
    store = open_runs(runs)
    if not any((store.root / "finetune").glob("*")):
        return []
    from pretrain_bench.reports.analysis.frame import load
    from pretrain_bench.reports.analysis.power import detectable_difference
    from pretrain_bench.reports.analysis.seeds import seeds_for
    from pretrain_bench.reports.analysis.variance import have_own_seeds

    cells = [c.cell for c in plan.cells if c.stages] + [w.cell for w in plan.waiting]
    planned = {(c.task, str(c.label_ratio), c.protocol) for c in cells}
    frame = load(store).runs
    frame = frame[(frame["budget"] == plan.budget.name) & (frame["profile"] == plan.profile.name)]
    seeds = seeds_for(frame, effect, {task for task, _, _ in planned})
    n, lines = len({c.pretrain_seed for c in cells}), []
    if len(seeds) and have_own_seeds((c.pretrain_seed, c.finetune_seed) for c in cells if c.protocol != "linear"):
        own = seeds["deviation_own"].notna()
        seeds = seeds.assign(
            deviation=seeds["deviation_own"].where(own, seeds["deviation"]),
            seeds=seeds["seeds_own"].where(own, seeds["seeds"]),
        )
    for names, rows in seeds.groupby(["task", "label_ratio", "protocol"], sort=False) if len(seeds) else []:
        known = rows[rows["deviation"].notna()]
        if names not in planned or not len(known):
            continue
        shown = [detectable_difference(deviation, n) for deviation in known["deviation"]]
        needed = [known["seeds"].min(), known["seeds"].max(skipna=False)]
        words = [f"{seeds:,.0f}" if seeds == seeds else "more than 1,000" for seeds in needed]
        differences = "no difference" if n < 2 else f"differences of {min(shown):.1f} to {max(shown):.1f} points"
        lines.append(
            f"{names[0]} at {names[1]}, {names[2]}: {n} pre-training seeds find {differences} (80 % power, by method); "
            f"{effect:g} point needs {' to '.join(dict.fromkeys(words))} seeds of each"
        )
    return lines
