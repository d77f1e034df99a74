"""Recognise a renamed budget: runs in the store under an earlier name of the same budget count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pretrain_bench.benchmarks.specs.budget import Budget, BudgetHalf
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.foreign_files import read_json
from pretrain_bench.harness.planning.catalog import available
from pretrain_bench.harness.store.store import KINDS, SPEC, Store


def known_budget(budget: Budget, methods: Iterable[Method], store: Store) -> tuple[Budget, str | None]:
    """The budget under the name and version that the store knows it by, and a notice about the renaming.

    A shipped budget, or one with runs under its own name in the store, keeps its name. Budgets are compared by the fields that
    enter keys: currency, amounts, uniformity, schedule, loader workers and wall time; other caps may differ.
    """
    if budget.name in available(Budget):
        return budget, None
    shares = {(m.name, stage.name): stage.share for m in methods for stage in m.stages}
    stages: dict[tuple[str, int], list[_Stage]] = defaultdict(list)
    for kind, spec in _specs(store):
        limits = spec["limits"]
        half = budget.pretrain if kind == "pretrain" else budget.finetune
        if kind == "features" or (spec.get("probe") or {}).get("protocol") == "linear":
            half = half.model_copy(update={"uniformity": "at_most"})  # these stages take no steps
        share = shares.get((spec["method"], spec["stage"])) if kind == "pretrain" else 1.0
        stages[limits["budget"], limits["budget_version"]].append(_Stage(kind, half, share, limits))
    if (budget.name, budget.version) in stages:
        return budget, None
    for (name, version), seen in sorted(stages.items()):
        if all(_is_of(budget, stage) for stage in seen) and _shows_amounts(seen, any(shares.values())):
            line = f"budget {budget.name} is {name} v{version} renamed: its runs count, and new ones are listed under {name}"
            return budget.model_copy(update={"name": name, "version": version}), line
    return budget, None


class _Stage(NamedTuple):
    """A stage of the store: its kind, the budget half that applies to it, its share of that half (None if its method is not
    available), and the limits in its spec."""

    kind: str
    half: BudgetHalf
    share: float | None
    limits: Mapping[str, Any]


def _is_of(budget: Budget, stage: _Stage) -> bool:
    """Whether a stage had the limits that the budget gives it."""
    _, half, share, limits = stage
    fields = {"uniformity": "at_most", "loader_workers": 0, "wall_seconds": None}
    same = all(limits.get(name, default) == getattr(half, name) for name, default in fields.items())
    same = same and limits["currency"] == half.currency.value and limits["schedule_horizon"] == budget.schedule_horizon
    return same and (share is None or abs(limits["amount"] - half.amount * share) < 1e-6)


def _shows_amounts(stages: list[_Stage], pretrains: bool) -> bool:
    """Whether these stages reveal the amount of each half that the suite uses; a pre-training without a share reveals none."""
    shown = {stage.kind == "pretrain" for stage in stages if stage.share}
    return len(shown) >= (2 if pretrains else 1)


def _specs(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and spec of every run; the audit reports damaged ones."""
    for kind in KINDS:
        for folder in sorted((store.root / kind).glob("[!.]*")):
            try:
                spec = read_json(folder / SPEC, below=folder)
                if {"currency", "amount", "schedule_horizon", "budget", "budget_version"} <= set(spec["limits"]):
                    yield kind, spec
            except (OSError, ValueError, KeyError, TypeError):
                continue
