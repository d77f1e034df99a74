"""A suite: a matrix of cells under one budget and profile, and filters that select cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from pretrain_bench.benchmarks.specs.base import MOST_SEED, Name, Seed, Spec
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.probes import FINETUNE, Protocol
from pretrain_bench.benchmarks.support.errors import WrongUse

AXES = ("method", "pretrain_dataset", "task", "protocol", "label_ratio", "pretrain_seed", "finetune_seed")
"""Fields of a cell that span a suite, and that filters and exclusions may name."""
NO_SEED = 0
"""The fine-tuning seed of cells that do not use one."""


class Suite(Spec):
    """The product of its axes without the cells that `exclude` names. Inapplicable cells (n/a) need not be excluded."""

    name: Name = Field(description="name in commands")
    version: PositiveInt = Field(description="version, increased with every change")
    description: str = Field("", description="in a sentence or two")
    budget: str = Field(description="name or YAML file; relative paths start from the suite's folder")
    profile: str | None = Field(None, description="name or YAML file; defaults to the budget's")
    methods: tuple[str, ...] = Field(min_length=1, description="pre-training methods, or folders of your own")
    pretrain_datasets: tuple[Name, ...] = Field(("scannet",), min_length=1, description="datasets to pre-train on")
    tasks: tuple[str, ...] = Field(min_length=1, description="names or YAML files of tasks")
    protocols: tuple[Protocol, ...] = Field(
        (FINETUNE,), min_length=1, description="evaluation of backbones: finetune, linear, decoder"
    )
    label_ratios: tuple[str, ...] = Field(
        ("100%",), min_length=1, description="labels that may be used: 20%, 0.2, 20points or 4boxes"
    )
    pretrain_seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="seeds of the pre-training, the units of a claim"
    )
    finetune_seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of the fine-tuning")
    own_finetune_seeds: bool = Field(
        False,
        description="with n finetune_seeds, which must be 0 to n - 1, fine-tune pre-training seed p with seeds p * n to "
        "p * n + n - 1. The effect of fine-tuning seeds is then part of the spread over pre-training seeds",
    )
    exclude: tuple[dict[str, str | int | tuple[str | int, ...]], ...] = Field(
        (),
        description="cells to leave out: field of a cell to a pattern or a list of them; all fields of an entry must match",
    )

    @model_validator(mode="after")
    def _axes_hold(self) -> Self:
        for axis in (f"{axis}s" for axis in AXES):
            values = getattr(self, axis)
            if len(set(values)) < len(values):
                raise ValueError(f"{axis}: a value is listed twice")
        for ratio in self.label_ratios:
            try:
                LabelRatio.parse(ratio)
            except WrongUse as error:
                raise ValueError(str(error)) from None
        if self.own_finetune_seeds:
            self._check_own_seeds()
        for entry in self.exclude:
            if unknown := set(entry) - set(AXES):
                raise ValueError(f"exclude: unknown field {min(unknown)!r}; a cell has {', '.join(AXES)}")
        return self

    def _check_own_seeds(self) -> None:
        numbers = range(len(self.finetune_seeds))
        if self.finetune_seeds != tuple(numbers):
            raise ValueError(
                f"own_finetune_seeds: expected finetune_seeds {list(numbers)}, which number the fine-tunings of one pre-training"
            )
        most = MOST_SEED // len(numbers) - 1
        if max(self.pretrain_seeds) > most:
            raise ValueError(f"own_finetune_seeds: pretrain_seeds up to {most} are possible")

    def cells(
        self, budget: str, profile: str, filters: Iterable[Filter] = (), names: Mapping[str, str] = {}
    ) -> Iterator[Cell]:
        """Every cell that is not excluded and passes all filters, the last of AXES varying fastest. Linear probes do not
        depend on fine-tuning seeds: they give one cell with NO_SEED, which an exclusion by that seed does not remove.

        Pre-training datasets, methods and tasks are named as in the suite. Filters and exclusions match these texts, and for
        paths also the names in `names`; with `own_finetune_seeds` they match the numbers in `finetune_seeds`. Raises WrongUse
        for a filter that matches no value of the suite.
        """
        filters = tuple(filters)
        axes: dict[str, tuple[object, ...]] = {axis: getattr(self, f"{axis}s") for axis in AXES}
        chosen = {
            axis: tuple(v for v in values if all(f.matches(v, names) for f in filters if f.axis == axis))
            for axis, values in axes.items()
        }
        for axis, values in chosen.items():
            if not values:
                known = ", ".join(map(str, axes[axis]))
                raise WrongUse(f"--only {axis}=...: no {axis} of suite {self.name!r} matches; it has {known}")
        barred = [[Filter(axis, _patterns(value)) for axis, value in entry.items()] for entry in self.exclude]
        ratios = {text: LabelRatio.parse(text) for text in self.label_ratios}
        fields: dict[str, Any] = dict.fromkeys(Cell.model_fields)
        first = Cell.model_construct(**{**fields, "budget": budget, "profile": profile})
        for values in itertools.product(*(chosen[axis] for axis in AXES)):
            named: dict[str, Any] = dict(zip(AXES, values, strict=True))
            has_seed = named["protocol"] != "linear"
            if not has_seed and named["finetune_seed"] != chosen["finetune_seed"][0]:
                continue
            entries = barred if has_seed else [e for e in barred if all(f.axis != "finetune_seed" for f in e)]
            if any(all(f.matches(named[f.axis], names) for f in entry) for entry in entries):
                continue
            if not has_seed:
                named["finetune_seed"] = NO_SEED
            elif self.own_finetune_seeds:
                named["finetune_seed"] += named["pretrain_seed"] * len(self.finetune_seeds)
            # Every value was checked with the suite; a cell of a large matrix is not checked a second time.
            yield first.copy_with(**{**named, "label_ratio": ratios[str(named["label_ratio"])]})


class Filter(NamedTuple):
    """Passes values that match any of its patterns (`*`, `?`)."""

    axis: str
    patterns: tuple[str, ...]

    def matches(self, value: object, names: Mapping[str, str] = {}) -> bool:
        """Whether a value of the axis passes. Label ratios match as `5%` and `5`, paths both literally and by name."""
        text = str(value)
        texts = (text, text.rstrip("%"), names.get(text, text))
        return any(fnmatchcase(t, pattern) for t in texts for pattern in self.patterns)


def parse_filters(texts: Iterable[str]) -> list[Filter]:
    """Read `method=ours,csc` or `task=*-sem`. Raises WrongUse for an unknown field or a text without `=`."""
    parsed = []
    for text in itertools.chain.from_iterable(t.split() for t in texts):
        axis, equals, patterns = text.partition("=")
        if not equals or not patterns or axis not in AXES:
            raise WrongUse(f"filter {text!r}: expected FIELD=PATTERN[,PATTERN], FIELD one of {', '.join(AXES)}")
        parsed.append(Filter(axis, tuple(patterns.split(","))))
    return parsed


def _patterns(value: str | int | tuple[str | int, ...]) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, tuple) else (str(value),)
