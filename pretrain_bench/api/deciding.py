"""Runs of a suite that stop once every method is decided, by a group-sequential rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.api.display import Display, default_display
from pretrain_bench.api.running import RunResult, run
from pretrain_bench.api.stores import AnyPath, Runs, open_runs
from pretrain_bench.api.suites import Names, as_list
from pretrain_bench.api.suites import suite as find_suite
from pretrain_bench.benchmarks.specs.suite import Suite, parse_filters
from pretrain_bench.benchmarks.support.errors import WrongUse

if TYPE_CHECKING:
    from pretrain_bench.reports.analysis.sequential import Rule

Comparison = tuple[str, str]
"""A group of runs, and a row that is compared with scratch there."""


class Look(NamedTuple):
    """One look at the results: the number of pre-training seeds so far, the level, and p of each comparison that was still open,
    NaN where it cannot be tested."""

    number: int
    looks: int
    seeds: int
    level: float
    p: dict[Comparison, float]

    @property
    def decided(self) -> list[Comparison]:
        """The comparisons that this look decides."""
        return [which for which, p in self.p.items() if p <= self.level]

    @property
    def open(self) -> list[Comparison]:
        """Those that stay open."""
        return [which for which in self.p if which not in self.decided]

    def __str__(self) -> str:
        named = "".join(f"; {row}: {group}, p {self.p[group, row]:.4f}" for group, row in self.decided)
        return (
            f"look {self.number} of {self.looks}, {self.seeds} pre-training seeds, level {self.level:.4f}: {len(self.decided)} "
            f"of {len(self.p)} comparisons with scratch decided{named}"
        )


def run_until_decided(
    cells: Suite | AnyPath,
    rule: Rule,
    *,
    runs: Runs = "runs",
    only: Names = (),
    display: Display | None = None,
    **options: Any,
) -> tuple[RunResult, list[Look]]:
    """Run a suite two pre-training seeds at a time, and stop once every method differs from scratch in every group, or all are
    run. `rule`: `pocock` or `obrien-fleming`, which keep the error of each comparison over all looks at 5 %; errors of several
    comparisons add up as usual. `options` as for `run`.

    Raises WrongUse as `run`, without scratch, and for a number of seeds that gives no looks.
    """
    from pretrain_bench.reports.analysis.method_cards import BASELINE
    from pretrain_bench.reports.analysis.sequential import SEEDS_A_LOOK, levels, looks_for

    planned = cells if isinstance(cells, Suite) else find_suite(cells)
    if BASELINE not in planned.methods:
        raise WrongUse(f"--stop-when-decided: suite {planned.name!r} has no {BASELINE}, which decisions are about")
    picks, display = as_list(only), display or default_display()
    filters = [f for f in parse_filters(picks) if f.axis == "pretrain_seed"]
    seeds = tuple(s for s in planned.pretrain_seeds if all(f.matches(s) for f in filters))
    looks = looks_for(len(seeds))
    decided: set[Comparison] = set()
    taken: list[Look] = []
    for number, level in enumerate(levels(rule, looks), 1):
        part = planned.model_copy(update={"pretrain_seeds": seeds[: number * SEEDS_A_LOOK]})
        result = run(part, runs=runs, only=picks, display=display, **options)
        options = (
            {**options, "retry": "infra"} if options.get("retry") == "failed" else options
        )  # once, not at every look
        values = _p_values(runs, {stage.record.key for stage in result.stages})
        still = {which: p for which, p in values.items() if which not in decided}
        taken.append(Look(number, looks, number * SEEDS_A_LOOK, level, still))
        display.say(str(taken[-1]))
        decided |= set(taken[-1].decided)
        if still and not taken[-1].open:
            break
    return result, taken


def _p_values(runs: Runs, keys: set[str]) -> dict[Comparison, float]:
    """Welch's p of every row of every group against scratch, over the runs of these keys."""
    from pretrain_bench.reports.analysis.columns import GROUP
    from pretrain_bench.reports.analysis.frame import load
    from pretrain_bench.reports.analysis.rows import baseline_rows
    from pretrain_bench.reports.analysis.scores import headline_checkpoint, per_unit
    from pretrain_bench.reports.analysis.statistics import welch_p
    from pretrain_bench.reports.analysis.titles import group_title

    frame = load(open_runs(runs), keys).runs
    found: dict[Comparison, float] = {}
    for names, group in frame.groupby(GROUP) if len(frame) else []:
        units, base = per_unit(group, f"score_{headline_checkpoint(group)}"), baseline_rows(group)
        title = group_title(dict(zip(GROUP, names, strict=True)))
        for row, values in units.items():
            if len(base) == 1 and row != base[0]:
                found[title, row] = welch_p(values, units[base[0]])
    return found
