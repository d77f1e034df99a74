"""Tables as LaTeX and CSV."""

from __future__ import annotations

import io

import pandas as pd

from pretrain_bench.reports.tables.formats import csv_text, latex


def test_latex_is_escaped() -> None:
    text = latex(pd.DataFrame({"a_b": ["50% & \\evil{}", "1 ±2"]}), "x#y")
    assert r"a\_b" in text and r"50\% \& \textbackslash{}evil\{\}" in text and r"1 $\pm$2" in text and r"x\#y" in text
    assert text.count(r"\\") == 3 and r"\toprule" in text and r"\begin{table}" in text and "resizebox" not in text
    wide = latex(pd.DataFrame({"a": ["x" * 50], "b": ["y" * 50]}), "wide")
    assert r"\begin{table*}" in wide and r"\textwidth\else\width\fi}{!}{\begin{tabular}{ll}" in wide
    assert (
        wide.startswith(r"% needs \usepackage{booktabs,graphicx}")
        and r"\end{tabular}}" in wide
        and r"\end{table*}" in wide
    )


def test_no_cell_of_a_csv_is_a_formula() -> None:
    formulas = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|'x'!A0", "\t=1"]
    plain = ["-", "-1.5", "+2.0", "", "a=b", "3 of 4"]
    texts = csv_text(pd.DataFrame({"message": [*formulas, *plain], "n": range(11)}))
    read = pd.read_csv(io.StringIO(texts), dtype=str, keep_default_na=False)
    assert read["message"].tolist() == [*(f"'{f}" for f in formulas), *plain]
    assert read["n"].tolist() == [str(n) for n in range(11)]
