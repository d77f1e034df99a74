"""Write tables as files: Markdown, LaTeX, CSV, JSON and, if pyarrow is installed, Parquet."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain_bench.reports.analysis.titles import SYNTHETIC_MARK

if TYPE_CHECKING:
    import pandas as pd


_FORMULA = re.compile(r"[=@\t\r]|[+-](?=.*[A-Za-z(|!])")
"""Texts that a spreadsheet would run as a formula; signed numbers and a lone dash are not."""
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CSV_ROWS = 2000
COLUMN_POINTS, LETTER_POINTS, GAP_POINTS = 240, 4.6, 12
"""In TeX points: the column width of a two-column paper, and the approximate width of a letter and of a gap between columns."""


def write_table(table: pd.DataFrame, stem: Path, title: str, tex: str | None = None) -> Path:
    """Write a table at `stem` in every format; `tex` replaces the generated LaTeX. Returns the path of the Markdown file."""
    write_data(table, stem)
    stem.with_suffix(".tex").write_text(latex(table, title) if tex is None else tex)
    path = stem.with_suffix(".md")
    path.write_text(f"{escape_markdown(title)}\n\n{markdown(table)}\n")
    return path


def write_data(table: pd.DataFrame, stem: Path) -> Path:
    """Write a table for programs: CSV, JSON (a list of rows, null for missing numbers) and Parquet. Returns the path of the CSV
    file."""
    path = stem.with_suffix(".csv")
    write_csv(table, path)
    payload = table.astype(object).where(table.notna(), None).replace({np.inf: None, -np.inf: None})
    stem.with_suffix(".json").write_text(json.dumps(payload.to_dict("records"), indent=1, default=str) + "\n")
    if importlib.util.find_spec("pyarrow") is not None:
        table.to_parquet(stem.with_suffix(".parquet"), index=False)
    return path


def without_bidi(text: str) -> str:
    """Replace bidirectional control characters, which can make a text look like another one."""
    return _BIDI.sub("\N{REPLACEMENT CHARACTER}", text)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, as `csv_text` makes it, a part at a time: a table of runs may have 50,000 rows."""
    with path.open("w", newline="") as file:
        for start in range(0, max(1, len(table)), CSV_ROWS):
            file.write(csv_text(table[start : start + CSV_ROWS], header=start == 0))


def csv_text(table: pd.DataFrame, header: bool = True) -> str:
    """Format as CSV. Text that a spreadsheet would run as a formula, such as a container's message, gets an apostrophe."""
    import pandas as pd

    texts = table.select_dtypes(include=["object", "string"]).columns
    safe = table.copy()
    for column in texts:
        values = [_safe(v) if isinstance(v, str) else v for v in table[column]]
        safe[column] = pd.Series(values, table.index, dtype=object)  # the same types in every part of a table
    return safe.to_csv(index=False, header=header)


@lru_cache(maxsize=1 << 14)
def _safe(text: str) -> str:
    """The text of a cell of a spreadsheet; most columns of many runs hold few texts."""
    shown = without_bidi(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def section(title: str, table: pd.DataFrame) -> str:
    """A Markdown table under its title, with the mark of synthetic data in bold."""
    if title.startswith(SYNTHETIC_MARK):
        return f"**{SYNTHETIC_MARK}**{escape_markdown(title.removeprefix(SYNTHETIC_MARK))}\n\n{markdown(table)}\n"
    return f"{escape_markdown(title)}\n\n{markdown(table)}\n"


def markdown(frame: pd.DataFrame) -> str:
    """Format as a Markdown table with escaped cells."""
    cells = [[escape_markdown(str(c)) for c in row] for row in [list(frame.columns), *frame.to_numpy().tolist()]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(frame.columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def escape_markdown(text: str) -> str:
    """Escape text, including untrusted text from a container, to one line of Markdown that renders as the text itself."""
    visible = "".join(c if c.isprintable() else " " for c in text)
    # Brackets are markup unless they hold an interval or a published number.
    escaped = re.sub(r"([\\`*|]|\](?=[(\[:])|\[(?![-+]?\d|paper))", r"\\\1", " ".join(visible.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(frame: pd.DataFrame, caption: str) -> str:
    """Format as a booktabs table with escaped cells. A table too wide for a column spans the page, and is scaled down if
    needed."""
    cells = [[escape_latex(str(c)) for c in row] for row in [list(frame.columns), *frame.to_numpy().tolist()]]
    lines = [" & ".join(row) + r" \\" for row in cells]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    tabular = f"\\begin{{tabular}}{{{'l' * len(frame.columns)}}}\n{body}\n\\end{{tabular}}"
    environment, packages = "table", "booktabs"
    widths = [max(len(row[i]) for row in cells) * LETTER_POINTS + GAP_POINTS for i in range(len(frame.columns))]
    if sum(widths) > COLUMN_POINTS:
        environment, packages = "table*", "booktabs,graphicx"
        fitted = r"\ifdim\width>\textwidth\textwidth\else\width\fi"
        tabular = f"\\resizebox{{{fitted}}}{{!}}{{{tabular}}}"
    return (
        f"% needs \\usepackage{{{packages}}}\n\\begin{{{environment}}}\n\\centering\n\\caption{{{escape_latex(caption)}}}\n"
        f"{tabular}\n\\end{{{environment}}}\n"
    )


def escape_latex(text: str) -> str:
    """Escape text, including untrusted text, to one line that LaTeX prints verbatim; unsupported letters become question
    marks."""
    special = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", "…": r"\dots{}",
        "[": "{[}", "]": "{]}", "*": "{*}",  # a preceding line break would parse them as its option
    }  # fmt: skip
    return "".join(special.get(c, (c if c < "\u0180" else "?") if c.isprintable() else " ") for c in text)
