"""Tables across groups: effects of every method at every task and ratio, Table I, label ratios, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.frame import ACROSS_RATIOS, GROUP, NO_DATASET, ROW, Curve, FailedPretraining
from pretrain_bench.reports.analysis.statistics import (
    Estimate,
    Ranking,
    detectable_difference,
    difference,
    estimate,
    holm,
    interquartile_mean,
    judge,
    probability_of_improvement,
    ranking,
    variance_components,
    verdict,
    welch_p,
    words_for,
)
from pretrain_bench.reports.tables.tables import (
    BASELINE,
    LABELLED,
    METHOD_ORDER,
    UNIT,
    applicable,
    by_row,
    failures,
    headline,
    lost_rows,
    per_unit,
    pooled_deviation,
    row_names,
    seeds_to_see_a_point,
    show,
    show_p,
)

if TYPE_CHECKING:
    import pandas as pd

Points = Sequence[tuple[float, float]]

MULTI_SCAN, SINGLE_SCAN = ("pointcontrast", "csc"), ("depthcontrast", "ours")
PUBLISHED_ON = "scannet"
"""What the methods of Table I were pre-trained on."""
SAME, OTHER = "the task's dataset", "another dataset"


def effects(runs: pd.DataFrame, lost: Iterable[FailedPretraining] = ()) -> pd.DataFrame:
    """One row for each method in each group: mean and interval, difference to scratch and interval, verdict, all in per cent.

    `failed` counts its runs that did not end well or have no score, `lost_pretrainings` those of `lost`.

    `could_show` is the smallest difference that so many seeds find at 80 % power, `seeds_for_1` how many would find 1 point.
    """
    import pandas as pd

    rows = []
    for names, group in runs.groupby(GROUP, sort=True, dropna=False) if len(runs) else []:
        column = f"score_{headline(group)}"
        parts = by_row(group[["row", *ROW, "outcome", "family", "label_percent", column]])
        values = {name: 100 * means for name, means in per_unit(group, column).items()}
        found = row_names(group)
        base = [name for name, which in found.items() if which[0] == BASELINE]
        scratch = values[base[0]] if len(base) == 1 else np.array([])
        missing = lost_rows(group, lost)
        for name, which in found.items():
            mine, units = parts[name], values[name]
            never_ran = len(missing.pop(name, []))
            value, gap, words = estimate(units), Estimate(np.nan, np.nan, np.nan, 0), "-"
            if which[0] != BASELINE and len(scratch) and len(units):
                gap, words = judge(units, scratch)
            deviation = pooled_deviation(units, scratch)
            rows.append(
                {
                    **dict(zip(GROUP, names, strict=True)),
                    "family": mine["family"].iloc[0],
                    "label_percent": mine["label_percent"].iloc[0],
                    "row": name,
                    "method": which[0],
                    "pretrain_dataset": which[1],
                    "checkpoint": headline(group),
                    "n": value.n,
                    "runs": len(mine),
                    "failed": int(((mine["outcome"] != "ok") | mine[column].isna()).sum()),
                    "lost_pretrainings": never_ran,
                    "mean": value.mean,
                    "iqm": interquartile_mean(units),
                    "low": value.low,
                    "high": value.high,
                    "gain": gap.mean,
                    "gain_low": gap.low,
                    "gain_high": gap.high,
                    "verdict": words,
                    # Of one run against one it is 0 or 1, which says nothing.
                    "probability_of_improvement": probability_of_improvement(units, scratch)
                    if which[0] != BASELINE and min(len(units), len(scratch)) > 1
                    else np.nan,
                    "could_show": detectable_difference(deviation, min(len(units), len(scratch)))
                    if np.isfinite(deviation) and which[0] != BASELINE
                    else np.nan,
                    "seeds_for_1": seeds_to_see_a_point(units, scratch) if which[0] != BASELINE else np.nan,
                }
            )
        for name, never in missing.items():  # what such a row lacks is NaN
            first = group.iloc[0]
            rows.append(
                {
                    **dict(zip(GROUP, names, strict=True)),
                    "family": first["family"],
                    "label_percent": first["label_percent"],
                    "row": name,
                    "method": never[0].method,
                    "pretrain_dataset": never[0].pretrain_dataset,
                    "checkpoint": headline(group),
                    "n": 0,
                    "runs": 0,
                    "failed": 0,
                    "lost_pretrainings": len(never),
                    "verdict": "-",
                }
            )
    return pd.DataFrame(rows)


def table_one(found: pd.DataFrame, with_published: bool) -> pd.DataFrame:
    """Methods by tasks at all labels: `66.5 ±1.2 (+1.4 [0.2, 2.6] better) n=3`, the paper's number in brackets where it is asked
    for.

    One column for each task, dataset, budget and profile, which names the checkpoint.
    """
    import pandas as pd

    all_labels = found[found["label_ratio"] == "100%"]
    columns: dict[str, dict[str, str]] = {}
    datasets: dict[str, str] = {}
    for (task, dataset, budget, profile, protocol, checkpoint), group in all_labels.groupby(
        ["task", "dataset", "budget", "profile", "protocol", "checkpoint"], sort=True
    ):
        title = f"{task} ({dataset}, {budget if profile == budget else f'{budget}, {profile}'}, {checkpoint})"
        if title in columns:
            title = f"{title} #{protocol}"
        columns[title] = {}
        for r in group.to_dict("records"):
            known = published.of(str(task), str(r["method"])) if _beside(r, with_published) else None
            columns[title][str(r["row"])] = _cell(r, known.value if known else None, whole=True)
        datasets[title] = str(dataset)
    rows = []
    for r in all_labels.sort_values("method", key=in_order).drop_duplicates("row").to_dict("records"):
        empty = {t: absent(r["method"], r["pretrain_dataset"], dataset) for t, dataset in datasets.items()}
        cells = {t: cells.get(r["row"], empty[t]) for t, cells in columns.items()}
        rows.append({"group": _group_of(str(r["method"])), "method": str(r["row"]), **cells})
    return pd.DataFrame(rows)


def absent(method: str, pretrain_dataset: str, dataset: str) -> str:
    """What stands in a cell without runs."""
    return "not run" if applicable(method, pretrain_dataset, dataset) else "not applicable"


def in_order(methods: pd.Series) -> pd.Series:
    """Places of methods in a table, to sort by: baselines, then multi-scan, then single-scan, then others."""
    places = {m: i for i, m in enumerate(METHOD_ORDER)}
    return methods.map(lambda m: places.get(m, len(places)))


def in_any_order(column: pd.Series) -> pd.Series:
    """Sort keys of a column: of `method` and `label_ratio` their places, of any other its values."""
    if column.name == "method":
        return in_order(column)
    return column.map(ratio_order) if column.name == "label_ratio" else column


def _group_of(method: str) -> str:
    for group, methods in (
        ("baseline", (BASELINE, LABELLED)),
        ("multi-scan", MULTI_SCAN),
        ("single-scan", SINGLE_SCAN),
    ):
        if method in methods:
            return group
    return "other"


def _cell(r: dict[Any, Any], paper: float | None, whole: bool = False) -> str:
    """`paper`: the published number of just this cell; `whole`: with the interval of the difference to scratch, and what may be
    said of it."""
    text = f"{r['mean']:.1f}" if r["n"] else ""
    if r["n"] and np.isfinite(r["low"]):
        text += f" ±{(r['high'] - r['low']) / 2:.1f}"
    if r["n"] and np.isfinite(r["gain"]):
        text += f" ({_gap(r) if whole else format(r['gain'], '+.1f')})"
    if r["n"]:
        text += f" n={r['n']}"
    text = ", ".join(part for part in (text, what_failed(r)) if part)
    return text if paper is None else f"{text} [paper {paper:.1f}]"


def what_failed(r: dict[Any, Any]) -> str:
    """Of a row of effects, in words; empty where all ended well."""
    lost = int(r["lost_pretrainings"])
    parts = [f"{r['failed']} of {r['runs']} failed"] if r["failed"] else []
    return ", ".join([*parts, *([f"{lost} pre-training{'s' * (lost > 1)} failed"] if lost else [])])


def _beside(r: dict[Any, Any], with_published: bool) -> bool:
    """Whether a published number may stand in this cell: real data, or asked for, and pre-trained as the paper's methods."""
    return (with_published or not r["synthetic"]) and as_published(str(r["pretrain_dataset"]))


def as_published(pretrain_dataset: str) -> bool:
    """Whether this is what the paper's methods were pre-trained on, or nothing, as its scratch."""
    return _plain(pretrain_dataset) in (NO_DATASET, PUBLISHED_ON)


def methods_as_published(found: pd.DataFrame) -> list[str]:
    """The methods of these runs or effects that were pre-trained as the paper's, so that its numbers may stand beside them."""
    alike = found["pretrain_dataset"].map(lambda dataset: as_published(str(dataset)))
    return list(dict.fromkeys(map(str, found.loc[alike, "method"])))


def published_beside(found: pd.DataFrame, curve: Callable[[str], Points]) -> dict[str, Points]:
    """What the paper has of these methods, by method; `curve` gives its points, which may be none."""
    return {method: points for method in methods_as_published(found) if (points := curve(method))}


def _gap(r: dict[Any, Any]) -> str:
    gap = show(Estimate(r["gain"], r["gain_low"], r["gain_high"], r["n"]), signed=True)
    return gap if r["verdict"].startswith("cannot be tested") else f"{gap} {r['verdict']}"


class Family(NamedTuple):
    """Effects of one task under one budget and profile at two label ratios or more, and how tables and figures title them."""

    described: dict[str, Any]
    title: str
    found: pd.DataFrame


def families(found: pd.DataFrame) -> list[Family]:
    """In the order that numbers the tables and figures of label ratios."""
    several: list[Family] = []
    for names, group in found.groupby(ACROSS_RATIOS, sort=True, dropna=False) if len(found) else []:
        if group["label_ratio"].nunique() < 2:
            continue
        described = dict(zip(ACROSS_RATIOS, names, strict=True))
        title = (
            f"{described['task']} on {described['dataset']}, budget {described['budget']}, profile {described['profile']}, "
            f"{group['checkpoint'].iloc[0]} checkpoint"
        )
        if title in {family.title for family in several}:
            title += f" #{described['family']}"
        several.append(Family(described, title, group))
    return several


def by_ratio(family: Family, with_published: bool = False) -> pd.DataFrame:
    """Methods by label ratio: mean, gain and n, and Figure 3's number of just this ratio in brackets where it is asked for."""
    import pandas as pd

    group = family.found
    ratios = sorted(group["label_ratio"].unique(), key=ratio_order)
    cells = {}
    for r in group.to_dict("records"):
        curve = dict(published.ratio_curve(str(r["task"]), str(r["method"]))) if _beside(r, with_published) else {}
        cells[str(r["row"]), r["label_ratio"]] = _cell(r, curve.get(r["label_percent"]))
    order = list(dict.fromkeys(map(str, group.sort_values("method", key=in_order)["row"])))
    return pd.DataFrame(
        [{"method": name, **{ratio: cells.get((name, ratio), "not run") for ratio in ratios}} for name in order]
    )


def ratio_order(text: str) -> tuple[bool, float]:
    """Shares by their size, then limited labels by their number."""
    number = float("".join(c for c in text if c.isdigit() or c == "."))
    return not text.endswith("%"), number


def same_or_other(found: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over scratch where a method was pre-trained on the task's own dataset, and where on another (paper V-A), for each
    budget and profile. A cell that was run under two protocols is one cell, and which gain counts is not ours to say."""
    import pandas as pd

    cell = ["row", "budget", "profile", "task", "dataset", "label_ratio"]
    twice = found.duplicated(cell, keep=False)
    known = with_source(found.assign(twice=twice))
    tried = known.assign(gain=known["gain"].mask(known["twice"])).drop_duplicates(cell)
    if not known["gain"].notna().any():
        tried = tried[:0]
    tried = tried.sort_values(["row", "pre-trained on", "budget", "profile"])
    tried = tried.sort_values("method", key=in_order, kind="stable")
    columns = ["method", "pre-trained on", "budget", "profile", "gain", "cells"]
    rows = [
        {
            **dict(zip(columns, names, strict=False)),
            "gain": f"{group['gain'].mean():+.1f}" if group["gain"].notna().any() else "-",
            "cells": f"{group['gain'].notna().sum()} of {len(group)}"
            + f", {group['twice'].sum()} under two protocols" * bool(group["twice"].any()),
        }
        for names, group in tried.groupby(["row", *columns[1:4]], sort=False)
    ]
    return pd.DataFrame(rows, columns=columns)


def with_source(found: pd.DataFrame) -> pd.DataFrame:
    """Effects of what was pre-trained on data, and `pre-trained on`: the task's dataset (or its stand-in), or another."""
    known = found[found["pretrain_dataset"] != NO_DATASET]
    same = [_plain(a) == _plain(b) for a, b in zip(known["pretrain_dataset"], known["dataset"], strict=True)]
    return known.assign(**{"pre-trained on": np.where(same, SAME, OTHER)})


def _plain(dataset: str) -> str:
    return dataset.removeprefix("synth-").replace("semantic", "")


class AcrossTasks(NamedTuple):
    """One table, and the ranks behind it with their methods; None where tasks or methods are too few."""

    table: pd.DataFrame
    methods: list[str]
    ranks: Ranking | None


def across_tasks(runs: pd.DataFrame, lost: Iterable[FailedPretraining] = ()) -> dict[str, AcrossTasks]:
    """For all labels and every budget with two tasks or more: each method's mean over the tasks against scratch's, and ranks.

    One pre-training serves all tasks, so tasks are no independent units: the unit is the pre-training seed, whose scores are
    averaged over the tasks that both methods have, two at least; `tasks` and `seeds` count those. Welch's test of these means,
    corrected by Holm for the number of methods. Ranks are over seeds, of methods that have all tasks, and stand only where
    Friedman's test supports them. Where a task was run under two protocols there is no table.
    """
    import pandas as pd

    tables = {}
    full = runs[runs["label_ratio"] == "100%"] if len(runs) else runs
    for (budget, profile), part in full.groupby(["budget", "profile"], sort=True) if len(full) else []:
        scores = _by_seed(part)
        groups = [group for _, group in part.groupby(GROUP, dropna=False)]
        tasks = len(part[["task", "dataset"]].drop_duplicates())
        # A task that was run under two protocols is no two tasks, and which one counts is not ours to say.
        if tasks < 2 or tasks < len(groups):
            continue
        base = [name for name, (method, *_) in row_names(part).items() if method == BASELINE]
        against = _against(base[0], scores) if len(base) == 1 else {}
        tested = {name: found for name, found in against.items() if found.gap is not None}
        adjusted = dict(zip(tested, holm(np.array([found.p for found in tested.values()])), strict=True))
        complete = [name for name, mine in scores.items() if len(mine.columns) == tasks]
        means = pd.DataFrame({name: scores[name].dropna().mean(axis=1) for name in complete}).dropna()
        ranks = ranking(means.to_numpy())
        supported = ranks is not None and ranks.critical_difference is not None
        missing: dict[str, set[int]] = {}
        for group in groups:
            for name, never_run in lost_rows(group, lost).items():
                missing.setdefault(name, set()).update(one.seed for one in never_run)
        parts = by_row(part[["row", *ROW, "outcome"]].assign(known=_known(groups)))
        rows = []
        for name in [*scores, *(n for n in missing if n not in scores)]:
            mine = scores.get(name, pd.DataFrame())
            found = against.get(name, Gap(len(mine.columns), len(mine.dropna())))
            rows.append(
                {
                    "method": name,
                    "tasks": f"{found.tasks} of {tasks}",
                    "seeds": found.seeds,
                    "failed": _failures(parts.get(name), len(missing.get(name, ()))),
                    "mean gain": show(found.gap, signed=True) if found.gap else "-",
                    "p (Holm)": show_p(adjusted[name]) if name in adjusted else "-",
                    "verdict": _words(found.gap, adjusted[name]) if found.gap else "-",
                    "mean rank": f"{ranks.mean_ranks[complete.index(name)]:.1f}"
                    if ranks and supported and name in complete
                    else "-",
                }
            )
        judged = " or ".join(
            sorted({headline(group) for group in groups if (group["outcome"] == "ok").any()}) or ["final"]
        )
        title = f"Over all tasks, all labels, budget {budget}, profile {profile}, {judged} checkpoint"
        tables[title] = AcrossTasks(pd.DataFrame(rows), complete, ranks)
    return tables


def _words(gap: Estimate, p: float) -> str:
    """What a difference over tasks shows, by its corrected p value where there is one."""
    return words_for(p) if np.isfinite(p) else verdict(gap)


class Gap(NamedTuple):
    """How many tasks a method shares with scratch, how many of its seeds have them all, and what that shows, if there are two."""

    tasks: int
    seeds: int
    gap: Estimate | None = None
    p: float = float("nan")


def _against(base: str, scores: Mapping[str, pd.DataFrame]) -> dict[str, Gap]:
    """Every row but `base`, on the tasks that both have; `scores` as `_by_seed` gives them."""
    found = {}
    for name, mine in scores.items():
        if name == base:
            continue
        shared = [task for task in mine if task in scores[base]]
        ours, theirs = (100 * s[shared].dropna().mean(axis=1).to_numpy() for s in (mine, scores[base]))
        enough = len(shared) > 1 and len(ours) and len(theirs)
        shown = (difference(ours, theirs), welch_p(ours, theirs)) if enough else ()
        found[name] = Gap(len(shared), len(ours) if shared else 0, *shown)
    return found


def _known(groups: Sequence[pd.DataFrame]) -> pd.Series:
    """Whether a run has a score of the checkpoint that its group is judged by."""
    import pandas as pd

    return pd.concat([group[f"score_{headline(group)}"].notna() for group in groups])


def _failures(mine: pd.DataFrame | None, lost: int) -> str:
    if mine is None:
        return failures((), 0, lost)
    return failures(mine["outcome"], int(((mine["outcome"] == "ok") & ~mine["known"]).sum()), lost)


def _by_seed(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Printed name to scores (pre-training seeds, tasks) of its good runs, mean over fine-tuning seeds; a task without any has no
    column. A row is the same pre-training at every task."""
    import pandas as pd

    columns: dict[str, dict[object, pd.Series]] = {name: {} for name in row_names(runs)}
    for group, part in runs.groupby(GROUP, dropna=False):
        for name, mine in part[part["outcome"] == "ok"].groupby("row"):
            means = mine.groupby(UNIT)[f"score_{headline(part)}"].mean().dropna()
            if len(means):
                columns[str(name)][group] = means
    return {name: pd.DataFrame(found) for name, found in columns.items()}


def cost(runs: pd.DataFrame) -> pd.DataFrame:
    """What each row used, mean over its runs that ended well: of one pre-training + of one fine-tuning. Amortised: of a
    fine-tuning with its share of the pre-training, which several share. `tasks`, where there are several: a row that lacks one
    is the mean of others."""
    import pandas as pd

    rows = []
    good = runs[runs["outcome"] == "ok"].sort_values(["budget", "profile", "row"]) if len(runs) else runs
    good = good.sort_values("method", key=in_order, kind="stable")
    which = ["budget", "profile", "row", "pretrain_dataset"]
    tasks = good[["budget", "profile", "task", "dataset"]].drop_duplicates().value_counts(["budget", "profile"])
    for (budget, profile, row, dataset), group in good.groupby(which, sort=False) if len(good) else []:
        pretrainings = group.drop_duplicates("pretrain_keys")
        rows.append(
            {
                "method": row,
                "pre-trained on": dataset,
                "budget": budget if profile == budget else f"{budget}, {profile}",
                "runs": len(group),
                **_tasks_of(group, tasks),
                "steps": f"{pretrainings['pretrain_steps'].mean():,.0f} + {group['finetune_steps'].mean():,.0f}",
                **_hours(pretrainings, group, "cpu"),
                **_gpu(pretrainings, group),
                "labels": f"{pretrainings['pretrain_labels'].mean():,.0f} + {group['finetune_labels'].mean():,.0f}",
                "peak MiB": f"{group['peak_memory_mib'].max():,.0f}",
            }
        )
    return pd.DataFrame(rows)


def _tasks_of(group: pd.DataFrame, tasks: pd.Series) -> dict[str, str]:
    """How many of the tasks under its budget and profile a row has; nothing where no budget has two."""
    if tasks.max() < 2:
        return {}
    first = group.iloc[0]
    return {
        "tasks": f"{len(group[['task', 'dataset']].drop_duplicates())} of {tasks[first['budget'], first['profile']]}"
    }


def _gpu(pretrainings: pd.DataFrame, group: pd.DataFrame) -> dict[str, str]:
    """Hours and energy of GPUs. Where some runs, or their pre-trainings, used one and others none, a mean would be of neither."""
    found = _hours(pretrainings, group, "gpu")
    found["GPU Wh"] = _watt_hours(pretrainings["pretrain_gpu_joules"], group["finetune_gpu_joules"])
    mixed = any((group[f"{stage}_gpu_seconds"] > 0).nunique() > 1 for stage in ("pretrain", "finetune"))
    return dict.fromkeys(found, "not all on a GPU") if mixed else found


def _hours(pretrainings: pd.DataFrame, group: pd.DataFrame, kind: str) -> dict[str, str]:
    before, after = (
        r[f"{stage}_{kind}_seconds"] / 3600 for stage, r in (("pretrain", pretrainings), ("finetune", group))
    )
    name = f"{kind.upper()}-hours"
    if not before.sum() + after.sum():  # no GPU, say
        return {name: "-", f"{name} amortised": "-"}
    return {
        name: f"{before.mean():.3f} + {after.mean():.3f}",
        f"{name} amortised": f"{before.sum() / len(group) + after.mean():.3f}",
    }


def _watt_hours(pretrainings: pd.Series, finetunings: pd.Series) -> str:
    """Mean energy of one pre-training and one fine-tuning; a dash where a GPU's was not measured, or none was used."""
    joules = pretrainings.mean(skipna=False) + finetunings.mean(skipna=False)
    return f"{joules / 3600:.1f}" if joules > 0 else "-"


def variances(runs: pd.DataFrame, lost: Iterable[FailedPretraining] = ()) -> pd.DataFrame:
    """Where the spread comes from, for every row of a group with two seeds or more of both kinds; standard deviations in points
    of the metric, NaN where some of the crossed table's runs are `missing`, those of a pre-training that failed as well."""
    import pandas as pd

    rows = []
    for names, group in runs.groupby(GROUP, sort=True, dropna=False) if len(runs) else []:
        described = dict(zip(GROUP, names, strict=True))
        column = f"score_{headline(group)}"
        never_run = lost_rows(group, lost)
        for name, mine in by_row(group[["row", *ROW, "outcome", "pretrain_seed", "finetune_seed", column]]).items():
            # Failed runs keep their place in the table, empty.
            known = mine.assign(score=(100 * mine[column]).where(mine["outcome"] == "ok"))
            table = known.pivot_table(
                index="pretrain_seed", columns="finetune_seed", values="score", dropna=False
            ).to_numpy()
            if min(table.shape) < 2:
                continue
            without = len(never_run.get(name, ()))
            shares = variance_components(table) if not without else None
            rows.append(
                {
                    **{k: described[k] for k in GROUP},
                    "method": name,
                    "seeds": f"{table.shape[0] + without} x {table.shape[1]}",
                    "pre-training seed": np.sqrt(shares.pretrain) if shares else np.nan,
                    "fine-tuning seed": np.sqrt(shares.finetune) if shares else np.nan,
                    "residual": np.sqrt(shares.residual) if shares else np.nan,
                    "missing": int(np.isnan(table).sum()) + without * table.shape[1],
                }
            )
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).sort_values(["task", "method", "label_ratio"], key=in_any_order, kind="stable")


WITHIN = 1.0


def steps_to_reach(curves: Mapping[str, Sequence[Curve]], failed: Mapping[str, int] = {}) -> pd.DataFrame:
    """The first validated step at which each pre-training's runs are within 1 point of scratch's final mean (Figure 5): median
    over its runs, and then over pre-trainings.

    `curves`: by row name, of the runs that ended well; `failed`: how many pre-trainings of a row have no good run,
    which count as never having got there. Empty without scratch, with two kinds of it, and where scratch is within a point of
    nothing, which any run is at once.
    """
    import pandas as pd

    base_rows = [n for n, runs in curves.items() if runs[0].method == BASELINE]
    if len(base_rows) != 1:
        return pd.DataFrame()
    goal = float(np.mean(_by_pretraining(curves[base_rows[0]], lambda c: c.scores[-1], np.mean))) - WITHIN / 100
    if goal <= 0:
        return pd.DataFrame()
    steps = {name: _by_pretraining(runs, partial(_first_step, goal=goal), np.median) for name, runs in curves.items()}
    for name, number in failed.items():
        steps[name] = [*steps.get(name, ()), *[np.inf] * number]
    base = float(np.median(steps[base_rows[0]]))
    rows = []
    for name, reached in steps.items():
        if not reached:
            continue
        median = float(np.median(reached))
        rows.append(
            {
                "method": name,
                "steps to within 1 point of scratch": f"{median:,.0f}" if np.isfinite(median) else "never",
                "reached by": f"{int(np.isfinite(reached).sum())} of {len(reached)}",
                "speed-up": f"{base / median:.2f}x" if np.isfinite([base, median]).all() and median > 0 else "-",
            }
        )
    return pd.DataFrame(rows)


def _first_step(curve: Curve, goal: float) -> float:
    return next((float(s) for s, v in zip(curve.steps, curve.scores, strict=True) if v >= goal), np.inf)


def _by_pretraining(
    runs: Sequence[Curve], value: Callable[[Curve], float], over: Callable[[list[float]], Any]
) -> list[float]:
    """One value for each pre-training, over its runs."""
    seeds: dict[int, list[float]] = {}
    for curve in runs:
        seeds.setdefault(curve.pretrain_seed, []).append(value(curve))
    return [float(over(values)) for values in seeds.values()]
