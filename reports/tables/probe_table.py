"""Probes of frozen backbones: every method at every label ratio, compared with a frozen random backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import ROW
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.tables.effect_cells import effect_cell
from pretrain_bench.reports.tables.wording import format_budget

if TYPE_CHECKING:
    import pandas as pd

PROBE_TITLE = (
    "Probes of frozen backbones: headline metric (per cent), ± half the 95 % interval, in brackets the difference from "
    f"a frozen random backbone ({BASELINE}) with its interval and verdict, n pre-training seeds; linear probes have no "
    "checkpoint to select, only the final one; a network that was pre-trained without colours sees none"
)
COST = "CPU-s: features + probe"
LINE = ["task", "dataset", "protocol", "budget", "profile"]


def probe_table(effects: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each task, protocol, budget and method; one column for each label ratio, plus the mean CPU-seconds of one probe
    and of its features, which the probes of all ratios share. Empty without probes.

    `effects` and `runs` are those of a whole report; those of fine-tunings are ignored.
    """
    import pandas as pd

    known = effects[effects["protocol"] != FINETUNE] if len(effects) else effects
    ratios = sorted({str(ratio) for ratio in known["label_ratio"]}, key=ratio_key) if len(known) else []
    rows = []
    ordered = known.sort_values("method", key=method_places, kind="stable") if len(known) else known
    for names, several in ordered.groupby(LINE, sort=True) if len(ordered) else []:
        named = dict(zip(LINE, names, strict=True))
        mine = runs[(runs[LINE] == list(names)).all(axis=1) & (runs["outcome"] == "ok")]
        for row, cells in several.groupby("row", sort=False):
            shown = {str(e["label_ratio"]): effect_cell(e, None, whole=True) for e in cells.to_dict("records")}
            rows.append(
                {
                    "task": f"{named['task']} ({named['dataset']})",
                    "protocol": named["protocol"],
                    "budget": format_budget(named["budget"], named["profile"]),
                    "method": row,
                    **{ratio: shown.get(ratio, "not run") for ratio in ratios},
                    COST: _cost(mine[mine["row"] == row]),
                }
            )
    return pd.DataFrame(rows)


def _cost(runs: pd.DataFrame) -> str:
    """Mean CPU-seconds of one features stage and of one probe; a dash without successful runs."""
    if not len(runs):
        return "-"
    features = runs.drop_duplicates(["features_key", *ROW])["features_cpu_seconds"].mean()
    own = f"{runs['finetune_cpu_seconds'].mean():,.1f}"
    return f"{features:,.1f} + {own}" if features else own
