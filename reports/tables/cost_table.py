"""Resources used by every method: steps, samples, FLOPs, hours, energy, labels and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis.ranks import UNDER
from pretrain_bench.reports.analysis.rows import by_row
from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.titles import protocol_mark
from pretrain_bench.reports.tables.wording import format_amount, format_budget

if TYPE_CHECKING:
    import pandas as pd

MIXED = "not all on a GPU"


def cost_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean use of each row's successful runs: one pre-training plus one evaluation, which is a fine-tuning, or a probe with its
    features. Amortised: one fine-tuning or probe plus its shares of the pre-training and features that several of them use.

    Budgets with several tasks have a column `tasks`: a row without all of them averages over fewer tasks.
    """
    import pandas as pd

    rows = []
    good = runs[runs["outcome"] == "ok"].sort_values([*UNDER, "row"]) if len(runs) else runs
    good = good.sort_values("method", key=method_places, kind="stable")
    which = [*UNDER, "row", "pretrain_dataset"]
    tasks = good[[*UNDER, "task", "dataset"]].drop_duplicates().value_counts(UNDER)
    for (protocol, budget, profile, row, dataset), group in good.groupby(which, sort=False) if len(good) else []:
        pretrainings = group.drop_duplicates("pretrain_keys")
        rows.append(
            {
                "method": row,
                "pre-trained on": dataset,
                "budget": f"{format_budget(budget, profile)}{protocol_mark(protocol)}",
                "runs": len(group),
                **_tasks(group, tasks),
                **_currencies(pretrainings, group),
                **_hours(pretrainings, group, "cpu"),
                **_gpu(pretrainings, group),
                "labels": _sum(pretrainings, group, "labels"),
                "peak MiB": f"{group['peak_memory_mib'].max():,.0f}",
            }
        )
    return pd.DataFrame(rows)


def used_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean use of each row's successful runs in one group, in every currency: one pre-training plus one evaluation, as in
    `cost_table`. Empty if no run succeeded."""
    import pandas as pd

    rows = []
    for name, group in by_row(runs[runs["outcome"] == "ok"]).items():
        pretrainings = group.drop_duplicates("pretrain_keys")
        hours = {**_hours(pretrainings, group, "gpu"), **_hours(pretrainings, group, "cpu")}
        if _some_without_gpu(group):
            hours["GPU-hours"] = MIXED
        rows.append(
            {
                "method": name,
                **_currencies(pretrainings, group),
                "GPU-hours": hours["GPU-hours"],
                "CPU-hours": hours["CPU-hours"],
                "labels": _sum(pretrainings, group, "labels"),
            }
        )
    return pd.DataFrame(rows)


def _currencies(pretrainings: pd.DataFrame, group: pd.DataFrame) -> dict[str, str]:
    """Steps, samples and FLOPs of one pre-training plus one fine-tuning."""
    flops = (pretrainings["pretrain_flops"].mean(), group["finetune_flops"].mean())
    return {
        "steps": _sum(pretrainings, group, "steps"),
        "samples": _sum(pretrainings, group, "samples"),
        "FLOPs": " + ".join(format_amount(f, ".3g") for f in flops) if any(flops) else "-",
    }


def _sum(pretrainings: pd.DataFrame, group: pd.DataFrame, what: str) -> str:
    used = pretrainings[f"pretrain_{what}"].mean(), group[f"finetune_{what}"].mean()
    return " + ".join(format_amount(amount, ",.0f") for amount in used)


def _tasks(group: pd.DataFrame, tasks: pd.Series) -> dict[str, str]:
    """How many tasks of its protocol, budget and profile a row covers; no column if every budget has only one task."""
    if tasks.max() < 2:
        return {}
    first = group.iloc[0]
    own = len(group[["task", "dataset"]].drop_duplicates())
    return {"tasks": f"{own} of {tasks[tuple(first[UNDER])]}"}


def _gpu(pretrainings: pd.DataFrame, group: pd.DataFrame) -> dict[str, str]:
    """GPU hours and energy. If only some of the runs or pre-trainings used a GPU, a mean would describe neither kind."""
    cells = _hours(pretrainings, group, "gpu")
    cells["GPU Wh"] = _watt_hours(
        pretrainings["pretrain_gpu_joules"], _features(group)["features_gpu_joules"], group["finetune_gpu_joules"]
    )
    return dict.fromkeys(cells, MIXED) if _some_without_gpu(group) else cells


def _some_without_gpu(group: pd.DataFrame) -> bool:
    evaluation = group["finetune_gpu_seconds"] + group["features_gpu_seconds"]
    return any((seconds > 0).nunique() > 1 for seconds in (group["pretrain_gpu_seconds"], evaluation))


def _features(group: pd.DataFrame) -> pd.DataFrame:
    """One run for each features stage, which the probes of all label ratios share. Of fine-tunings, which have none, one run at
    no cost."""
    return group.drop_duplicates("features_key")


def _hours(pretrainings: pd.DataFrame, group: pd.DataFrame, kind: str) -> dict[str, str]:
    before, features, after = (
        r[f"{stage}_{kind}_seconds"] / 3600
        for stage, r in (("pretrain", pretrainings), ("features", _features(group)), ("finetune", group))
    )
    name = f"{kind.upper()}-hours"
    if not before.sum() + features.sum() + after.sum():  # for example without a GPU
        return {name: "-", f"{name} amortised": "-"}
    shared = before.sum(skipna=False) + features.sum()
    return {
        name: f"{format_amount(before.mean(), '.3f')} + {features.mean() + after.mean():.3f}",
        f"{name} amortised": format_amount(shared / len(group) + after.mean(), ".3f"),
    }


def _watt_hours(*stages: pd.Series) -> str:
    """The sum of the mean energies of stages; a dash if a GPU was not measured or not used."""
    joules = sum(stage.mean(skipna=False) for stage in stages)
    return f"{joules / 3600:.1f}" if joules > 0 else "-"
