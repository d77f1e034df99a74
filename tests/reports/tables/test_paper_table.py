"""LaTeX tables for papers: cells, marks, and a compile with a real LaTeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain_bench.harness.store.store import Store
from pretrain_bench.reports.analysis.effects import effects
from pretrain_bench.reports.analysis.frame import load
from pretrain_bench.reports.tables.effect_cells import EffectColumn
from pretrain_bench.reports.tables.formats import latex
from pretrain_bench.reports.tables.paper_table import paper_table
from pretrain_bench.reports.tables.table_one import table_one_columns
from pretrain_bench.reports.tables.wording import marks_of_effect
from tests.reports.frames import planted_scores, runs_of
from tests.reports.stores import add, lose

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
    assert r"ours & failed\textsuperscript{a} & failed\textsuperscript{a}" in text and r"\begin{table}" in text
    assert r"\textsuperscript{a} 3 of 3 failed." in text


def test_every_affected_cell_has_a_footnote_with_the_words_of_the_other_tables(store: Store) -> None:
    split = {"version": 1, "train": ["a"], "selection": ["b"], "test": ["scene0003_00"], "sha256": "1" * 64}
    for seed in range(3):
        add(store, "scratch", 0.5 + seed / 100, seed, source="none", split=split)
        add(store, "ours", 0.6 + seed / 100, seed, read=("scene0003_00",), split=split)
        if seed < 2:
            add(store, "csc", 0.55 + seed / 100, seed, split=split)
    lose(store, "csc", 2, "0" * 64)
    loaded = load(store)
    table = effects(loaded.runs, loaded.failed_pretrainings)
    text = paper_table(table_one_columns(table), "c")
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    marked = {row: re.findall(r"\\textsuperscript\{(\w)\}", lines[row]) for row in ("scratch", "csc", "ours")}
    assert marked == {"scratch": [], "csc": ["a"], "ours": ["b"]}
    remarks = {row: marks_of_effect(e) for row, e in table.set_index("row", drop=False).to_dict("index").items()}
    assert remarks["csc"] == "1 pre-training failed" and "pre-training saw 1 of 1 test scenes" in remarks["ours"]
    note = text[text.index(r"\smallskip") :]
    assert "$n = 3$ pre-training seeds" in note and r"\textsuperscript{a} n = 2, 1 pre-training failed;" in note
    assert rf"\textsuperscript{{b}} {remarks['ours']}." in note


def test_a_footnote_is_escaped_and_is_printed_once() -> None:
    table = effects(runs_of(planted_scores(30, 3, {}, shared=0.3)))
    text = paper_table(table_one_columns(table.assign(part_of_test_split="1_% & 2")), "c")
    assert text.count(r"1\_\% \& 2") == 1
    many = table.assign(part_of_test_split=[f"part {i}" for i in range(len(table))])
    text = paper_table(table_one_columns(many[many["row"] == "ours"]), "c")
    assert rf"\textsuperscript{{ad}} part {many[many['row'] == 'ours'].index[29]}." in text


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
        paper_table(table_one_columns(table.assign(contamination_mark="[x] \\saw_{$} 5 % & ~^#")), "marked"),
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
