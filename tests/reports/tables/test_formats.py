"""Tables as LaTeX."""

from __future__ import annotations

import pandas as pd

from pretrain_bench.reports.tables.formats import latex


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
