"""The answers of a report: one sentence per task, derived from the tests behind its tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pretrain_bench.reports.analysis.families import Family, task_families
from pretrain_bench.reports.analysis.method_cards import BASELINE
from pretrain_bench.reports.analysis.ranks import OverTasks
from pretrain_bench.reports.analysis.sorting import method_places, ratio_key
from pretrain_bench.reports.analysis.statistics import ALPHA, DECIDED, NO_SPREAD, TESTED, TOO_FEW
from pretrain_bench.reports.analysis.titles import protocol_mark

if TYPE_CHECKING:
    import pandas as pd

Effect = Mapping[Any, Any]
DIFFERS, UNDECIDED = TESTED
MOST_INTERVALS = 2
"""Largest number of intervals for one row in a sentence; the overview has the others."""


class Answer(NamedTuple):
    """The finding for one task as a sentence, and a note on its number of comparisons and their correction."""

    sentence: str
    comparisons: str


def answers(effects: pd.DataFrame) -> list[Answer]:
    """One answer per task, from `analysis.effects.effects`: which rows are better or worse than scratch at which label ratios,
    which are undecided, and how many more seeds would show 1 point."""
    return [Answer(_sentence(family), _comparisons(family)) for family in task_families(effects)]


def answers_over_tasks(several: Iterable[OverTasks]) -> list[Answer]:
    """One answer per budget with several tasks, from Holm-corrected tests of the mean gain over them."""
    return [
        Answer(
            _sentence_over_tasks(over),
            f"{tested} comparisons, with Holm's correction" if tested > 1 else "one comparison",
        )
        for over in several
        if (tested := sum(gain.adjusted_p is not None for gain in over.gains.values()))
    ]


def _sentence_over_tasks(over: OverTasks) -> str:
    differ = [
        f"{name} ({gain.gain.mean:+.1f}, n = {gain.seeds})"
        for name, gain in over.gains.items()
        if gain.gain is not None and gain.verdict == DIFFERS
    ]
    words = (
        f"{_listed(differ)} differ{'s' * (len(differ) == 1)} from {BASELINE}"
        if differ
        else f"no method differs from {BASELINE}"
    )
    under = f"budget {over.budget}" + protocol_mark(over.protocol)
    return f"On the mean of {over.tasks} tasks at all labels ({under}), {words}."


def _sentence(family: Family) -> str:
    reason = _nothing_to_compare(family.effects)
    if reason:
        return f"On {family.head}, {reason}."
    rows = _rows(family)
    clauses = [
        clause
        for word in DECIDED
        for name, cells in rows.items()
        if (clause := _decided(name, word, [c for c in cells if c["verdict"] == word]))
    ]
    clauses += filter(
        None, (_equivalent(rows), _undecided(rows), *_untested(rows), *_not_compared(rows), _failed(rows))
    )
    return f"On {family.head}, {'; '.join(clauses)}."


def _nothing_to_compare(effects: pd.DataFrame) -> str:
    """Why a family has no comparison at all; empty if it has one."""
    base = effects[effects["method"] == BASELINE]
    if not len(base):
        return f"{BASELINE} was not run, so no method can be compared with it"
    if not (base["n"] > 0).any():
        return f"no run of {BASELINE} succeeded, so no method can be compared with it"
    if len(base) == len(effects):
        return f"only {BASELINE} was run"
    return ""


class _Baseline(NamedTuple):
    """Scratch in one group of runs: its n, and why no row is compared with it; empty if rows are."""

    n: int
    reason: str


def _baseline(group: pd.DataFrame) -> _Baseline:
    base = group[group["method"] == BASELINE]
    kinds = base[base["runs"] > 0]
    if len(kinds) > 1:
        return _Baseline(0, f"not compared, since several kinds of {BASELINE} were run: {', '.join(kinds['row'])}")
    n = int(kinds["n"].sum())
    if n:
        return _Baseline(n, "")
    return _Baseline(0, f"without a {'successful ' * bool(len(base))}run of {BASELINE} to compare with")


def _rows(family: Family) -> dict[str, list[Effect]]:
    """The effects of every row except scratch, in table order, each by label ratio. Adds `at`, which names its group, and
    `baseline`, the scratch of the group."""
    effects = family.effects
    baselines = {names: _baseline(group) for names, group in effects.groupby(["label_ratio", "conditions"])}
    groups_at = Counter(ratio for ratio, _ in baselines)
    rows: dict[str, list[Effect]] = {}
    others = effects[effects["method"] != BASELINE].sort_values("method", key=method_places, kind="stable")
    for effect in others.to_dict("records"):
        ratio, conditions = effect["label_ratio"], effect["conditions"]
        # Groups of one ratio differ in their recipe or code.
        at = f"{ratio} #{conditions}" if groups_at[ratio] > 1 else str(ratio)
        named = {**effect, "at": at, "baseline": baselines[ratio, conditions]}
        rows.setdefault(str(effect["row"]), []).append(named)
    return {name: sorted(cells, key=lambda c: ratio_key(str(c["label_ratio"]))) for name, cells in rows.items()}


def _decided(name: str, word: str, cells: Sequence[Effect]) -> str:
    """A row's differences of one kind: each with its interval up to MOST_INTERVALS of them, else their range."""
    if not cells:
        return ""
    seeds = sorted({c["n"] for c in cells})
    if len(cells) > MOST_INTERVALS:
        gains = sorted((c["gain"] for c in cells), key=abs)
        n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        shown = f"at {_at(cells)} ({gains[0]:+.1f} to {gains[-1]:+.1f}, n = {n})"
    else:
        shown = _listed(
            [
                f"at {_at([c])} ({c['gain']:+.1f} [{c['gain_low']:.1f}, {c['gain_high']:.1f}], n = {c['n']})"
                for c in cells
            ]
        )
    return f"{name} is {word} than {BASELINE} {shown}"


def _equivalent(rows: Mapping[str, Sequence[Effect]]) -> str:
    return _clause(
        rows, lambda c: str(c["verdict"]).startswith("equivalent"), f"equivalent to {BASELINE} within 1 point"
    )


def _undecided(rows: Mapping[str, Sequence[Effect]]) -> str:
    clause = _clause(rows, lambda c: c["verdict"] == UNDECIDED, f"not distinguishable from {BASELINE}")
    missing = [
        math.ceil(c["seeds_for_1"]) - min(c["n"], c["baseline"].n)
        for cells in rows.values()
        for c in cells
        if c["verdict"] == UNDECIDED and np.isfinite(c["seeds_for_1"])
    ]
    more = [seeds for seeds in missing if seeds > 0]
    if not clause or not more:
        return clause
    number = f"{min(more)}" if min(more) == max(more) else f"{min(more)} to {max(more)}"
    return f"{clause} (about {number} more seeds of each method would show a difference of 1 point)"


def _untested(rows: Mapping[str, Sequence[Effect]]) -> Iterable[str]:
    yield _clause(rows, lambda c: c["verdict"] == TOO_FEW, "not tested, which needs two pre-training seeds per method")
    yield _clause(rows, lambda c: c["verdict"] == NO_SPREAD, "not tested, since all runs have the same score")


def _not_compared(rows: Mapping[str, Sequence[Effect]]) -> Iterable[str]:
    reasons = dict.fromkeys(c["baseline"].reason for cells in rows.values() for c in cells if c["n"])
    for reason in filter(None, reasons):
        yield _clause(rows, partial(_lacks_scratch, reason=reason), reason)


def _lacks_scratch(effect: Effect, reason: str) -> bool:
    return effect["n"] > 0 and effect["baseline"].reason == reason


def _failed(rows: Mapping[str, Sequence[Effect]]) -> str:
    return _clause(rows, lambda c: c["n"] == 0, "without a successful run")


def _clause(rows: Mapping[str, Sequence[Effect]], belongs: Callable[[Effect], bool], words: str) -> str:
    """`csc and ours at 5% of the labels are WORDS`; empty if no effect belongs."""
    names = _names(rows, belongs)
    return f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {words}" if names else ""


def _names(rows: Mapping[str, Sequence[Effect]], belongs: Callable[[Effect], bool]) -> list[str]:
    """The rows with effects that belong, with their label ratios unless all of them do."""
    names = []
    for name, cells in rows.items():
        mine = [c for c in cells if belongs(c)]
        if mine:
            names.append(name if len(mine) == len(cells) else f"{name} at {_at(mine)}")
    return names


def _at(cells: Sequence[Effect]) -> str:
    """Label ratios in words: `5%, 20% and 100% of the labels`, `all labels`."""
    ratios = [c["at"] for c in cells]
    if ratios == ["100%"]:
        return "all labels"
    return _listed(ratios) + " of the labels" * all(ratio.endswith("%") for ratio in ratios)


def _listed(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _comparisons(family: Family) -> str:
    """The number of tests behind a sentence, and which differences remain after correction for that number."""
    tested = int(family.effects["p"].notna().sum())
    if tested < 2:
        return "one comparison" if tested else "no test"
    text = f"{tested} comparisons, uncorrected"
    rows = _rows(family)
    if not _names(rows, lambda c: c["verdict"] in DECIDED):
        return text
    remain = _names(rows, lambda c: c["verdict"] in DECIDED and c["p_holm"] < ALPHA)
    return f"{text}; with Holm's correction better or worse: {_listed(remain) if remain else 'none'}"
