"""Figures: every run is a point, and nothing is drawn that n does not allow."""

from __future__ import annotations

import gc
import io
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from pretrain_bench.benchmarks.support.processes import process_pool
from pretrain_bench.reports.analysis.frame import METRIC_NAMES, Curve, class_metric
from pretrain_bench.reports.analysis.statistics import Ranking, estimate
from pretrain_bench.reports.tables.tables import BASELINE, headline, per_unit, row_names

if TYPE_CHECKING:
    import pandas as pd

Overlays = Mapping[str, Sequence[tuple[float, float]]]
"""Method to published (x, per cent) pairs."""

# The colour-blind-safe palette of Okabe and Ito, one colour a method everywhere.
COLOURS = {
    "scratch": "#777777",
    "supervised": "#000000",
    "pointcontrast": "#E69F00",
    "csc": "#56B4E9",
    "depthcontrast": "#009E73",
    "ours": "#D55E00",
}
OTHER_COLOURS = ("#CC79A7", "#0072B2", "#999933", "#882255")
"""Of methods that are not ours; which one is a matter of the name alone, so that it is the same everywhere."""
DASHES, MARKERS = ("-", ":", "-.", (0, (6, 1))), "os^D"
"""Of rows of one method, which share its colour."""
SYNTHETIC_MARK = "SYNTHETIC DATA"
MIN_SPAN = 10.0
MANY_POINTS = 300
"""From here on points are one picture within an SVG or PDF, not an element each."""
MANY_NAMES = 4
"""A longer legend has no place among curves."""
MOST_WORKERS = 8
JITTER_SEED = 0
LETTERS_PER_INCH = 11
TICK_LETTERS = 14
LEGEND_LETTERS_PER_INCH, SIGN_LETTERS = 12, 6
"""Of the small letters of a legend, and what the sign beside a name takes of them."""
DODGE = 0.035
"""By how much of their label ratio the points of neighbouring methods stand apart, so that none hides the others."""


def by_method(runs: pd.DataFrame, title: str, lost: Mapping[str, int] = {}) -> Any:
    """Score by method, one point a run, with mean and 95 % interval where there are two pre-training seeds or more; `lost`: how
    many pre-trainings of a row failed."""
    import seaborn as sns

    column = f"score_{headline(runs)}"
    names, units = row_names(runs), per_unit(runs, column)
    methods = [*names, *(row for row in lost if row not in names)]
    runs = runs.assign(method=runs["row"])
    good = runs[runs["outcome"] == "ok"].assign(score=lambda frame: 100 * frame[column])
    figure, axes = _axes(max(4.6, 1.1 * len(methods) + 2.2), 3.6)
    palette = {n: colour_of(names[n][0] if n in names else n.split(" ")[0]) for n in methods}
    many = len(good) > MANY_POINTS
    sns.stripplot(
        good,
        x="method",
        y="score",
        hue="method",
        order=methods,
        palette=palette,
        size=3 if many else 7,
        jitter=0.16 if many else 0.08,
        ax=axes,
        legend=False,
        rasterized=many,
    )
    for place, method in enumerate(methods):
        found = estimate(100 * units.get(method, np.array([])))  # as the tables have it, so that it is there already
        if np.isfinite(found.low):
            error = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(place + 0.25, found.mean, yerr=error, fmt="_", color=palette[method], capsize=3)
        mine = runs[runs["method"] == method]
        failed = int(((mine["outcome"] != "ok") | mine[column].isna()).sum())
        words = [f"{failed} failed"] if failed else []
        if lost.get(method):
            words.append(f"{lost[method]} pre-training{'s' * (lost[method] > 1)}\nfailed")
        if words:
            axes.annotate(
                "\n".join(words), (place, 0.02), xycoords=("data", "axes fraction"), ha="center", color="#B00020"
            )
    axes.set_xticks(range(len(methods)), _in_lines(methods))
    axes.set_xlim(-0.5, len(methods) - 0.5)  # also where the last has no run
    axes.set_xlabel("pre-training method")
    axes.set_ylabel(judged_by(runs))
    axes.set_title(_wrapped(title, axes), fontsize=9)
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    # A difference of a point shall not fill the picture.
    widen = max(0.0, MIN_SPAN - (high - low)) / 2
    axes.set_ylim(max(0.0, low - widen), high + widen)
    if len(units.get(BASELINE, ())):  # its mean as the tables have it, over pre-training seeds
        axes.axhline(100 * units[BASELINE].mean(), color=COLOURS[BASELINE], lw=0.8, ls="--", zorder=1)
    return figure


def colour_of(method: str) -> str:
    """One colour a method, in all figures."""
    return COLOURS.get(method, OTHER_COLOURS[crc32(method.encode()) % len(OTHER_COLOURS)])


def places_of(found: pd.DataFrame) -> dict[str, int]:
    """Of each row of a frame: its place among those of its method."""
    return places_within(dict(zip(found["row"], found["method"], strict=True)))


def places_within(methods: Mapping[str, str]) -> dict[str, int]:
    """The same of row names with their methods."""
    seen: Counter[str] = Counter()
    places = {}
    for row, method in methods.items():
        places[row] = seen[method]
        seen[method] += 1
    return places


def _in_lines(names: Sequence[str]) -> list[str]:
    """Names below an axis: what tells two rows of one method apart has a line of its own, and none runs into its neighbour."""
    return [
        "\n".join(line for part in name.split(" ", 1) for line in textwrap.wrap(part, TICK_LETTERS)) for name in names
    ]


def judged_by(runs: pd.DataFrame) -> str:
    """What an axis of scores shows: the metric, and the checkpoint that it is of."""
    return f"{METRIC_NAMES[runs['metric'].iloc[0]]}\n{headline(runs)} checkpoint"


def validation_curves(
    curves: Mapping[str, Sequence[Curve]],
    metric: str,
    title: str,
    overlays: Overlays | None = None,
) -> Any:
    """Score on the test split during fine-tuning, one thin line a run. `curves`: by row name.

    `overlays`: method to published (step, per cent) pairs, thin and grey, as far as our own runs go.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(5.2, 3.4)
    places = places_within({name: runs[0].method for name, runs in curves.items()})
    for name, runs in curves.items():
        for number, curve in enumerate(runs):
            label = name if number == 0 else None
            scores = [100 * s for s in curve.scores]
            look = {"color": colour_of(curve.method), "ls": DASHES[places[name] % len(DASHES)], "lw": 1.2, "alpha": 0.8}
            axes.plot(curve.steps, scores, marker="o", ms=3, label=label, **look)
    if curves:
        own = axes.get_xlim()
        _draw_overlays(axes, overlays)
        axes.set_xlim(own)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("fine-tuning steps")
    axes.set_ylabel(f"{METRIC_NAMES[metric]}\ntest split")
    axes.set_title(_wrapped(title, axes), fontsize=9)
    axes.set_ylim(bottom=0)
    if curves:
        _legend(axes)
    return figure


def _draw_overlays(axes: Any, overlays: Overlays | None) -> None:
    """The paper's lines, behind our own; one name in the legend for all."""
    for number, pairs in enumerate((overlays or {}).values()):
        label = "paper" if number == 0 else None
        axes.plot(
            [p[0] for p in pairs], [p[1] for p in pairs], color="#999999", lw=0.7, ls="--", zorder=1.4, label=label
        )


def _legend(axes: Any, **options: Any) -> None:
    """A legend of few names where it hides least; of more below, where it hides nothing. Within the axes the layout need not ask
    where it lies, which is slow to find."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) <= MANY_NAMES:
        axes.legend(frameon=False, **options).set_in_layout(False)
        return
    figure = axes.get_figure()
    room = int(LEGEND_LETTERS_PER_INCH * figure.get_figwidth())
    names = [n if len(n) + SIGN_LETTERS <= room else n[: room - SIGN_LETTERS - 1] + "…" for n in names]
    columns = max(1, min(3, room // (max(map(len, names)) + SIGN_LETTERS)))
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(names) // columns))
    figure.legend(handles, names, frameon=False, ncols=columns, loc="outside lower center", **options)


def _wrapped(title: str, axes: Any) -> str:
    """A title in lines that fit the width of the figure."""
    letters = int(LETTERS_PER_INCH * axes.figure.get_figwidth())
    return "\n".join(line for part in title.split("\n") for line in textwrap.wrap(part, letters))


class Drawing(NamedTuple):
    """A figure to be drawn: `draw(*arguments)`, written beside `stem`."""

    draw: Callable[..., Any]
    arguments: tuple[Any, ...]
    stem: Path

    @property
    def png(self) -> Path:
        """Where the picture will be."""
        return self.stem.with_suffix(".png")


class FigurePool(NamedTuple):
    """`draw` takes a drawing and comes back at once; `finish` waits until all are written, and raises what went wrong."""

    draw: Callable[[Drawing], None]
    finish: Callable[[], None]


@contextmanager
def figure_pool() -> Iterator[FigurePool]:
    """Other processes draw and write while the caller goes on; they make themselves ready while there is nothing to draw yet.

    With one processor each drawing is drawn at once.
    """
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    if workers < 2:
        yield FigurePool(_draw, lambda: None)
        return
    # What the caller needs as well is imported once, before there are several to do so.
    import pandas  # noqa: F401
    from scipy import stats  # noqa: F401

    waiting: list[Future[None]] = []
    gc.freeze()  # what the processes share is left alone by their collectors, so that it is not copied
    try:
        with process_pool(workers) as pool:
            for _ in range(workers):
                waiting.append(pool.submit(make_ready))

            def finish() -> None:
                for one in waiting:
                    one.result()

            try:
                yield FigurePool(lambda drawing: waiting.append(pool.submit(_draw, drawing)), finish)
            finally:
                for one in waiting:  # after an error nobody waits for those that have not begun
                    one.cancel()
    finally:
        gc.unfreeze()


def make_ready() -> None:
    """Import what draws, which takes a while; processes that are started later have it then."""
    _axes_module()


def _draw(drawing: Drawing) -> None:
    save(drawing.draw(*drawing.arguments), drawing.stem)


def save(figure: Any, stem: Path) -> list[Path]:
    """Write PNG (200 dpi), SVG and PDF beside each other, and close the figure. Equal input gives equal files."""
    from matplotlib import pyplot as plt

    paths = []
    # The layout is found once, not anew for every format; with no engine left nothing is drawn twice to find it again.
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


def _axes_module() -> Any:
    """pyplot in the common style, writing to files only."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    # Titles stand right above their axes; left to itself matplotlib lays all tick labels out once more to find that out.
    # The font comes with matplotlib, so that pictures are the same everywhere; seaborn would prefer Arial where there is one.
    # Nothing that came out of a container is a formula.
    style = {"axes.titley": 1.0, "font.sans-serif": ["DejaVu Sans"], "text.parse_math": False}
    sns.set_theme(style="whitegrid", font_scale=0.85, rc=style)
    return plt


def _axes(width: float = 4.8, height: float = 3.4) -> tuple[Any, Any]:
    """An empty figure in the common style; points drawn into it are jittered the same way every time."""
    np.random.seed(JITTER_SEED)  # seaborn takes its jitter from here
    return _axes_module().subplots(figsize=(width, height), layout="constrained")


def ratio_curves(runs: pd.DataFrame, found: pd.DataFrame, title: str, overlays: Overlays) -> Any:
    """Score over the label ratio (Figure 3): every run a point, the mean as a line, the 95 % interval as a band where n allows.

    The points of a method stand a little beside their ratio, each method's at a distance of its own.
    `overlays`: method to published (ratio, per cent) pairs, thin and grey.
    """
    figure, axes = _axes()
    middle = (found["row"].nunique() - 1) / 2
    within = places_of(found)
    for place, (name, mine) in enumerate(found.groupby("row", sort=False)):
        colour = colour_of(mine["method"].iloc[0])
        mine = mine.sort_values("label_percent")
        x = mine["label_percent"].to_numpy()
        dash = DASHES[within[str(name)] % len(DASHES)]
        axes.plot(x, mine["mean"], color=colour, lw=1.4, ls=dash, label=str(name))
        if np.isfinite(mine["low"]).any():
            axes.fill_between(x, mine["low"], mine["high"], color=colour, alpha=0.1, lw=0)
        column = f"score_{mine['checkpoint'].iloc[0]}"
        points = runs[(runs["row"] == name) & (runs["outcome"] == "ok")]
        axes.scatter(
            points["label_percent"] * (1 + DODGE) ** (place - middle), 100 * points[column], color=colour,
            s=5 if len(points) > MANY_POINTS else 12, alpha=0.7, lw=0, zorder=1.5, rasterized=len(points) > MANY_POINTS,
        )  # fmt: skip
    _draw_overlays(axes, overlays)
    axes.set_xscale("log")
    ticks = sorted(found["label_percent"].dropna().unique())
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labelled training scenes (%)")
    axes.set_ylabel(judged_by(runs))
    axes.set_title(_wrapped(title, axes), fontsize=9)
    _legend(axes, fontsize=8)
    return figure


BOX_FROM, VIOLIN_FROM = 5, 20


def gain_distribution(found: pd.DataFrame, title: str) -> Any:
    """Gains over scratch across tasks and ratios (Figure 4): every cell a point; a box from 5 cells on, a violin from 20.

    A method that was pre-trained in several ways has a column for each.
    """
    import seaborn as sns

    known = found[found["gain"].notna()]
    methods = dict(zip(known["row"], known["method"], strict=True))
    order = [name for m in _methods_of(known) for name in sorted(methods) if methods[name] == m]
    figure, axes = _axes(max(3.4, 0.9 * len(order) + 1.6))
    palette = {name: colour_of(m) for name, m in methods.items()}
    sizes = known["row"].value_counts()
    boxed = known[known["row"].map(sizes) >= BOX_FROM]
    wide = known[known["row"].map(sizes) >= VIOLIN_FROM]
    common = {"x": "row", "y": "gain", "order": order, "ax": axes}
    if len(wide):
        sns.violinplot(wide, color="#dddddd", inner=None, cut=0, linewidth=0, **common)
    if len(boxed):
        sns.boxplot(boxed, width=0.35, showfliers=False, fill=False, color="#888888", linewidth=0.9, **common)
    sns.stripplot(known, hue="row", palette=palette, legend=False, size=5, jitter=0.12, **common)
    axes.set_xticks(range(len(order)), _in_lines(order))
    _finish_gains(axes, "pre-training method", title)
    return figure


def _methods_of(known: pd.DataFrame) -> list[str]:
    """The methods there are, in the order of their colours, others after them."""
    there = set(known["method"])
    return [m for m in COLOURS if m in there] + sorted(there - set(COLOURS))


def _finish_gains(axes: Any, across: str, title: str) -> None:
    """Axes of gains over scratch: a line where nothing is gained, and what is shown."""
    axes.axhline(0, color="#555555", lw=0.8, ls="--", zorder=1)
    axes.set_xlabel(across)
    axes.set_ylabel("gain over scratch (points of the metric)")
    axes.set_title(_wrapped(title, axes), fontsize=9)


def same_and_other(known: pd.DataFrame, title: str) -> Any:
    """Gains where the method was pre-trained on the task's own dataset, beside those where on another (paper V-A)."""
    import seaborn as sns

    order = _methods_of(known)
    figure, axes = _axes(max(3.8, 1.0 * len(order) + 1.6))
    kinds = sorted(set(known["pre-trained on"]), reverse=True)
    shades = dict(zip(kinds, ("#0072B2", "#E69F00"), strict=False))
    common = {
        "x": "method",
        "y": "gain",
        "hue": "pre-trained on",
        "order": order,
        "hue_order": kinds,
    }
    sns.stripplot(known, palette=shades, dodge=len(kinds) > 1, jitter=0.08, size=5, ax=axes, **common)
    _finish_gains(axes, "pre-training method", title)
    _legend(axes, fontsize=7, title="pre-trained on", title_fontsize=7)
    return figure


RESIDUAL = "residual: interaction of the two seeds (one run a cell)"


def variance_split(found: pd.DataFrame, title: str) -> Any:
    """Standard deviations over pre-training seeds, fine-tuning seeds and the rest, side by side for every method and ratio; where
    runs are missing nothing can be told apart, and a word says so."""
    kinds = ["pre-training seed", "fine-tuning seed", "residual"]
    figure, axes = _axes(5.2, 0.32 * len(found) + 1.5)
    places = np.arange(len(found))
    for i, (kind, colour) in enumerate(zip(kinds, ("#0072B2", "#E69F00", "#BBBBBB"), strict=True)):
        label = kind if kind != "residual" else RESIDUAL
        axes.barh(places + (i - 1) * 0.27, found[kind], height=0.25, color=colour, label=label)
    for place, missing in enumerate(found["missing"]):
        if missing:
            axes.annotate(
                f"not told apart: {missing} run{'s' * (missing > 1)} missing", (0, place), xytext=(3, 0),
                textcoords="offset points", va="center", fontsize=6, color="#B00020",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
    telling = [
        c
        for c in ("method", "task", "label_ratio", "budget")
        if c in ("method", "label_ratio") or found[c].nunique() > 1
    ]
    for column in ("dataset", "profile", "protocol"):
        if found.duplicated([*telling, column]).sum() < found.duplicated(telling).sum():
            telling.append(column)
    found = found.assign(protocol="#" + found["protocol"])
    rows = [", ".join(map(str, r)) for r in found[telling].itertuples(index=False, name=None)]
    axes.set_yticks(places, rows, fontsize=7)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("standard deviation (points of the metric)")
    axes.set_title(_wrapped(title, axes), fontsize=9)
    figure.legend(frameon=False, fontsize=7, loc="outside lower center")
    return figure


def rank_diagram(methods: list[str], ranks: Ranking, title: str) -> Any:
    """Mean ranks on a line, best on the left; a bar joins methods nearer than the critical difference (Nemenyi).

    Raises ValueError without a critical difference: then no ranking is supported, and none is drawn.
    """
    if ranks.critical_difference is None:
        raise ValueError("Friedman's test supports no ranking")
    order = np.argsort(ranks.mean_ranks, kind="stable")
    places = ranks.mean_ranks[order]
    figure, axes = _axes(5.2, 0.18 * len(methods) + 1.4)
    axes.axis("off")
    count = len(methods)
    half = (count + 1) // 2
    axes.set_xlim(-0.35 * count, 1.35 * count + 1)
    axes.set_ylim(-half - 0.6, 1.6)
    axes.plot([1, count], [0, 0], color="#333333", lw=1)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.25], color="#333333", lw=1)
        axes.text(rank, 0.35, str(rank), ha="center", fontsize=7)
    for number, (index, place) in enumerate(zip(order, places, strict=True)):
        # The better half goes out to the left, the rest to the right, so that no line crosses a name.
        left = number < half
        name, line = methods[index], number + 1 if left else count - number
        colour = colour_of(name.split(" ")[0])
        depth, end = -0.5 - 0.75 * line, 0.8 if left else count + 0.2
        axes.plot([place, place, end], [0, depth, depth], color=colour, lw=1.2)
        where = {"ha": "right", "x": end - 0.08} if left else {"ha": "left", "x": end + 0.08}
        axes.text(y=depth, s=f"{name} ({place:.1f})", va="center", fontsize=7, **where)
    level, reached = -0.22, -np.inf
    for first in range(count):
        last = int(np.flatnonzero(places - places[first] < ranks.critical_difference).max())
        if last > first and places[last] > reached:
            axes.plot(
                [places[first] - 0.04, places[last] + 0.04],
                [level, level],
                color="#333333",
                lw=3,
                solid_capstyle="butt",
            )
            level, reached = level - 0.22, places[last]
    axes.plot([1, 1 + ranks.critical_difference], [1.15, 1.15], color="#333333", lw=1)
    axes.text(1, 1.25, f"critical difference {ranks.critical_difference:.2f}", fontsize=7)
    axes.set_title(_wrapped(title, axes), fontsize=9)
    return figure


def paired_scores(pairs: pd.DataFrame, names: tuple[str, str], title: str) -> Any:
    """Every pair of twins as a point, A across and B up; on the dashed line nothing changed."""
    known = pairs[pairs["score_a"].notna() & pairs["score_b"].notna()]
    figure, axes = _axes(4.4, 3.9)
    places = places_of(known)
    for row, mine in known.groupby("row", sort=False):
        colour, marker = colour_of(mine["method"].iloc[0]), MARKERS[places[str(row)] % len(MARKERS)]
        look = {"color": colour, "marker": marker, "s": 16, "alpha": 0.75, "lw": 0}
        axes.scatter(mine["score_a"], mine["score_b"], label=str(row), **look)
    scores = known[["score_a", "score_b"]].to_numpy()
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 100.0)
    margin = max(MIN_SPAN - (high - low), 0.1 * (high - low)) / 2
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="#555555", lw=0.8, ls="--", zorder=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"A: {names[0]}, score (%)")
    axes.set_ylabel(f"B: {names[1]}, score (%)")
    axes.set_title(_wrapped(title, axes), fontsize=8)
    if len(known):
        _legend(axes, fontsize=7)
    return figure


def class_heat_map(table: pd.DataFrame, metric: str, title: str) -> Any:
    """Values of each class and method, mean over pre-trainings, in per cent; a class without labels stays empty. `metric` is what
    the task is judged by, the mean over these classes."""
    import seaborn as sns

    figure, axes = _axes(0.42 * table.shape[1] + 2.4, 0.34 * len(table) + 1.9)
    sns.heatmap(
        table, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=100, ax=axes, cbar_kws={"label": class_metric(metric)},
        annot_kws={"fontsize": 7},
    )  # fmt: skip
    known = np.isfinite(table.to_numpy()).ravel()
    for text, shade in zip(axes.texts, axes.collections[0].get_facecolors()[known], strict=True):
        text.set_color("#000000" if _luminance(shade) > HALF_LUMINANCE else "#ffffff")
    axes.set_xlabel("class")
    axes.set_ylabel("")
    axes.tick_params(axis="x", rotation=60)
    axes.set_title(_wrapped(title, axes), fontsize=9)
    return figure


HALF_LUMINANCE = 0.179
"""Where black and white letters have the same contrast (WCAG 2)."""


def _luminance(colour: Any) -> float:
    """Relative luminance of an sRGB colour."""
    levels = np.asarray(colour[:3])
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def cost_against_gain(found: pd.DataFrame, title: str) -> Any:
    """Hours of one pre-training against the gain over scratch, with its interval where n allows. `found` has `hours` and
    `hours_of`, what they are of."""
    known = found[found["gain"].notna()]
    places = places_of(known)
    figure, axes = _axes()
    for row in known.to_dict("records"):
        colour, marker = colour_of(row["method"]), MARKERS[places[row["row"]] % len(MARKERS)]
        if np.isfinite(row["gain_low"]):
            axes.plot([row["hours"]] * 2, [row["gain_low"], row["gain_high"]], color=colour, lw=1, alpha=0.6)
        axes.scatter(row["hours"], row["gain"], color=colour, marker=marker, s=26, zorder=3)
    for name, method in dict(zip(known["row"], known["method"], strict=True)).items():
        axes.scatter([], [], color=colour_of(method), marker=MARKERS[places[name] % len(MARKERS)], label=name)
    if len(known):
        axes.set_xlim(0, 1.08 * known["hours"].max() or 1)
        axes.locator_params(axis="x", nbins=5)  # cheap ones need many digits
    _finish_gains(axes, f"{found['hours_of'].iloc[0]} of one pre-training", title)
    _legend(axes, fontsize=8)
    return figure
