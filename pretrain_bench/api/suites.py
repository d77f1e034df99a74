"""Suites by name, from a file, or built in code."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterable
from typing import get_args

from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.loading import parse_spec
from pretrain_bench.benchmarks.specs.probes import Protocol
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.imported_method import import_request

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One name or path, or several."""
Ratios = str | float | Iterable[str | float]
"""One label ratio or several, each as text, as a fraction such as 0.2, or as a percentage such as 20."""
Seeds = int | Iterable[int]
"""One seed, or several."""


def suite(name: str | os.PathLike[str]) -> Suite:
    """A shipped suite by name, or your own by the path of its YAML file. Raises WrongUse."""
    return find(Suite, name)


def list_suites() -> list[Suite]:
    """The shipped suites, sorted by name."""
    return [find(Suite, name) for name in available(Suite)]


def cells(
    methods: Names,
    tasks: Names,
    *,
    budget: str | os.PathLike[str] = "uniform",
    profile: str | os.PathLike[str] | None = None,
    protocols: str | Iterable[str] = ("finetune",),
    label_ratios: Ratios = ("100%",),
    pretrain_seeds: Seeds | None = None,
    finetune_seeds: Seeds = (0,),
) -> Suite:
    """A suite built in code: every method on every task, under every protocol, at every label ratio, with every pair of
    seeds.

    Args:
        methods: names, or folders of your own; `mine=a.pth,b.pth` are your checkpoints, each a pre-training seed from 0.
        tasks: names, or YAML files of your own.
        budget: a name or a YAML file; `uniform` by default.
        profile: a name or a YAML file; the one that the budget names by default.
        protocols: `finetune`, `linear` (frozen backbone) and `decoder` (frozen encoder).
        label_ratios: texts such as "20%", "20points" or "scannet-lr20", or numbers: 0.2 and 20 are 20 %; 1 is refused.
        pretrain_seeds: 0 by default, or one for each file of the method with the most files.
        finetune_seeds: 0 by default.

    Raises WrongUse for a malformed value; names are looked up when the suite is planned or run.
    """
    for protocol in as_list(protocols):
        if protocol not in get_args(Protocol):
            raise WrongUse(f"--protocol {protocol!r}: expected one of {', '.join(get_args(Protocol))}")
    fields = {
        "name": "cells",
        "version": 1,
        "budget": os.fspath(budget),
        "profile": None if profile is None else os.fspath(profile),
        "methods": as_list(methods),
        "tasks": as_list(tasks),
        "protocols": as_list(protocols),
        "label_ratios": [str(LabelRatio.parse(ratio)) for ratio in _as_ratios(label_ratios)],
        "pretrain_seeds": _as_seeds(
            "pretrain_seeds", _seeds_of_files(methods) if pretrain_seeds is None else pretrain_seeds
        ),
        "finetune_seeds": _as_seeds("finetune_seeds", finetune_seeds),
    }
    return parse_spec(fields, Suite, "methods, tasks and ratios of the command")


def _seeds_of_files(methods: Names) -> range:
    """One pre-training seed for each file of the imported method with the most files; 0 without imported methods."""
    requests = [import_request(text) for text in as_list(methods)]
    return range(max((len(r.files) for r in requests if r is not None), default=1))


def _as_seeds(name: str, seeds: Seeds) -> list[int]:
    """One seed, or several. Raises WrongUse for what is not a whole number."""
    with contextlib.suppress(TypeError):
        return [operator.index(seeds)]  # type: ignore[arg-type]
    try:
        return [operator.index(seed) for seed in seeds]  # type: ignore[union-attr]
    except TypeError:
        raise WrongUse(f"{name} {seeds!r}: expected a whole number from 0, or a list of them") from None


def _as_ratios(ratios: Ratios) -> list[str]:
    """Label ratios as texts. Raises WrongUse for other types, and for 1, which may mean 1 % or all labels."""
    several = list(ratios) if isinstance(ratios, Iterable) and not isinstance(ratios, str) else [ratios]
    for ratio in several:
        if isinstance(ratio, bool) or not isinstance(ratio, str | float | int):
            raise WrongUse(
                f"label_ratios {ratios!r}: expected a text such as '20%' or a number such as 0.2, or a list of them"
            )
        if ratio == 1:
            raise WrongUse(f"label_ratios {ratios!r}: 1 may mean 1 % or all labels; give '1%' or '100%'")
    return [str(ratio) for ratio in several]


def as_list(values: Names) -> list[str]:
    """One name or path, or several, as texts. Raises WrongUse for anything else."""
    several = [values] if isinstance(values, str | os.PathLike) else values
    try:
        return [os.fspath(value) for value in several]
    except TypeError:
        raise WrongUse(f"{values!r}: expected a name or a path, or a list of them") from None
