"""Suites, by name, from a file, or spelled out in code."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pretrain_bench.benchmarks.specs.loading import parse_spec
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.harness.planning.catalog import available, find

Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One name or path, or several."""


def suite(name: str | os.PathLike[str]) -> Suite:
    """A suite that ships, by its name, or one of yours, by the path of its YAML file. Raises WrongUse."""
    return find(Suite, os.fspath(name))


def list_suites() -> list[Suite]:
    """The suites that ship, sorted by name."""
    return [find(Suite, name) for name in available(Suite)]


def cells(
    methods: Names,
    tasks: Names,
    *,
    budget: str | os.PathLike[str] = "uniform",
    profile: str | os.PathLike[str] | None = None,
    protocols: str | Iterable[str] = ("finetune",),
    label_ratios: str | Iterable[str] = ("100%",),
    pretrain_seeds: Iterable[int] = (0,),
    finetune_seeds: Iterable[int] = (0,),
) -> Suite:
    """A suite spelled out: every method on every task, under every protocol, at every label ratio, with every pair of seeds.

    `protocols`: `finetune`, `linear` (frozen backbone) and `decoder` (frozen encoder). Methods, tasks, budget and profile are
    names, or paths of YAML files or folders of your own; `profile` defaults to the one that the budget names. Raises WrongUse for
    a malformed value; names are looked up when the suite is planned or run.
    """
    fields = {
        "name": "cells",
        "version": 1,
        "budget": os.fspath(budget),
        "profile": None if profile is None else os.fspath(profile),
        "methods": as_list(methods),
        "tasks": as_list(tasks),
        "protocols": as_list(protocols),
        "label_ratios": as_list(label_ratios),
        "pretrain_seeds": list(pretrain_seeds),
        "finetune_seeds": list(finetune_seeds),
    }
    return parse_spec(fields, Suite, "methods, tasks and ratios of the command")


def as_list(values: Names) -> list[str]:
    """One name or path, or several, as texts."""
    if isinstance(values, str | os.PathLike):
        return [os.fspath(values)]
    return [os.fspath(value) for value in values]
