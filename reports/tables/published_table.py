"""Published numbers without a comparable row, with the differences in protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.reports.analysis import published
from pretrain_bench.reports.analysis.published_protocol import difference, with_protocol
from pretrain_bench.reports.analysis.sorting import ratio_key
from pretrain_bench.reports.tables.effect_cells import Effect
from pretrain_bench.reports.tables.wording import format_budget

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = "the paper's numbers (%)"


class _Source(NamedTuple):
    """A place where the paper shows one cell, and its value in per cent; None for a curve or values per class."""

    name: str
    value: float | None


def published_table(effects: pd.DataFrame) -> pd.DataFrame:
    """One row for each task, label ratio and difference in protocol: where the paper shows the cell, the numbers of the methods
    that were run, and the difference as a sentence. Empty if every row follows the paper's protocol, or if the paper reports none
    of them."""
    import pandas as pd

    listed: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for effect in sorted(with_protocol(effects), key=lambda e: (e["task"], ratio_key(str(e["label_ratio"])))):
        words = difference(effect)
        for source in _sources(effect) if words else ():
            budget = format_budget(effect["budget"], effect["profile"])
            which = (effect["task"], effect["label_ratio"], budget, words)
            number = "" if source.value is None else f"{effect['published_as']} {source.value:.1f}"
            listed.setdefault(which, []).append((source.name, number))
    rows = [
        {
            "task": task,
            "labels": ratio,
            "budget": budget,
            "from": _in_order(source for source, _ in shown),
            NUMBERS: _in_order(number for _, number in shown) or "-",
            "why not shown beside these rows": words,
        }
        for (task, ratio, budget, words), shown in listed.items()
    ]
    return pd.DataFrame(rows)


def _in_order(texts: Iterable[str]) -> str:
    """The distinct non-empty texts."""
    return ", ".join(filter(None, dict.fromkeys(texts)))


def _sources(effect: Effect) -> Iterator[_Source]:
    """All places where the paper shows the cell of a row."""
    task, method, percent = str(effect["task"]), str(effect["published_as"]), float(effect["label_percent"])
    whole = published.score_of(task, method) if percent == 100 else None
    if whole is not None:
        yield _Source("Table I", whole.value)
    at = dict(published.ratio_curve(task, method)).get(percent)
    if at is not None and whole is None:
        yield _Source("Figure 3", at)
    if published.validation_curve(task, percent, method):
        yield _Source("curves of Figure 5", None)
    if percent == 100 and method in published.per_class(task):
        yield _Source("values per class", None)
