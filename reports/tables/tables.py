"""The comparison table of one group of runs; and rows, units and values as text, which all tables have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.analysis.frame import ROW, FailedPretraining
from pretrain_bench.reports.analysis.statistics import Estimate, estimate, flat, judge, seeds_needed

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "scratch"
LABELLED = "supervised"
METHOD_ORDER = ("scratch", "supervised", "pointcontrast", "csc", "depthcontrast", "ours")
ONE_POINT = 1.0
TO_SEE = "to see 1 point"
UNIT = "pretrain_seed"
"""The unit of inference of a pre-training effect; fine-tuning seeds of one pre-training are averaged first."""


def headline(runs: pd.DataFrame) -> str:
    """The checkpoint that these runs are judged by: one kind of number in one table. What failed has none to judge."""
    good = set(runs.loc[runs["outcome"] == "ok", "checkpoint"]) if len(runs) else set()
    return "selected" if good == {"selected"} else "final"


def applicable(method: str, pretrain_dataset: str, dataset: str) -> bool:
    """Whether a method so pre-trained may be fine-tuned on a dataset: what learns from labels not where the task has the same."""
    return method != LABELLED or pretrain_dataset != dataset


IN_ANOTHER_WAY = "other code or recipe"


def lost_rows(runs: pd.DataFrame, lost: Iterable[FailedPretraining]) -> dict[str, list[FailedPretraining]]:
    """Printed name of a row to its pre-trainings that failed and would have counted in this group of runs. It is the row that was
    pre-trained in the same way; where there is none, one of its own, unless the seed has a run since, after a repair say."""
    asked = sorted(lost, key=lambda one: (one.method, one.pretrain_dataset, one.seed, one.key))
    if not asked:
        return {}
    first, sources = runs.iloc[0], set(runs["pretrain_dataset"])
    rows: dict[tuple[str, str], dict[str, tuple[set[int], set[str]]]] = {}
    for row, mine in by_row(runs[["row", *ROW, UNIT, "pretrain_stages"]]).items():
        stages = {stage for several in set(mine["pretrain_stages"]) for stage in several}
        which = str(mine["method"].iloc[0]), str(mine["pretrain_dataset"].iloc[0])
        rows.setdefault(which, {})[row] = set(mine[UNIT]), stages
    found: dict[str, list[FailedPretraining]] = {}
    for one in asked:
        if (
            (one.budget, one.profile) != (first["budget"], first["profile"])
            # What reads no data belongs to both kinds, and real data may be pre-trained on for a task on a stand-in.
            or (one.synthetic not in (None, first["synthetic"]) and one.pretrain_dataset not in sources)
            or not applicable(one.method, one.pretrain_dataset, first["dataset"])
        ):
            continue
        alike = rows.get((one.method, one.pretrain_dataset), {})
        same_way = {row: seeds for row, (seeds, stages) in alike.items() if one.digest in stages}
        if same_way:
            names = [row for row, seeds in same_way.items() if one.seed not in seeds]
        elif any(one.seed in seeds for seeds, _ in alike.values()):
            names = []
        else:
            others = any(method == one.method and dataset != one.pretrain_dataset for method, dataset in rows)
            name = f"{one.method} ({one.pretrain_dataset})" if others else one.row
            names = [f"{name}, {IN_ANOTHER_WAY}" if alike else name]
        for name in names:
            if one.seed not in {other.seed for other in found.get(name, ())}:
                found.setdefault(name, []).append(one)
    return found


def failures(outcomes: Iterable[str], without_score: int, lost: int) -> str:
    """What of a row did not end well, in words: `2 crashed, 1 pre-training`; 0 where all did."""
    kinds = [f"{n} {outcome}" for outcome, n in Counter(o for o in outcomes if o != "ok").most_common()]
    if without_score:
        kinds.append(f"{without_score} without a score")
    if lost:
        kinds.append(f"{lost} pre-training{'s' * (lost > 1)}")
    return ", ".join(kinds) or "0"


def compare(runs: pd.DataFrame, metric: str = "score", lost: Iterable[FailedPretraining] = ()) -> pd.DataFrame:
    """One row a method: mean and interval in per cent for each checkpoint, n, failures, difference to scratch, verdict, and how
    many seeds of each method would show a difference of one point.

    `runs` is one group of `frame.GROUP`. `best` is selected on the test split, as papers do. A pre-training of `lost` is
    a failure of its row.
    """
    import pandas as pd

    judged = headline(runs)
    units = {c: per_unit(runs, f"{metric}_{c}") for c in ("selected", "final", "best")}
    base = [name for name, (method, *_) in row_names(runs).items() if method == BASELINE]
    lines = []
    missing = lost_rows(runs, lost)
    score = f"{metric}_{judged}"
    for name, mine in by_row(runs[["row", *ROW, "outcome", score]]).items():
        line: dict[str, object] = {"method": name, "pre-trained on": mine["pretrain_dataset"].iloc[0]}
        line |= {checkpoint: show(estimate(100 * values[name])) for checkpoint, values in units.items()}
        ours = 100 * units[judged][name]
        line["n"] = len(ours)
        empty = int(mine.loc[mine["outcome"] == "ok", score].isna().sum())
        line["failed"] = failures(mine["outcome"], empty, len(missing.pop(name, [])))
        line["to scratch"], line["verdict"], line[TO_SEE] = "-", "-", "-"
        # With two kinds of scratch in one group there is no single baseline to compare with.
        if len(base) == 1 and name != base[0] and len(ours) and len(units[judged][base[0]]):
            scratch = 100 * units[judged][base[0]]
            gap, words = judge(ours, scratch)
            line["to scratch"], line["verdict"] = show(gap, signed=True), words
            needed = seeds_to_see_a_point(ours, scratch)
            line[TO_SEE] = "-" if np.isnan(needed) else f"about {needed:.0f} seeds"
        lines.append(line)
    for name, never_run in missing.items():
        line = {"method": name, "pre-trained on": never_run[0].pretrain_dataset}
        line |= dict.fromkeys((*units, "to scratch", "verdict", TO_SEE), "-")
        lines.append({**line, "n": 0, "failed": failures((), 0, len(never_run))})
    return pd.DataFrame(lines)


def show_p(p: float) -> str:
    """A p value with three digits; a dash where there is none."""
    return "-" if not np.isfinite(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def pooled_deviation(one: np.ndarray, two: np.ndarray) -> float:
    """Standard deviation over seeds, of both methods together; NaN below two degrees of freedom and without any spread, of which
    nothing is known."""
    spread = [(len(v) - 1, 0.0 if flat(v) else v.var(ddof=1)) for v in (one, two) if len(v) > 1]
    total, squares = sum(n for n, _ in spread), sum(n * v for n, v in spread)
    return float(np.sqrt(squares / total)) if total > 1 and squares else float("nan")


def seeds_to_see_a_point(one: np.ndarray, two: np.ndarray) -> float:
    """How many seeds of each method find a difference of 1 point at 80 % power; NaN where that is not known, or too many."""
    deviation = pooled_deviation(one, two)
    return float(seeds_needed(deviation, ONE_POINT) or np.nan) if np.isfinite(deviation) else float("nan")


def row_names(runs: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Printed name to (method, pre-training dataset, hash of the pre-training), in table order."""
    found = runs[["row", *ROW]].drop_duplicates().itertuples(index=False, name=None)
    return {r[0]: r[1:] for r in sorted(found, key=lambda r: (_place(r[1]), r[1:]))}


def by_row(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each row, by its printed name and in table order."""
    parts = {name: part for name, part in runs.groupby("row", sort=False)}
    return {name: parts[name] for name in row_names(runs)}


def _place(method: str) -> tuple[int, str]:
    return (METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER), method)


def per_unit(runs: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """(n,) values of each row's good runs, one for each pre-training seed, by the row's printed name."""
    good = runs.loc[runs["outcome"] == "ok", ["row", UNIT, column]]
    means = good.groupby(["row", UNIT])[column].mean().dropna()
    found: dict[Any, np.ndarray] = {name: v.to_numpy() for name, v in means.groupby(level="row", sort=False)}
    return {name: found.get(name, np.array([])) for name in row_names(runs)}


def show(value: Estimate, signed: bool = False) -> str:
    """`12.3 [11.0, 13.6]`; without an interval where there is none; a dash where there is no value."""
    if value.n == 0:
        return "-"
    mean = f"{value.mean:+.1f}" if signed else f"{value.mean:.1f}"
    return mean if not np.isfinite(value.low) else f"{mean} [{value.low:.1f}, {value.high:.1f}]"
