"""The common style of figures for papers: axes, colours of rows, legends, titles, and files."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pretrain_bench.reports.analysis.sorting import ratio_key
from pretrain_bench.reports.analysis.titles import SYNTHETIC_MARK

if TYPE_CHECKING:
    import pandas as pd

Overlays = Mapping[str, Sequence[tuple[float, float]]]
"""Map methods to published (x, per cent) pairs."""

FigureKind = Literal["screen", "paper"]
"""`paper`: without titles, as wide as a column or the text of a two-column page, with 8-point letters."""
COLUMN_INCHES, TEXT_INCHES, WIDEST_COLUMN_FIGURE = 3.5, 7.16, 5.5
"""Column and text widths of an IEEE page, and the widest screen figure that is reduced to one column."""
PAPER_POINTS = 8
DASHES, MARKERS = ("-", ":", "-.", (0, (6, 1))), "os^DvPX*"
"""Line styles distinguish rows of one method, which share its colour; markers distinguish label ratios."""
FILLS = ("full", "none", "left", "top")
"""Fill styles of the markers of rows of one method."""
FAILURE_COLOUR = "#B00020"
MIN_SPAN = 10.0
"""Least range of a score axis, so that a difference of one point does not fill the figure."""
MANY_POINTS = 300
"""From this number on, points in an SVG or PDF are one embedded image instead of one element each."""
MANY_NAMES = 4
"""Legends with more names are placed below the axes instead of among the curves."""
JITTER_SEED = 0
LETTERS_PER_INCH = 11
TICK_LETTERS = 14
LEGEND_LETTERS_PER_INCH, SIGN_LETTERS = 12, 6
"""Letters per inch of a legend in small print, and the width in letters of the line or marker beside a name."""


_kind: FigureKind = "screen"


@contextmanager
def figures_for(kind: FigureKind) -> Iterator[None]:
    """Draw figures of this kind within the block."""
    global _kind
    before, _kind = _kind, kind
    try:
        yield
    finally:
        _kind = before


def make_ready() -> None:
    """Import matplotlib and seaborn, which is slow; processes forked later share the import."""
    _pyplot()


def _pyplot() -> Any:
    """Pyplot in the common style, with a backend that only writes files."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    # Titles are right above their axes; otherwise matplotlib lays out all tick labels once more to place them.
    # The font ships with matplotlib, so that figures look the same everywhere; seaborn would prefer Arial if installed.
    # Text from a container must not be parsed as a formula.
    # Type 42 embeds the font itself, as journals require; it takes most of a second per figure.
    fonts = 42 if _kind == "paper" else 3
    style = {"axes.titley": 1.0, "font.sans-serif": ["DejaVu Sans"], "text.parse_math": False, "pdf.fonttype": fonts}
    if _kind == "paper":
        names = (
            "font.size",
            "axes.labelsize",
            "xtick.labelsize",
            "ytick.labelsize",
            "legend.fontsize",
            "axes.titlesize",
        )
        style |= dict.fromkeys(names, PAPER_POINTS)
    sns.set_theme(style="whitegrid", font_scale=0.85, rc=style)
    return plt


def new_axes(width: float = 4.8, height: float = 3.4, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Make an empty figure in the common style; return it with its axes, or an array (rows, columns) of them. Seeds numpy's
    global generator, so that points are jittered the same way every time."""
    np.random.seed(JITTER_SEED)  # seaborn draws its jitter from this generator
    plt = _pyplot()
    if _kind == "paper":
        paper = COLUMN_INCHES if width <= WIDEST_COLUMN_FIGURE else TEXT_INCHES
        width, height = paper, height * min(1.0, max(0.75, paper / width))
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained")


def add_title(place: Any, title: str) -> None:
    """Write a title above axes, or above all axes of a figure. Figures for papers have their title in the caption, and show only
    the mark of synthetic data."""
    several = place.figure is place
    if _kind == "screen":
        write = place.suptitle if several else place.set_title
        write(wrap_title(title, place), fontsize=9)
    elif title.startswith(SYNTHETIC_MARK):
        write, right = (place.suptitle, {"x": 0.99, "ha": "right"}) if several else (place.set_title, {"loc": "right"})
        write(SYNTHETIC_MARK.lower(), fontsize=PAPER_POINTS - 1, color="#555555", **right)


def ratio_places(label_ratios: Iterable[object]) -> dict[str, int]:
    """Map label ratios to their position by size, which selects the marker."""
    return {ratio: place for place, ratio in enumerate(sorted(set(map(str, label_ratios)), key=ratio_key))}


def save(figure: Any, stem: Path) -> list[Path]:
    """Write PNG (200 dpi), SVG and PDF, and close the figure. Equal input gives equal files."""
    from matplotlib import pyplot as plt

    paths = []
    # Lay out once instead of once per format: without a layout engine, saving does not repeat it.
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)
    with plt.rc_context({"svg.hashsalt": "bench"}):
        kinds: tuple[tuple[str, dict[str, Any]], ...] = (
            (".png", {"dpi": 200, "pil_kwargs": {"compress_level": 3}}),  # half the time for 3 % more bytes
            (".svg", {"metadata": {"Date": None}}),
            (".pdf", {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}}),
        )
        for suffix, options in kinds:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], **options)
            paths.append(stem.with_suffix(suffix))
            paths[-1].write_bytes(buffer.getvalue())
    plt.close(figure)
    return paths


def places_among_rows(rows: pd.DataFrame) -> dict[str, int]:
    """Map printed row names to their index among the rows of their method, from the columns `row` and `method`."""
    return places_within_method(dict(zip(rows["row"], rows["method"], strict=True)))


def places_within_method(methods: Mapping[str, str]) -> dict[str, int]:
    """Map printed row names to their index among the rows of their method; `methods` maps row names to methods."""
    seen: Counter[str] = Counter()
    places = {}
    for row, method in methods.items():
        places[row] = seen[method]
        seen[method] += 1
    return places


def tick_labels(names: Sequence[str]) -> list[str]:
    """Row names below an axis, wrapped so that neighbours do not overlap; the part in brackets gets its own line."""
    return [
        "\n".join(line for part in name.split(" ", 1) for line in textwrap.wrap(part, TICK_LETTERS)) for name in names
    ]


def wrap_title(title: str, axes: Any) -> str:
    """Wrap a title to the width of the figure."""
    letters = int(LETTERS_PER_INCH * axes.figure.get_figwidth())
    return "\n".join(line for part in title.split("\n") for line in textwrap.wrap(part, letters))


def add_legend(axes: Any, ratios: Mapping[str, int] | None = None, **options: Any) -> None:
    """Add a legend: among the curves for few names, below the axes for more. A legend among the curves is excluded from the
    layout, which would otherwise take long to find its position.

    `ratios`: label ratios, as from `ratio_places`, whose markers are explained after the names.
    """
    handles, names = axes.get_legend_handles_labels()
    if ratios and len(ratios) > 1:
        handles, names = [*handles, *ratio_marks(ratios)], [*names, *ratios]
    elif len(names) <= MANY_NAMES:
        axes.legend(frameon=False, **options).set_in_layout(False)
        return
    figure = axes.get_figure()
    width = int(LEGEND_LETTERS_PER_INCH * figure.get_figwidth())
    names = [n if len(n) + SIGN_LETTERS <= width else n[: width - SIGN_LETTERS - 1] + "…" for n in names]
    columns = max(1, min(3, width // (max(map(len, names)) + SIGN_LETTERS)))
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(names) // columns))
    figure.legend(handles, names, frameon=False, ncols=columns, loc="outside lower center", **options)


def ratio_marks(ratios: Mapping[str, int]) -> list[Any]:
    """The markers of label ratios, for a legend; `ratios` as from `ratio_places`."""
    from matplotlib.lines import Line2D

    shapes = [MARKERS[place % len(MARKERS)] for place in ratios.values()]
    return [Line2D([], [], marker=shape, ls="", color="#444444", ms=5) for shape in shapes]


def draw_overlays(axes: Any, overlays: Overlays | None) -> None:
    """Draw published curves behind our own, with one entry in the legend for all."""
    for number, pairs in enumerate((overlays or {}).values()):
        label = "paper" if number == 0 else None
        axes.plot(
            [p[0] for p in pairs], [p[1] for p in pairs], color="#999999", lw=0.7, ls="--", zorder=1.4, label=label
        )
