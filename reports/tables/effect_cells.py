"""Cells of tables of effects: `66.5 ±1.2 (+1.4) n=3 [paper 66.5]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pretrain_bench.reports.analysis.published import pretrained_as_published
from pretrain_bench.reports.analysis.statistics import Estimate
from pretrain_bench.reports.tables.wording import failures_of_effect, format_estimate

Effect = Mapping[Any, Any]
"""One row of `analysis.effects.effects`."""


def effect_cell(effect: Effect, paper: float | None, whole: bool = False) -> str:
    """Mean, half the interval, gain and n. `paper`: the published number of the same cell; `whole`: with the interval of the gain
    and its verdict."""
    text = f"{effect['mean']:.1f}" if effect["n"] else ""
    if effect["n"] and np.isfinite(effect["low"]):
        text += f" ±{(effect['high'] - effect['low']) / 2:.1f}"
    if effect["n"] and np.isfinite(effect["gain"]):
        text += f" ({_gain(effect) if whole else format(effect['gain'], '+.1f')})"
    if effect["n"]:
        text += f" n={effect['n']}"
    text = ", ".join(part for part in (text, failures_of_effect(effect)) if part)
    return text if paper is None else f"{text} [paper {paper:.1f}]"


def beside_published(effect: Effect, with_published: bool) -> bool:
    """Whether a published number may stand in this cell: on real data or by request, and only for a method pre-trained like the
    paper's."""
    return (with_published or not effect["synthetic"]) and pretrained_as_published(str(effect["pretrain_dataset"]))


def _gain(effect: Effect) -> str:
    gap = Estimate(effect["gain"], effect["gain_low"], effect["gain_high"], effect["n"])
    text = format_estimate(gap, signed=True)
    return text if effect["verdict"].startswith("cannot be tested") else f"{text} {effect['verdict']}"
