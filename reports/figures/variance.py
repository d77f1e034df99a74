"""Standard deviations by seed, for every method and label ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_bench.reports.figures.style import FAILURE_COLOUR, add_title, new_axes

if TYPE_CHECKING:
    import pandas as pd

RESIDUAL = "residual: interaction of the two seeds (one run per cell)"
WITH_SEED = "residual, with the effect of fine-tuning seeds (each pre-training has its own)"
BOTH = f"{RESIDUAL}; without an orange bar: with the effect of fine-tuning seeds"
COLOURS = {"pre-training seed": "#0072B2", "fine-tuning seed": "#E69F00", "residual": "#BBBBBB"}


def draw_variances(variances: pd.DataFrame, title: str) -> Any:
    """Draw standard deviations over pre-training seeds, fine-tuning seeds and the residual side by side, by method and ratio.

    Rows with missing runs show a note instead. `variances` comes from `analysis.variance.variances`.
    """
    figure, axes = new_axes(5.2, 0.32 * len(variances) + 1.5)
    places = np.arange(len(variances))
    for i, (kind, colour) in enumerate(COLOURS.items()):
        if variances[kind].isna().all():
            continue
        label = _residual_label(variances) if kind == "residual" else kind
        axes.barh(places + (i - 1) * 0.27, variances[kind], height=0.25, color=colour, label=label)
    for place, missing in enumerate(variances["missing"]):
        if missing:
            axes.annotate(
                f"not separable: {missing} run{'s' * (missing > 1)} missing", (0, place), xytext=(3, 0),
                textcoords="offset points", va="center", fontsize=6, color=FAILURE_COLOUR,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
    axes.set_yticks(places, _row_labels(variances), fontsize=7)
    axes.set_ylim(len(variances) - 0.5, -0.5)
    axes.set_xlabel("standard deviation (points of the metric)")
    add_title(axes, title)
    figure.legend(frameon=False, fontsize=7, loc="outside lower center")
    return figure


def _residual_label(variances: pd.DataFrame) -> str:
    """What the residual contains. It has the share of fine-tuning seeds where that is NaN."""
    own = variances.loc[variances["residual"].notna(), "fine-tuning seed"].isna()
    return WITH_SEED if own.all() else BOTH if own.any() else RESIDUAL


def _row_labels(variances: pd.DataFrame) -> list[str]:
    """Method and ratio of each row, plus the other columns needed to distinguish rows."""
    columns = ["method"]
    columns += [
        c for c in ("task", "protocol", "label_ratio", "budget") if c == "label_ratio" or variances[c].nunique() > 1
    ]
    for column in ("dataset", "profile", "conditions"):
        if variances.duplicated([*columns, column]).sum() < variances.duplicated(columns).sum():
            columns.append(column)
    marked = variances.assign(conditions="#" + variances["conditions"])
    return [", ".join(map(str, r)) for r in marked[columns].itertuples(index=False, name=None)]
