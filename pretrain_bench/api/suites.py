"""Suites by name, from a file, or built in code."""

from __future__ import annotations

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


def suite(name: str | os.PathLike[str]) -> Suite:
    """A shipped suite by name, or your own by the path of its YAML file. Raises WrongUse."""
    return find(Suite, os.fspath(name))


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
    label_ratios: str | Iterable[str] = ("100%",),
    pretrain_seeds: Iterable[int] | None = None,
    finetune_seeds: Iterable[int] = (0,),
) -> Suite:
    """A suite built in code: every method on every task, under every protocol, at every label ratio, with every pair of
    seeds.

    `protocols`: `finetune`, `linear` (frozen backbone) and `decoder` (frozen encoder). Methods, tasks, budget and
    profile are names, or paths of YAML files or folders of your own; `profile` defaults to the one that the budget
    names. A method may be `mine=a.pth,b.pth`: your checkpoints, each a pre-training seed from 0. `pretrain_seeds`
    defaults to 0, or to one for each file of the method with the most files.

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
        "label_ratios": [str(LabelRatio.parse(ratio)) for ratio in as_list(label_ratios)],
        "pretrain_seeds": list(_seeds_of_files(methods) if pretrain_seeds is None else pretrain_seeds),
        "finetune_seeds": list(finetune_seeds),
    }
    return parse_spec(fields, Suite, "methods, tasks and ratios of the command")


def _seeds_of_files(methods: Names) -> range:
    """One pre-training seed for each file of the imported method with the most files; 0 without imported methods."""
    requests = [import_request(text) for text in as_list(methods)]
    return range(max((len(r.files) for r in requests if r is not None), default=1))


def as_list(values: Names) -> list[str]:
    """One name or path, or several, as texts."""
    if isinstance(values, str | os.PathLike):
        return [os.fspath(values)]
    return [os.fspath(value) for value in values]
