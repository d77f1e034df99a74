"""LaTeX tables for papers: cells, marks, and a compile with a real LaTeX."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.tables.effect_cells import EffectColumn
from pretrain_bench.reports.tables.formats import latex
from pretrain_bench.reports.tables.paper_table import paper_table
from pretrain_bench.reports.tables.table_one import table_one_columns
from tests.reports.frames import planted_scores, runs_of

HOSTILE = "[x] \\input{/etc/passwd} \\\\ $^_~#%& <b>|é \u202e 漢 *"


def seven_tasks() -> pd.DataFrame:
    return effects(runs_of(planted_scores(7, 4, {"csc": 8.0, "depthcontrast": -8.0}, shared=0.3)))


def test_values_and_intervals_have_cells_of_their_own_and_marks_follow_the_tests() -> None:
    table = seven_tasks()
    text = paper_table(table_one_columns(table), "caption")
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    csc = table[table["row"] == "csc"].reset_index()
    cells = lines["csc"].removesuffix(r" \\").split(" & ")[1:]
    assert [float(c.split("$")[0]) for c in cells] == [round(m, 1) for m in csc["mean"]]
    for cell, effect in zip(cells, csc.to_dict("records"), strict=True):
        assert (r"\uparrow" in cell) == (effect["verdict"] == "better")
        assert (r"\ast" in cell) == (effect["p_holm"] < 0.05)
    assert r"\downarrow" in lines["depthcontrast"] and "arrow" not in lines["scratch"]
    interval = text.splitlines()[text.splitlines().index(lines["csc"]) + 1]
    assert f"{{[}}{csc['low'][0]:.1f}, {csc['high'][0]:.1f}{{]}}" in interval
    assert r"\begin{table*}" in text and "resizebox" not in text


def test_a_column_without_runs_or_with_failures_says_so() -> None:
    scores = planted_scores(2, 3, {}, shared=0.3)
    scores["ours"] = np.full((2, 3), np.nan)
    text = paper_table(table_one_columns(effects(runs_of(scores))), "c")
    assert "ours & failed & failed" in text and r"\begin{table}" in text


@pytest.mark.slow
def test_a_real_latex_sets_the_tables_without_an_overfull_line(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex (Debian: texlive-latex-recommended), which is not installed")
    table = seven_tasks()
    hostile = pd.DataFrame({"method": ["scratch", HOSTILE], HOSTILE[:40]: ["1", "[2] *"]})
    renamed = table.assign(row=table["row"].replace("ours", "[x] \\ours_{$}"))
    parts = [
        paper_table(table_one_columns(table), "seven tasks at 50 % & more"),
        paper_table([EffectColumn("[5%]", "[5%]", {"ours": 66.5}, renamed[renamed["task"] == "task0"])], "one"),
        latex(hostile, HOSTILE),
    ]
    document = "\n".join(
        [
            r"\documentclass[twocolumn,10pt]{article}", r"\usepackage{booktabs,graphicx}", r"\usepackage[utf8]{inputenc}",
            r"\usepackage[T1]{fontenc}", r"\usepackage[textwidth=7.16in,columnsep=0.16in]{geometry}", r"\begin{document}",
            *parts, r"\end{document}",
        ]
    )  # fmt: skip
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000 and "Overfull" not in done.stdout, done.stdout[-2000:]
