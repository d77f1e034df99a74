"""The files of a comparison of two stores or suites."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.benchmarks.support.errors import cannot_write
from pretrain_bench.reports.analysis.budgets import budget_words
from pretrain_bench.reports.analysis.compare import Side, load_side, made_by, paired
from pretrain_bench.reports.analysis.frame import Loaded
from pretrain_bench.reports.analysis.scores import METRIC_NAMES
from pretrain_bench.reports.analysis.titles import text_mark
from pretrain_bench.reports.export.output_folder import COMPARISON_FILES, earlier_files_removed
from pretrain_bench.reports.figures.paired_scores import draw_paired_scores
from pretrain_bench.reports.figures.style import save
from pretrain_bench.reports.tables.comparison_table import SHOWN, comparison_table, overall_text
from pretrain_bench.reports.tables.formats import escape_markdown, latex, markdown, write_csv, write_data

if TYPE_CHECKING:
    import pandas as pd

NOTES = """B - A: mean difference of twins (runs of one cell with the same seeds, one on each side), averaged within each
pre-training seed, with its 95 % interval; n counts pre-training seeds. equal: twins with bit-identical scores. A and B are
means of twins, or of all runs of a side without twins."""


class Comparison(NamedTuple):
    """The table, the files by name, the text of all, and the runs of either side that cannot be read, in words."""

    table: pd.DataFrame
    files: dict[str, Path]
    text: str
    unreadable: list[str]


def build_comparison(one: Side, two: Side, out: Path) -> Comparison:
    """Write compare.md, .tex, .csv, .json and a figure with its data to `out`; files of synthetic data have names that say so.

    Raises WrongUse if no cell is on both sides or a side has a cell twice, and EnvironmentCannot if `out` cannot be written.
    """
    sides = [load_side(side) for side in (one, two)]
    pairs, checkpoint = paired(one, two, sides)
    table = comparison_table(pairs)
    lines = [(letter, facts(side)) for facts in (_budgets, made_by) for letter, side in zip("AB", sides, strict=True)]
    made = "\n".join(
        textwrap.fill(f"{letter}: {escape_markdown(text)}", 120, subsequent_indent="   ") for letter, text in lines
    )
    texts: list[str] = []
    files: dict[str, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with earlier_files_removed(out, COMPARISON_FILES):
            # A synthetic result is in no table and no figure with a real one.
            for synthetic, part in pairs.groupby("synthetic"):
                name, mark = f"{'synthetic-' if synthetic else ''}compare", text_mark(synthetic)
                kinds = " or ".join(METRIC_NAMES[m].removesuffix(" (%)") for m in sorted(set(part["metric"])))
                title = f"{mark}B ({two.name}) against A ({one.name}), {kinds} in per cent, {checkpoint} checkpoint"
                mine = table[table["synthetic"] == synthetic]
                after = f"{mark}{overall_text(part)}\n\n{NOTES}\n\n{made}"
                texts.append(_write_table(mine, out / name, title, after))
                write_csv(part, out / f"figure-{name}.csv")
                figure = draw_paired_scores(part, (one.name, two.name), title)
                files[name] = out / f"{name}.md"
                files[f"figure-{name}"] = save(figure, out / f"figure-{name}")[0]
    except OSError as error:
        raise cannot_write(out, error, "comparison (--out names another folder)") from error
    unreadable = {problem: None for side in (one, two) for problem in side.store.unreadable()}
    return Comparison(table, files, "\n".join(texts), list(unreadable))


def _budgets(side: Loaded) -> str:
    return budget_words(side.runs)


def _write_table(table: pd.DataFrame, stem: Path, title: str, after: str) -> str:
    """Write a table in every format; `after` follows it in the Markdown, which is returned."""
    all_finetuned = (table["protocol"] == FINETUNE).all()
    shown = table[[c for c in SHOWN if not (all_finetuned and c == "protocol")]].rename(columns={"row": "method"})
    text = f"{escape_markdown(title)}\n\n{markdown(shown)}\n\n{after}\n"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".tex").write_text(latex(shown, title))
    write_data(table, stem)
    return text
