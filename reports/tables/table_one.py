"""Table I of the paper, from our runs: methods by task with all labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.families import task_families
from pretrain_bench.reports.analysis.method_cards import group_of
from pretrain_bench.reports.analysis.published_protocol import BEST_AS_PAPER
from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.titles import protocol_mark
from pretrain_bench.reports.tables.effect_cells import Effect, cells_beside_published, effect_cell, published_values
from pretrain_bench.reports.tables.paper_table import PaperColumn
from pretrain_bench.reports.tables.wording import cell_without_runs, format_budget

if TYPE_CHECKING:
    import pandas as pd

COLUMN = ["task", "dataset", "protocol", "budget", "profile", "conditions", "checkpoint"]


def table_one(effects: pd.DataFrame, best: pd.DataFrame | None = None) -> pd.DataFrame:
    """Methods by task with all labels: `66.5 ±1.2 (+1.4 [0.2, 2.6] better) n=3`.

    One column for each task, dataset, protocol, budget and profile, which also names the checkpoint. `best` is the same
    effects at the checkpoint `best`: a task that follows the paper's protocol gets a second column with their means,
    `67.0 ±1.1 (+1.5) n=3 [paper 66.5]`.
    """
    import pandas as pd

    all_labels = effects[effects["label_ratio"] == "100%"]
    columns: dict[str, dict[str, str]] = {}
    datasets: dict[str, str] = {}
    for (task, dataset, protocol, budget, profile, conditions, checkpoint), group in all_labels.groupby(
        COLUMN, sort=True
    ):
        title = f"{task} ({dataset}, {format_budget(budget, profile)}{protocol_mark(protocol)}, {checkpoint})"
        if title in columns:
            title = f"{title} #{conditions}"
        columns[title] = {}
        for effect in group.to_dict("records"):
            columns[title][str(effect["row"])] = effect_cell(effect, None, whole=True)
        datasets[title] = str(dataset)
        same = _same_group(group, best)
        beside = cells_beside_published(same, _value_of_table_one)
        if beside:
            second = title.replace(f", {checkpoint})", f", {BEST_AS_PAPER})")
            columns[second], datasets[second] = beside, str(dataset)
    rows = []
    for effect in (
        all_labels.sort_values("method", key=method_places, kind="stable").drop_duplicates("row").to_dict("records")
    ):
        empty = {
            title: cell_without_runs(effect["method"], effect["pretrain_dataset"], dataset)
            for title, dataset in datasets.items()
        }
        cells = {title: cells.get(effect["row"], empty[title]) for title, cells in columns.items()}
        rows.append({"group": group_of(str(effect["method"])), "method": str(effect["row"]), **cells})
    return pd.DataFrame(rows)


def table_one_columns(effects: pd.DataFrame, best: pd.DataFrame | None = None) -> list[PaperColumn]:
    """The same table for a paper: one column per task, and one at the checkpoint `best` where the paper has comparable
    numbers."""
    columns = []
    for family in task_families(effects[effects["label_ratio"] == "100%"]):
        columns.append(PaperColumn(family.head, {}, family.effects))
        same = _same_group(family.effects, best)
        if values := published_values(same, _value_of_table_one):
            columns.append(PaperColumn(f"{family.head}, {BEST_AS_PAPER}", values, same))
    return columns


def _same_group(group: pd.DataFrame, best: pd.DataFrame | None) -> pd.DataFrame:
    """The effects of one group at the checkpoint `best`."""
    if best is None or not len(best):
        return group[:0]
    return best.merge(group[[*COLUMN[:-1], "label_ratio"]].drop_duplicates())


def _value_of_table_one(effect: Effect) -> float | None:
    known = published.score_of(str(effect["task"]), str(effect["published_as"]))
    return known.value if known else None
