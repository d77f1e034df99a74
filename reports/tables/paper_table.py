"""Effect tables for papers, in LaTeX: a method's mean, its interval in the cell below, and a mark if a test supports a
difference from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.statistics import ALPHA
from pretrain_bench.reports.tables.effect_cells import Effect, EffectColumn
from pretrain_bench.reports.tables.formats import escape_latex

MOST_IN_A_COLUMN = 4
"""A table with more columns than these spans both columns of a page."""
MARKS = {"better": r"$^{\uparrow}$", "worse": r"$^{\downarrow}$"}
HOLM = r"$^{\ast}$"
NOTE = (
    r"Mean with its 95\,\% interval below. $\uparrow$, $\downarrow$: better, worse than scratch (the interval of the "
    r"difference excludes zero); $\ast$: also with Holm's correction for all comparisons of the task."
)


CELLS_EXPLAINED = (
    ", ± half the 95 % interval, in brackets the difference "
    "from scratch with its interval and verdict, n pre-training seeds"
)
"""The part of a title that explains cells with all of these values."""


def paper_table(columns: Sequence[EffectColumn], caption: str) -> str:
    """A booktabs table with two lines a method: values, and their intervals. Seven tasks fit the width of a page."""
    import pandas as pd

    every = pd.concat([column.effects for column in columns]).sort_values("method", key=method_places, kind="stable")
    cells = [{str(e["row"]): e for e in column.effects.to_dict("records")} for column in columns]
    lines = []
    for row in dict.fromkeys(map(str, every["row"])):
        mine = [one.get(row) for one in cells]
        values = [_value(e, column.published.get(row)) for e, column in zip(mine, columns, strict=True)]
        lines.append(" & ".join([escape_latex(row), *values]) + r" \\")
        intervals = [_interval(e) for e in mine]
        if any(intervals):
            lines.append(" & ".join(["", *intervals]) + r" \\[2pt]")
    heads = " & ".join(["Method", *(escape_latex(column.head) for column in columns)]) + r" \\"
    body = "\n".join([r"\toprule", heads, r"\midrule", *lines, r"\bottomrule"])
    environment = "table" if len(columns) <= MOST_IN_A_COLUMN else "table*"
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{{environment}}}\n\\centering\n\\caption{{{escape_latex(caption)}}}\n"
        "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"
        f"\\begin{{tabular}}{{@{{}}l{'c' * len(columns)}@{{}}}}\n{body}\n\\end{{tabular}}\n\n"
        f"\\smallskip\\scriptsize {NOTE}\n\\end{{{environment}}}\n"
    )


def _value(effect: Effect | None, published: float | None) -> str:
    if effect is None:
        return "--"
    if not effect["n"]:
        return "failed"
    mark = MARKS.get(str(effect["verdict"]), "")
    mark += HOLM if mark and effect["p_holm"] < ALPHA else ""
    failed = f"$^{{{effect['failed']}\\,\\mathrm{{failed}}}}$" if effect["failed"] else ""
    return f"{effect['mean']:.1f}{mark}{failed}" + (
        f" {{[}}paper {published:.1f}{{]}}" if published is not None else ""
    )


def _interval(effect: Any) -> str:
    if effect is None or not effect["n"] or not np.isfinite(effect["low"]):
        return ""
    return rf"\scriptsize {{[}}{effect['low']:.1f}, {effect['high']:.1f}{{]}}"
