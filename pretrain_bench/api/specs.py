"""Shipped specs and your own (methods, tasks, datasets, budgets, profiles, suites), with their fields explained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pretrain_bench.api.stores import AnyPath
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.budget import Budget
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.suite import Suite
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.planning.catalog import available, find
from pretrain_bench.harness.planning.recipes import check_sections, stage_recipe

Kind = Literal["methods", "tasks", "data", "budgets", "profiles", "suites"]
MODELS: dict[str, type[Spec]] = {
    "methods": Method, "tasks": Task, "data": Dataset, "budgets": Budget, "profiles": Profile, "suites": Suite,
}  # fmt: skip
UNITS = {
    "seconds": "s", "metres": "m", "mib": "MiB", "degrees": "degrees", "percent": "%", "steps": "steps",
    "samples_seen": "samples",
    "flops": "FLOPs", "bytes": "bytes", "voxels": "voxels", "epochs": "epochs", "points": "points", "every": "steps",
}  # fmt: skip
"""Last words of a field's name, and the unit that they name."""


class ExplainedField(NamedTuple):
    """One field of a spec, in plain text."""

    field: str
    value: str
    unit: str
    default: str
    """`required` where the field has none."""
    meaning: str


def list_specs(kind: Kind) -> list[Spec]:
    """The shipped specs of one kind, sorted by name. Raises WrongUse for an unknown kind."""
    model = _model(kind)
    return [find(model, name) for name in available(model)]


def explain(kind: Kind, name: AnyPath) -> list[ExplainedField]:
    """Every field of a spec, by name or path: value, unit, default and meaning; of a profile also those of the recipes of every
    method that ships. Raises WrongUse."""
    spec = find(_model(kind), name)
    return [*_fields(spec, ""), *(_recipes(spec) if isinstance(spec, Profile) else ())]


def _recipes(profile: Profile) -> Iterator[ExplainedField]:
    methods = {name: find(Method, name) for name in available(Method)}
    check_sections(profile, methods)
    for method in methods.values():
        for stage in method.stages:
            if recipe := stage_recipe(method, stage, profile):
                yield from _fields(recipe, f"methods.{method.name}.{stage.name}.")


def _model(kind: str) -> type[Spec]:
    if kind not in MODELS:
        raise WrongUse(f"kind {kind!r}: expected one of {', '.join(MODELS)}")
    return MODELS[kind]


def _fields(spec: BaseModel, prefix: str) -> Iterator[ExplainedField]:
    for name, info in type(spec).model_fields.items():
        value, path = getattr(spec, name), f"{prefix}{name}"
        nested = dict(_nested(value))
        if not nested:
            yield ExplainedField(path, _text(value), _unit(name), _default(info), info.description or "-")
        for key, part in nested.items():
            yield from _fields(part, f"{path}.{key}." if key else f"{path}.")


def _nested(value: Any) -> Iterator[tuple[str, BaseModel]]:
    """The models in a field's value, by the key or name that leads to each."""
    if isinstance(value, BaseModel):
        yield "", value
    elif isinstance(value, dict):
        yield from ((str(key), part) for key, part in value.items() if isinstance(part, BaseModel))
    elif isinstance(value, tuple):
        yield from ((str(getattr(p, "name", i)), p) for i, p in enumerate(value) if isinstance(p, BaseModel))


def _unit(name: str) -> str:
    return next((unit for end, unit in UNITS.items() if name == end or name.endswith(f"_{end}")), "-")


def _default(info: FieldInfo) -> str:
    return "required" if info.default is PydanticUndefined else _text(info.default)


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) or "none"
    return str(value)
