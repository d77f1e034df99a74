"""Effect tables for papers, in LaTeX: a method's mean, its interval in the cell below, a mark if a test supports a
difference from scratch, and footnotes with the warnings and n of a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np

from pretrain_bench.reports.analysis.sorting import method_places
from pretrain_bench.reports.analysis.statistics import ALPHA
from pretrain_bench.reports.tables.effect_cells import Effect, EffectColumn
from pretrain_bench.reports.tables.formats import escape_latex
from pretrain_bench.reports.tables.wording import marks_of_effect

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
    usual_n = Counter(n for n in every["n"] if n).most_common(1)
    footnotes = _Footnotes(usual_n[0][0] if usual_n else 0)
    lines = []
    for row in dict.fromkeys(map(str, every["row"])):
        mine = [one.get(row) for one in cells]
        values = [_value(e, column.published.get(row), footnotes) for e, column in zip(mine, columns, strict=True)]
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
        f"\\smallskip\\scriptsize {NOTE} {footnotes.text()}\n\\end{{{environment}}}\n"
    )


class _Footnotes:
    """The remarks below a table, each once and with its letter. `usual_n` is the n that most cells have."""

    def __init__(self, usual_n: int) -> None:
        self._usual_n = usual_n
        self._letters: dict[str, str] = {}

    def mark(self, effect: Effect) -> str:
        """The mark of a cell with warnings or another n; empty for any other cell."""
        n = f"n = {effect['n']}" if effect["n"] not in (0, self._usual_n) else ""
        remark = ", ".join(part for part in (n, marks_of_effect(effect)) if part)
        if not remark:
            return ""
        return _superscript(self._letters.setdefault(remark, _letters(len(self._letters))))

    def text(self) -> str:
        """The usual n, and the remarks of all cells marked so far."""
        usual = "$n$ counts pre-training seeds"
        if self._usual_n:
            usual = f"$n = {self._usual_n}$ pre-training seeds, unless a footnote gives another n"
        remarks = [f"{_superscript(letters)} {escape_latex(remark)}" for remark, letters in self._letters.items()]
        return f"{'; '.join([usual, *remarks])}."


def _letters(place: int) -> str:
    """`a` to `z`, then `aa`, `ab`."""
    rounds, last = divmod(place, len(ascii_lowercase))
    return (_letters(rounds - 1) if rounds else "") + ascii_lowercase[last]


def _superscript(letters: str) -> str:
    return rf"\textsuperscript{{{letters}}}"


def _value(effect: Effect | None, published: float | None, footnotes: _Footnotes) -> str:
    if effect is None:
        return "--"
    footnote = footnotes.mark(effect)
    if not effect["n"]:
        return f"failed{footnote}"
    mark = MARKS.get(str(effect["verdict"]), "")
    mark += HOLM if mark and effect["p_holm"] < ALPHA else ""
    paper = f" {{[}}paper {published:.1f}{{]}}" if published is not None else ""
    return f"{effect['mean']:.1f}{mark}{footnote}{paper}"


def _interval(effect: Any) -> str:
    if effect is None or not effect["n"] or not np.isfinite(effect["low"]):
        return ""
    return rf"\scriptsize {{[}}{effect['low']:.1f}, {effect['high']:.1f}{{]}}"
