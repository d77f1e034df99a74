"""Build the recipe of a stage: the model from its method's folder, filled from the sections of a profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.specs.loading import merged, parse_spec, read_yaml
from pretrain_bench.benchmarks.specs.method import Method, MethodStage
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import Recipe, recipe_kind
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.contract.method_code import import_built_in, import_from_folder
from pretrain_bench.harness.planning.catalog import MISSPELLED, available, closest

SECTIONS_FILE = "profiles.yaml"
RECIPE_MODULE = "recipe"
TASK_PREFIX = "tasks."


def stage_recipe(
    method: Method, stage: MethodStage, profile: Profile, from_task: Mapping[str, Any] | None = None
) -> Recipe | None:
    """The recipe of a pre-training stage under a profile; None if the stage has none.

    Later sources override earlier ones: the method's own sections, in the order in which the profiles extend each other, or
    the task recipe that the method's file names; then `from_task` (see `values_from_task`); then the profile's own `methods`.
    Imports `recipe.py` from the method's folder. Raises WrongUse naming the file and field.
    """
    if stage.recipe is None:
        return None
    values: dict[str, Any] = {}
    if stage.recipe.startswith(TASK_PREFIX):
        base = task_recipe_of(profile, stage.recipe.removeprefix(TASK_PREFIX))
        values, model = base.model_dump(), type(base)
    else:
        model, sections = recipe_model(method, stage), _sections(method)
        for name in profile.lineage:
            values = merged(values, sections.get(name, {}).get(stage.name) or {})
    values = merged(values, dict(from_task or {}))
    values = merged(values, _own_fields(method, stage, profile))
    return parse_spec(values, model, f"profile {profile.name!r}, methods.{method.name}.{stage.name}")


def values_from_task(method: Method, stage: MethodStage, profile: Profile, task: Task) -> dict[str, Any]:
    """The recipe fields of a stage that follow the task (`from_task` in the method's file), with their values.

    A field that the profile sets under `methods` keeps that value. Raises WrongUse if the task's recipe lacks a field.
    """
    names = [name for name in stage.from_task if name not in _own_fields(method, stage, profile)]
    if not names:
        return {}
    recipe = finetune_recipe(profile, task)
    for name in names:
        if name not in type(recipe).model_fields:
            raise WrongUse(
                f"method {method.name!r}, stage {stage.name!r}: from_task names {name!r}, which a recipe of kind {task.kind!r} "
                f"lacks; it has {', '.join(sorted(type(recipe).model_fields))}"
            )
    return {name: getattr(recipe, name) for name in names}


def _own_fields(method: Method, stage: MethodStage, profile: Profile) -> dict[str, Any]:
    """The fields that a profile sets for one stage under `methods`."""
    return profile.methods.get(method.name, {}).get(stage.name, {})


def task_recipe_of(profile: Profile, task: str) -> Recipe:
    """The recipe of a task in a profile. Raises WrongUse if there is none."""
    recipe = profile.tasks.get(task)
    if recipe is None:
        known = ", ".join(sorted(profile.tasks))
        raise WrongUse(f"profile {profile.name!r} has no recipe for task {task!r}; it has recipes for {known}")
    return recipe


def finetune_recipe(profile: Profile, task: Task) -> Recipe:
    """The fine-tuning recipe of a task. Raises WrongUse if the profile has none, or one of another kind."""
    name = task.name if task.name in profile.tasks else task.recipe or task.name
    recipe = task_recipe_of(profile, name)
    if recipe_kind(recipe) != task.kind:
        raise WrongUse(
            f"profile {profile.name!r}, tasks.{name}: a recipe of kind {recipe_kind(recipe)!r}, expected {task.kind!r}; "
            f"write kind: {task.kind}"
        )
    return recipe if task.voxel_metres is None else recipe.model_copy(update={"voxel_metres": task.voxel_metres})


def check_sections(profile: Profile, methods: dict[str, Method]) -> None:
    """Raises WrongUse if a profile configures a stage that its method does not have."""
    for name, stages in profile.methods.items():
        if name not in methods:
            continue  # profiles may configure methods that this suite does not run
        known = {s.name for s in methods[name].stages}
        if unknown := set(stages) - known:
            raise WrongUse(
                f"profile {profile.name!r}, methods.{name}: unknown stage {min(unknown)!r}; it has {', '.join(sorted(known))}"
            )


def misspelled_sections(profile: Profile, methods: Iterable[Method]) -> list[str]:
    """A line for each section that nothing reads, and whose name resembles one that would be read: a method in the profile, or a
    profile in the file of a user's method; and for such a file without a section that is read."""
    methods = list(methods)
    shipped = available(Method)
    lines = [
        f"profile {profile.name!r}: methods.{name} is not used; did you mean {close!r}?"
        for name in profile.methods
        if (close := _resembling(name, [*shipped, *(m.name for m in methods)]))
    ]
    for method in methods:
        if method.origin == "built-in" or method.folder is None:
            continue
        file, sections = method.folder / SECTIONS_FILE, _sections(method)
        misspelled = [
            f"{file}: section {name!r} is not used with profile {profile.name!r}; did you mean {close!r}?"
            for name in sections
            if name not in available(Profile) and (close := _resembling(name, profile.lineage))
        ]
        if sections and not misspelled and not sections.keys() & {*profile.lineage}:
            lines.append(
                f"{file}: no section for {' or '.join(reversed(profile.lineage))}, so with profile {profile.name!r} "
                f"{method.name} has the defaults of its {RECIPE_MODULE}.py; sections: {', '.join(sections)}"
            )
        lines += misspelled
    return lines


def _resembling(name: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one is likely to be a misspelling of."""
    known = list(known)
    return None if name in known else closest(name, known, MISSPELLED)


def recipe_model(method: Method, stage: MethodStage) -> type[Recipe]:
    """The recipe class that a stage names. Raises WrongUse if the method's folder has no such class."""
    assert method.folder is not None and stage.recipe is not None
    where = f"{method.folder / RECIPE_MODULE}.py"
    if method.origin != "built-in" and not (Path(where).is_file() or (method.folder / RECIPE_MODULE).is_dir()):
        raise WrongUse(
            f"{where}: no such file, although stage {stage.name!r} in {method.folder / 'method.yaml'} names its class "
            f"{stage.recipe!r} as recipe; write the file, or remove `recipe:` from the stage"
        )
    try:
        if method.origin == "built-in":
            module = import_built_in(method.name, RECIPE_MODULE)
        else:
            module = import_from_folder(method.folder, method.name, RECIPE_MODULE, method.code_sha256)
    except BenchError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise WrongUse(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    model = getattr(module, stage.recipe, None)
    if not (isinstance(model, type) and issubclass(model, Recipe)):
        raise WrongUse(
            f"{where}: no class {stage.recipe!r} that extends Recipe (pretrain_bench.benchmarks.specs.recipes), although stage "
            f"{stage.name!r} names it as its recipe"
        )
    return model


def _sections(method: Method) -> dict[str, dict[str, Any]]:
    """The method's own sections: profile to stage to fields. Raises WrongUse for a malformed file."""
    assert method.folder is not None
    path = method.folder / SECTIONS_FILE
    if not path.is_file():
        if method.origin == "built-in":
            raise EnvironmentCannot(f"{path} is missing from this installation; install the project again")
        return {}
    sections = _read_sections(path, path.stat().st_mtime_ns)
    stages = {s.name for s in method.stages}
    known = ", ".join(sorted(stages))
    for profile, by_stage in sections.items():
        if not isinstance(profile, str):  # YAML reads `2024:` as a number
            raise WrongUse(
                f"{path}: {profile}: expected the name of a profile; quote a name that looks like a number or a date"
            )
        if not isinstance(by_stage, dict):
            raise WrongUse(f"{path}: {profile}: expected a mapping of stages ({known}) to fields")
        if unknown := [name for name in by_stage if name not in stages]:
            close = _resembling(str(unknown[0]), stages)
            hint = f", did you mean {close!r}?" if close else ""
            raise WrongUse(f"{path}: {profile}: unknown stage {unknown[0]!r}{hint} (stages of the method: {known})")
    return sections


@cache
def _read_sections(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    return read_yaml(path)
