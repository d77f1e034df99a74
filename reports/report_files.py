"""The files of a report as they are written, and its tables as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_bench.reports.figures.pool import Drawing, FigurePool
from pretrain_bench.reports.figures.style import FigureKind
from pretrain_bench.reports.tables.effect_cells import EffectColumn
from pretrain_bench.reports.tables.formats import section, write_csv, write_table
from pretrain_bench.reports.tables.paper_table import CELLS_EXPLAINED, paper_table

if TYPE_CHECKING:
    import pandas as pd


class ReportFiles:
    """Writes tables and figures to the folder of a report; `files` are their paths by name, `sections` the tables in Markdown."""

    def __init__(self, out: Path, pool: FigurePool, figures: FigureKind = "screen") -> None:
        self.out, self.pool, self.figures = out, pool, figures
        self.files: dict[str, Path] = {}
        self.sections: list[str] = []

    def add_table(
        self, name: str, stem: str, title: str, table: pd.DataFrame, columns: Sequence[EffectColumn] = ()
    ) -> str:
        """Write a table in every format; `stem` is its path below the folder, without a suffix. `columns`: the same effects for a
        paper, in LaTeX, where the title does not explain cells. Returns its section in Markdown."""
        tex = paper_table(columns, title.replace(CELLS_EXPLAINED, "")) if columns else None
        self.files[name] = write_table(table, self._place(stem), title, tex)
        self.sections.append(section(title, table))
        return self.sections[-1]

    def add_figure(self, name: str, stem: str, draw: Callable[[], Any], data: pd.DataFrame) -> Path:
        """Write the data of a figure and queue the figure; `stem` as of a table. `draw` makes it, in another process. Returns the
        path of its PNG."""
        drawing = Drawing(draw, self._place(stem), self.figures)
        write_csv(data, drawing.stem.with_suffix(".csv"))
        self.files[name] = drawing.png
        self.pool.draw(drawing)
        return drawing.png

    def _place(self, stem: str) -> Path:
        """The path of a table or figure without a suffix, in an existing folder."""
        place = self.out / stem
        place.parent.mkdir(parents=True, exist_ok=True)
        return place
