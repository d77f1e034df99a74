"""Table I of the paper, from our runs: methods by task with all labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.columns import GROUP
from pretrain_bench.reports.analysis.families import task_families
from pretrain_bench.reports.analysis.method_cards import group_of
from pretrain_bench.reports.analysis.published_protocol import BEST_AS_PAPER
from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.titles import protocol_mark
from pretrain_bench.reports.tables.effect_cells import Effect, EffectColumn, columns_of_group
from pretrain_bench.reports.tables.wording import cell_without_runs, format_budget

if TYPE_CHECKING:
    import pandas as pd


def table_one(effects: pd.DataFrame, best: pd.DataFrame | None = None) -> pd.DataFrame:
    """Methods by task with all labels: `66.5 ±1.2 (+1.4 [0.2, 2.6] better) n=3`.

    One column for each task, dataset, protocol, budget and profile, which also names the checkpoint. `best` is the same
    effects at the checkpoint `best`: a task that follows the paper's protocol gets a second column with their means,
    `67.0 ±1.1 (+1.5) n=3 [paper 66.5]`.
    """
    import pandas as pd

    columns = table_one_columns(effects, best)
    cells = {column.title: column.cells(whole=not column.published) for column in columns}
    datasets = {column.title: str(column.effects["dataset"].iloc[0]) for column in columns}
    rows = []
    for effect in (
        _at_all_labels(effects)
        .sort_values("method", key=method_places, kind="stable")
        .drop_duplicates("row")
        .to_dict("records")
    ):
        empty = {
            title: cell_without_runs(effect["method"], effect["pretrain_dataset"], dataset)
            for title, dataset in datasets.items()
        }
        own = {title: rows_of.get(effect["row"], empty[title]) for title, rows_of in cells.items()}
        rows.append({"group": group_of(str(effect["method"])), "method": str(effect["row"]), **own})
    return pd.DataFrame(rows)


def table_one_columns(effects: pd.DataFrame, best: pd.DataFrame | None = None) -> list[EffectColumn]:
    """The columns of the table, and of the same table for a paper, which has shorter heads."""
    columns: list[EffectColumn] = []
    for family in task_families(_at_all_labels(effects)):
        groups = family.effects.groupby("conditions", sort=True)
        for conditions, group in groups:
            key, checkpoint = family.key, group["checkpoint"].iloc[0]
            protocol = f"{format_budget(key['budget'], key['profile'])}{protocol_mark(key['protocol'])}"
            title = f"{key['task']} ({key['dataset']}, {protocol}, {{}})"
            # Groups of one title differ in their recipe, data or code.
            title += f" #{conditions}" * (title.format(checkpoint) in {column.title for column in columns})
            head = family.head + f" #{conditions}" * (len(groups) > 1)
            own = EffectColumn(title.format(checkpoint), head, {}, group)
            columns += columns_of_group(own, title.format(BEST_AS_PAPER), _same_group(group, best), _value_of_table_one)
    return columns


def _at_all_labels(effects: pd.DataFrame) -> pd.DataFrame:
    return effects[effects["label_ratio"] == "100%"]


def _same_group(group: pd.DataFrame, best: pd.DataFrame | None) -> pd.DataFrame:
    """The effects of one group at the checkpoint `best`."""
    if best is None or not len(best):
        return group[:0]
    return best.merge(group[GROUP].drop_duplicates())


def _value_of_table_one(effect: Effect) -> float | None:
    known = published.score_of(str(effect["task"]), str(effect["published_as"]))
    return known.value if known else None
