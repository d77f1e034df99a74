"""A cell becomes stages: pre-training (one or more), then fine-tuning, each with the key of its result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.splits import read_scene_list, scenes_for_testing, split_scenes, usable_scenes
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.budget import Budget, BudgetHalf
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.dataset import Dataset
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import recipe_kind
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.stage import DataView, Limits, StageSpec, recipe_steps
from pretrain_bench.harness.planning.code_digest import code_sha256
from pretrain_bench.harness.planning.prepared_data import PreparedDataset

NO_DATASET = "none"
IMAGE_RECIPE = "ours_images"
"""The one stage that starts from ImageNet weights where a person gives them."""
NEEDED = ("frames", "images", "poses", "multiple_views", "clouds", "labels")


class Machine(NamedTuple):
    """What the person who runs chooses, and what is part of a key because it can change bits."""

    threads: int
    sparse_backend: str
    device: str
    imagenet_weights: Path | None = None


class NotApplicable(WrongUse):
    """A cell that makes no sense, with the reason: n/a in a plan."""


class PlannedStage(NamedTuple):
    """A stage with what the executor needs around it: its data, its caps, and the cell for whose sake it runs. The last stage
    of a pre-training leaves the backbone; the code of a user's own method is its image."""

    spec: StageSpec
    caps: BudgetHalf
    data: PreparedDataset | None
    cell: Cell | None
    synthetic: bool
    title: str
    leaves_backbone: bool = False
    own_code: bool = False


class PlannedCell(NamedTuple):
    """A cell with its stages, in the order in which they run; or with the reason why it has none (n/a)."""

    cell: Cell
    stages: tuple[PlannedStage, ...]
    reason: str = ""


def check_needs(method: Method, dataset: Dataset) -> None:
    """Raises NotApplicable, naming what is missing, where a method cannot be pre-trained on a dataset."""
    needs = {n for n in NEEDED if getattr(method.needs, n)}
    missing = sorted(needs - set(dataset.provides))
    if missing:
        raise NotApplicable(
            f"method {method.name!r} needs {', '.join(missing)}, which dataset {dataset.name!r} does not have "
            f"(it has {', '.join(dataset.provides)})"
        )


def check_applicable(method: Method, source: Dataset | None, task: Task, target: Dataset) -> None:
    """Raises NotApplicable, with the reason, for a cell that makes no sense; reads no data. `source` is what the method is
    pre-trained on, `target` what the task is fine-tuned on."""
    if source is not None:
        check_needs(method, source)
        if method.needs.labels and source.name == target.name:
            raise NotApplicable(
                f"n/a: {method.name!r} pre-trains on the labels of {target.name!r}, which task {task.name!r} fine-tunes on"
            )
    if task.kind == "detection" and "boxes" not in target.provides:
        raise NotApplicable(f"dataset {target.name!r} has no boxes; it has {', '.join(target.provides)}")


class CellSpecs(NamedTuple):
    """The specs that a cell names, loaded."""

    method: Method
    task: Task
    budget: Budget
    profile: Profile


def stages_of(
    cell: Cell, specs: CellSpecs, data: Mapping[str, PreparedDataset], machine: Machine
) -> list[PlannedStage]:
    """The stages of one cell, in the order in which they run.

    `data` holds prepared datasets by the name that the cell or its task gives them. Raises WrongUse for what cannot be: a
    method on a dataset that lacks what it needs, a task without a recipe in the profile, an unsupported currency.
    """
    source = data[cell.pretrain_dataset] if specs.method.needs.data else None
    planned = pretrain_stages(specs, source, cell.pretrain_seed, machine)
    planned.append(finetune_stage(cell, specs, data, machine, planned[-1], planned[-1].spec.key))
    return planned


def pretrain_stages(
    specs: CellSpecs, source: PreparedDataset | None, seed: int, machine: Machine
) -> list[PlannedStage]:
    """The stages that make a method's backbone; raises WrongUse as `stages_of`."""
    method, _, budget, profile = specs
    planned: list[PlannedStage] = []
    parents: dict[str, str] = {}
    synthetic = False
    if source is not None:
        check_needs(method, source.dataset)
        synthetic = source.manifest.synthetic
    for stage in method.stages:
        spec = StageSpec.model_validate(
            {
                **_common(specs, budget.pretrain, stage.share, machine),
                "kind": "pretrain",
                "stage": stage.name,
                "seed": seed,
                "recipe": recipe_of(profile, stage.recipe) if stage.recipe else None,
                "data": _view(source, method.needs.labels, _pretrain_scenes(source, profile)) if source else None,
                "parents": dict(parents),
                "imagenet_weights_sha256": _weights_sha256(machine) if stage.recipe == IMAGE_RECIPE else None,
                "code_sha256": method.code_sha256 or code_sha256("pretrain", method.name, stage.name),
                "settings": method.settings,
            }
        )
        _check_currency(spec, budget)
        title, last = f"{method.name}/{stage.name}", stage is method.stages[-1]
        planned.append(
            PlannedStage(spec, budget.pretrain, source, None, synthetic, title, last, method.image is not None)
        )
        parents = {**parents, stage.name: spec.key}
    return planned


def recipe_of(profile: Profile, name: str) -> Spec:
    """A section of a profile by name, or `tasks.NAME`, the recipe of a task. Raises WrongUse where there is none."""
    section, _, task = name.partition(".")
    recipe = profile.tasks.get(task) if section == "tasks" else getattr(profile, section, None)
    if recipe is None:
        raise WrongUse(f"profile {profile.name!r} has no recipe {name!r}")
    return recipe


def finetune_stage(
    cell: Cell,
    specs: CellSpecs,
    data: Mapping[str, PreparedDataset],
    machine: Machine,
    last: PlannedStage,
    parent: str,
) -> PlannedStage:
    """The fine-tuning of a cell after its `last` pre-training stage, whose key is `parent`; raises WrongUse as `stages_of`."""
    method, task, budget, profile = specs
    recipe = profile.tasks.get(task.name)
    if recipe is None:
        known = ", ".join(sorted(profile.tasks))
        raise WrongUse(f"profile {profile.name!r} has no recipe for task {task.name!r}; it has recipes for {known}")
    if recipe_kind(recipe) != task.kind:
        raise WrongUse(
            f"profile {profile.name!r}, tasks.{task.name}: a recipe of kind {recipe_kind(recipe)!r}, expected {task.kind!r}; "
            f"write kind: {task.kind}"
        )
    if cell.label_ratio.boxes is not None and task.kind != "detection":
        raise WrongUse(f"label ratio {cell.label_ratio}: task {task.name!r} has no boxes; give per cent or points")
    if cell.label_ratio.points is not None and task.kind == "detection":
        raise WrongUse(
            f"label ratio {cell.label_ratio}: the labels of task {task.name!r} are boxes; give per cent or boxes"
        )
    target = data[task.dataset]
    check_applicable(method, last.data.dataset if last.data else None, task, target.dataset)
    split = split_scenes(used_scenes(target, profile), target.dataset, cell.label_ratio, target.tested)
    spec = StageSpec.model_validate(
        {
            **_common(specs, budget.finetune, 1.0, machine),
            "kind": "finetune",
            "stage": "finetune",
            "task": task.name,
            "headline_metric": task.headline_metric,
            "label_ratio": cell.label_ratio,
            "seed": cell.finetune_seed,
            "recipe": recipe,
            "data": _view(target, True, (), task.kind),
            "split": split,
            "parents": {last.spec.stage: parent},
            "code_sha256": code_sha256("finetune", method.name, task.kind),
        }
    )
    _check_currency(spec, budget)
    synthetic = last.synthetic or target.manifest.synthetic
    title = finetune_title(cell.method, task.name, cell.label_ratio)
    return PlannedStage(spec, budget.finetune, target, cell, synthetic, title)


def finetune_title(method: str, task: str, ratio: LabelRatio) -> str:
    """What a fine-tuning is called wherever stages are listed."""
    return f"{method} -> {task} at {ratio}"


def _common(specs: CellSpecs, half: BudgetHalf, share: float, machine: Machine) -> dict[str, object]:
    method, _, budget, profile = specs
    limits = Limits(
        budget=budget.name,
        budget_version=budget.version,
        currency=half.currency,
        amount=half.amount * share,
        schedule_horizon=budget.schedule_horizon,
        loader_workers=half.loader_workers,
        wall_seconds=half.wall_seconds,
    )
    return {
        "method": method.name,
        "profile": profile.name,
        "profile_version": profile.version,
        "network": profile.network,
        "precision": profile.precision,
        "limits": limits,
        "threads": min(machine.threads, half.cpus or machine.threads),
        "sparse_backend": machine.sparse_backend,
        "device": machine.device,
    }


def used_scenes(source: PreparedDataset, profile: Profile) -> tuple[str, ...]:
    """All scenes but those that the profile leaves out."""
    left_out = profile.left_out_scenes.get(source.dataset.name, ())
    return tuple(s for s in source.scenes if not (left_out and s.startswith(left_out)))


def _pretrain_scenes(source: PreparedDataset, profile: Profile) -> tuple[str, ...]:
    """Scenes that may be pre-trained on: with J-25 `train`, only those of the official training list where the dataset has
    one, and never one that it names as a test scene. Raises WrongUse where none is left."""
    if profile.pretrain_scenes == "all":
        return used_scenes(source, profile)
    test = scenes_for_testing(source.scenes, source.dataset, source.tested)
    scenes = tuple(s for s in usable_scenes(used_scenes(source, profile), source.dataset) if s not in test)
    if source.dataset.train_scenes_file is not None:
        listed = read_scene_list(source.dataset.train_scenes_file)
        scenes = tuple(s for s in scenes if s in listed)
    if not scenes:
        raise WrongUse(
            f"none of the {len(source.scenes)} scenes of {source.dataset.name!r} is a training scene, and profile "
            f"{profile.name!r} pre-trains on training scenes only (J-25)"
        )
    return scenes


def _view(source: PreparedDataset, labels: bool, scenes: tuple[str, ...], kind: str = "semantic") -> DataView:
    boxes = {
        "classes": source.dataset.detected_classes,
        "heading_bins": source.dataset.heading_bins,
        "box_mean_sizes_metres": source.dataset.box_mean_sizes_metres,
    }
    points = {
        "classes": source.dataset.classes if labels else (),
        "things": source.dataset.thing_classes if kind == "instance" else (),
    }
    return DataView(
        dataset=source.dataset.name,
        manifest_sha256=source.manifest.sha256,
        synthetic=source.manifest.synthetic,
        view="labelled" if labels else "unlabelled",
        scenes=scenes,
        **(boxes if kind == "detection" else points),
    )


def _weights_sha256(machine: Machine) -> str | None:
    if machine.imagenet_weights is None:
        return None
    try:
        return hashlib.sha256(machine.imagenet_weights.read_bytes()).hexdigest()
    except OSError as error:
        raise WrongUse(f"--imagenet-weights {machine.imagenet_weights}: cannot be read: {error.strerror}") from None


def _check_currency(spec: StageSpec, budget: Budget) -> None:
    try:
        recipe_steps(spec.limits, 1, 1)
    except ValueError as error:
        raise WrongUse(f"budget {budget.name!r}, {spec.kind}: {error}; use optimizer_steps or samples_seen") from None
