"""Families of effects: one task under one protocol, budget and profile, at its label ratios."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrain_bench.benchmarks.specs.probes import FINETUNE
from pretrain_bench.reports.analysis.columns import ACROSS_RATIOS
from pretrain_bench.reports.analysis.titles import protocol_mark

if TYPE_CHECKING:
    import pandas as pd


class Family(NamedTuple):
    """Effects of one task: its shared columns ACROSS_RATIOS, its title in tables and figures, a short unique `head`, and the
    effects themselves."""

    key: dict[str, Any]
    title: str
    head: str
    effects: pd.DataFrame


def families(effects: pd.DataFrame) -> list[Family]:
    """The families with at least two label ratios, in the order that numbers their tables and figures."""
    return [family for family in task_families(effects) if family.effects["label_ratio"].nunique() > 1]


def task_families(effects: pd.DataFrame) -> list[Family]:
    """All families, including those with a single label ratio."""
    groups = list(effects.groupby(ACROSS_RATIOS, sort=True, dropna=False)) if len(effects) else []
    keys = [dict(zip(ACROSS_RATIOS, names, strict=True)) for names, _ in groups]
    several: list[Family] = []
    seen: set[tuple[str, bool]] = set()
    for key, head, (_, group) in zip(keys, _heads(keys), groups, strict=True):
        title = (
            f"{key['task']} on {key['dataset']}, budget {key['budget']}, profile {key['profile']}, "
            f"{group['checkpoint'].iloc[0]} checkpoint{protocol_mark(key['protocol'])}"
        )
        # A table of ratios is numbered among those at several ratios, and so are its equals.
        same = (title, group["label_ratio"].nunique() > 1)
        title += f" #{key['family']}" * (same in seen)
        seen.add(same)
        several.append(Family(key, title, head, group))
    return several


def _heads(keys: list[dict[str, Any]]) -> list[str]:
    """The task of each family, plus what distinguishes it from other families of the task."""
    shown = {name for name in ("dataset", "budget", "profile") if _varies(keys, name)}
    heads = []
    for key in keys:
        extra = [str(key[name]) for name in ("dataset", "budget", "profile") if name in shown]
        extra += [str(key["protocol"])] if key["protocol"] != FINETUNE else []
        extra = [text for i, text in enumerate(extra) if text not in extra[:i]]
        heads.append(str(key["task"]) + f" ({', '.join(extra)})" * bool(extra))
    counts = Counter(heads)
    return [f"{h} #{key['family']}" if counts[h] > 1 else h for h, key in zip(heads, keys, strict=True)]


def _varies(keys: list[dict[str, Any]], name: str) -> bool:
    """Whether a column differs between families of a task."""
    return len({(key["task"], key[name]) for key in keys}) > len({key["task"] for key in keys})
