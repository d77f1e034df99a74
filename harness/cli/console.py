"""Printing: tables, JSON, and numbers as text."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pretrain_bench.api.display import STDERR, printable

if TYPE_CHECKING:
    from pretrain_bench.benchmarks.specs.cell import Cell

WIDTH = 100
LONG = 500
"""Tables of more rows are not laid out by rich, which takes a millisecond a row."""
KEYS = ("run", "key", "name", "image")
"""Headers of columns whose values are copied into the next command: never wrapped."""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as text, at most as wide as the terminal or WIDTH; long cells wrap, except in columns of keys.

    Cells are literal: no markup, no control characters. Headers are bold on a terminal; elsewhere the text is plain.
    Tables of more than LONG rows are plain, with one line per row of any width.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    titles = [printable(header) for header in headers]
    return _wrapped(titles, cells) if len(cells) <= LONG else _one_line_each(titles, cells)


def _one_line_each(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).replace("\n", " ").rstrip() for row in (headers, *rows)]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _wrapped(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    dashes = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    shown = Table(box=dashes, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in headers:
        shown.add_column(Text(header), no_wrap=header in KEYS, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    out = io.StringIO()
    width = None if terminal else WIDTH
    Console(file=out, width=width, force_terminal=terminal, legacy_windows=False).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def print_json(data: object) -> None:
    """Print machine-readable output on stdout."""
    print(json.dumps(data, indent=1, sort_keys=True, allow_nan=False))


def warn_unreadable(problems: Sequence[str]) -> None:
    """Warn about runs that cannot be read and are left out of lists and reports."""
    for problem in problems[:1]:
        print(f"warning: not counted: {printable(problem)}", file=STDERR)
    if len(problems) > 1:
        print(f"warning: {len(problems) - 1} more cannot be read; bench audit lists them", file=STDERR)


def seeds(cell: Cell | None, own: object) -> str:
    """The seed of a pre-training, or `pre-training/fine-tuning` seeds of a cell."""
    return str(own) if cell is None else f"{cell.pretrain_seed}/{cell.finetune_seed}"


def per_cent(value: float | None) -> str:
    """A share as a percentage with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"
