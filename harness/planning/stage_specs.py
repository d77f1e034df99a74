"""Turn cells into stages: pre-training (one or more), then fine-tuning, each with the key of its result."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pretrain_bench.benchmarks.datasets.contamination import Contamination
from pretrain_bench.benchmarks.datasets.coverage import split_coverage
from pretrain_bench.benchmarks.datasets.splits import split_scenes
from pretrain_bench.benchmarks.specs.budget import Budget, BudgetHalf, Currency
from pretrain_bench.benchmarks.specs.cell import Cell, LabelRatio
from pretrain_bench.benchmarks.specs.checkpoint import CheckpointFile, ImportedFrom
from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.specs.probes import FINETUNE, DecoderProbe, FeatureRecipe, LinearProbe, Protocol
from pretrain_bench.benchmarks.specs.profile import Profile
from pretrain_bench.benchmarks.specs.recipes import Recipe, SemanticRecipe
from pretrain_bench.benchmarks.specs.task import Task
from pretrain_bench.benchmarks.support.errors import DataError, WrongUse
from pretrain_bench.benchmarks.support.files import readable
from pretrain_bench.harness.contract.stage import FEATURES_STAGE, Limits, StageSpec, shared_values
from pretrain_bench.harness.planning.applicable import (
    NotApplicable,
    check_applicable,
    check_classes,
    check_held,
    check_needs,
)
from pretrain_bench.harness.planning.code_digest import code_sha256
from pretrain_bench.harness.planning.label_lists import LabelFile, OfficialSplit, official_split
from pretrain_bench.harness.planning.prepared_data import PreparedDataset
from pretrain_bench.harness.planning.recipes import finetune_recipe, stage_recipe, values_from_task
from pretrain_bench.harness.planning.stage_data import (
    data_view,
    labelled_scenes,
    left_out_scenes,
    pretrain_scenes,
    task_view,
    used_scenes,
)

NO_DATASET = "none"
TRANSFER = "transfer"
"""A recipe field that does not affect pre-training, and so is part of the fine-tuning's key only."""


class Machine(NamedTuple):
    """The user's choices that are part of a key because they can change results."""

    threads: int
    sparse_backend: str
    device: str
    imagenet_weights: Path | None = None
    label_files: Mapping[str, LabelFile] = {}
    """Files of official label lists, by list name."""


class PlannedStage(NamedTuple):
    """A stage with the inputs of its runner: data, caps, method, recipe and, for a fine-tuning, its cell. The last
    stage of a pre-training writes the backbone. A fine-tuning also has its contamination and the file of an official
    choice of points or boxes.
    """

    spec: StageSpec
    caps: BudgetHalf
    data: PreparedDataset | None
    cell: Cell | None
    synthetic: bool
    title: str
    method: Method
    recipe: Recipe | None
    leaves_backbone: bool = False
    contamination: Contamination | None = None
    label_file: Path | None = None
    left_out_scenes: tuple[str, ...] = ()
    """Prefixes of the scenes that its profile excludes."""

    @property
    def long_title(self) -> str:
        """The title with the fields that follow the task, in which pre-trainings with equal names may differ."""
        recipe = self.spec.recipe or {}
        return self.title + "".join(f", {name} {recipe[name]}" for name in self.spec.from_task)

    def shared_values(self) -> tuple[int, ...]:
        """Identities of all values but seed, parents and cell; equal for copies as `shared_values` of the spec says."""
        return (*shared_values(self.spec), self.cell is None, *map(id, _shared_fields(self)))

    @property
    def own_code(self) -> bool:
        """Whether the stage runs code from outside this project."""
        return self.spec.kind == "pretrain" and self.method.origin not in ("built-in", "imported")

    @property
    def checkpoint_file(self) -> CheckpointFile | None:
        """The user's file that the stage imports, if any."""
        return self.method.checkpoints[self.spec.seed] if self.spec.checkpoint is not None else None

    @property
    def imported(self) -> ImportedFrom | None:
        """The provenance of that file in a record."""
        file = self.checkpoint_file
        if file is None:
            return None
        return ImportedFrom(
            file=readable(file.path.name), sha256=file.sha256, origin=file.origin, pretrained_on=self.spec.pretrained_on
        )

    @property
    def method_folder(self) -> Path | None:
        """The folder of Python code from outside this project that the stage runs, if any."""
        return self.method.folder if self.spec.kind == "pretrain" and self.method.is_own_python else None


_shared_fields = itemgetter(*(i for i, name in enumerate(PlannedStage._fields) if name not in ("spec", "cell")))


class PlannedCell(NamedTuple):
    """A cell with its stages in the order of execution, or with the reason why it is n/a."""

    cell: Cell
    stages: tuple[PlannedStage, ...]
    reason: str = ""


def lines_on_absent(absent: Iterable[PlannedCell]) -> list[str]:
    """One line for each reason why cells are n/a, with their number: `n/a (15 cells): ...`."""
    counts = Counter(cell.reason.removeprefix("n/a: ") for cell in absent)
    return [f"n/a ({number} cell{'s' * (number > 1)}): {reason}" for reason, number in counts.items()]


class CellSpecs(NamedTuple):
    """The specs that a cell names, loaded."""

    method: Method
    task: Task
    budget: Budget
    profile: Profile


def pretrain_stages(
    specs: CellSpecs, source: PreparedDataset | None, seed: int, machine: Machine
) -> list[PlannedStage]:
    """The stages that make a method's backbone, in execution order; raises WrongUse as `finetune_stage`.

    They depend on the task of `specs` only if the method's file says so (`from_task`).
    """
    method, task, budget, profile = specs
    planned: list[PlannedStage] = []
    parents: dict[str, str] = {}
    synthetic = False
    scenes: tuple[str, ...] = ()
    if source is not None:
        check_needs(method, source.dataset)
        scenes = pretrain_scenes(source, profile)
        if method.needs.labels:
            scenes = labelled_scenes(source, scenes, "semantic")
            check_classes(source, scenes, "semantic", "pre-training")
        check_held(method, source, scenes)
        synthetic = source.manifest.synthetic
    for stage in method.stages:
        followed = values_from_task(method, stage, profile, task)
        recipe = stage_recipe(method, stage, profile, followed)
        spec = StageSpec.model_validate(
            {
                **_common(specs, budget.pretrain, stage.share, machine),
                "kind": "pretrain",
                "stage": stage.name,
                "seed": seed,
                "input": method.input,
                "recipe": recipe.model_dump(mode="json", exclude={TRANSFER}) if recipe else None,
                "from_task": tuple(followed),
                "data": data_view(source, method.needs.labels, scenes) if source else None,
                "parents": dict(parents),
                "imagenet_weights_sha256": _weights_sha256(machine) if stage.imagenet_weights else None,
                "checkpoint": method.checkpoints[seed].identity if stage.checkpoint and method.checkpoints else None,
                "code_sha256": method.code_sha256 or code_sha256("pretrain", method.code_of, stage.name),
                "settings": method.settings,
                "pretrained_on": method.pretrained_on,
            }
        )
        _check_currency(spec, method)
        title, last = f"{method.name}/{stage.name}", stage is method.stages[-1]
        planned.append(PlannedStage(spec, budget.pretrain, source, None, synthetic, title, method, recipe, last))
        parents = {**parents, stage.name: spec.key}
    return planned


def features_stage(
    cell: Cell, specs: CellSpecs, target: PreparedDataset, machine: Machine, last: PlannedStage
) -> PlannedStage:
    """The features of the backbone from a cell's `last` pre-training stage, for its linear probes at all shares of labelled
    scenes. Raises as `finetune_stage`."""
    method, task, budget, profile = specs
    _check_labels(cell, task)
    _check_cell(cell, specs, target, last)
    if getattr(last.recipe, TRANSFER, "all") != "all":
        raise NotApplicable(
            f"protocol 'linear': under profile {profile.name!r} method {method.name!r} transfers only its encoder, but a linear "
            "probe reads the decoder's output; use --protocol decoder"
        )
    # Drawing points within scenes changes the rows of features; a share of scenes only selects scenes for a probe.
    labels, split, label_file = _split(target, specs, cell.label_ratio.model_copy(update={"percent": 100.0}), machine)
    recipe = finetune_recipe(profile, task)
    assert isinstance(recipe, SemanticRecipe)  # other kinds are inapplicable
    features = profile.probes.linear.features.model_dump()
    spec = StageSpec.model_validate(
        {
            **_common(specs, _without_steps(budget.finetune), 1.0, machine),
            "kind": "features",
            "stage": FEATURES_STAGE,
            "input": method.input,
            "task": task.name,
            "label_ratio": labels,
            "seed": last.spec.seed,
            "recipe": FeatureRecipe(**features, voxel_metres=recipe.voxel_metres).model_dump(mode="json"),
            "data": task_view(target, task),
            "selection": profile.selection,
            "split": split,
            "parents": {last.spec.stage: last.spec.key},
            "code_sha256": code_sha256("features", method.code_of, FEATURES_STAGE),
        }
    )
    _check_currency(spec, method)
    synthetic = last.synthetic or target.manifest.synthetic
    title = features_title(method.name, task.name)
    planned = PlannedStage(spec, budget.finetune, target, None, synthetic, title, method, None)
    return planned._replace(label_file=label_file, left_out_scenes=left_out_scenes(target, profile))


def finetune_stage(
    cell: Cell,
    specs: CellSpecs,
    target: PreparedDataset,
    machine: Machine,
    last: PlannedStage,
    features: PlannedStage | None = None,
) -> PlannedStage:
    """The evaluation of a cell on `target` after its `last` pre-training stage, by fine-tuning or by a probe; a linear probe
    builds on the `features` of that stage.

    Raises WrongUse for an impossible evaluation: a dataset that lacks what the method needs, a task without a recipe in the
    profile, an unsupported currency.
    """
    method, task, budget, profile = specs
    recipe = finetune_recipe(profile, task)
    _check_labels(cell, task)
    _check_cell(cell, specs, target, last)
    probe = profile.probes.of(cell.protocol)
    transfer = getattr(last.recipe, TRANSFER, "all")
    if isinstance(probe, DecoderProbe) and probe.uses_decoder and transfer != "all":
        raise NotApplicable(
            f"protocol 'decoder', start kept: under profile {profile.name!r} method {method.name!r} transfers only its encoder"
        )
    half = _without_steps(budget.finetune) if isinstance(probe, LinearProbe) else budget.finetune
    ratio, split, label_file = _split(target, specs, cell.label_ratio, machine)
    # Epochs count all labels, so that a lower label ratio changes the labels but not the number of steps (spec I-29).
    recipe = recipe.for_scenes(len(_split(target, specs, LabelRatio(), machine).split.train))
    for part, names in (("training", split.train), ("test", split.test)):
        check_classes(target, names, task.kind, part, task.classes)
    parent = features or last
    spec = StageSpec.model_validate(
        {
            **_common(specs, half, 1.0, machine),
            "kind": "finetune",
            "stage": "finetune",
            "task": task.name,
            "headline_metric": task.headline_metric,
            "label_ratio": ratio,
            "seed": cell.finetune_seed,
            "recipe": recipe.model_dump(mode="json"),
            "data": task_view(target, task),
            "selection": profile.selection,
            "split": split,
            "coverage": split_coverage(target.dataset, target.manifest, split.test),
            "transfer": transfer,
            "input": method.input if probe is not None else "colour",
            "probe": probe,
            "parents": {parent.spec.stage: parent.spec.key},
            "code_sha256": code_sha256(
                "finetune", method.name, "linear" if isinstance(probe, LinearProbe) else task.kind
            ),
        }
    )
    _check_currency(spec, method)
    synthetic = last.synthetic or target.manifest.synthetic
    title = finetune_title(cell.method, task.name, cell.label_ratio, cell.protocol)
    planned = PlannedStage(spec, budget.finetune, target, cell, synthetic, title, method, recipe)
    return planned._replace(label_file=label_file, left_out_scenes=left_out_scenes(target, profile))


def _check_labels(cell: Cell, task: Task) -> None:
    """Raises WrongUse for a label ratio in points or boxes that does not fit the task."""
    if cell.label_ratio.boxes is not None and task.kind != "detection":
        raise WrongUse(f"label ratio {cell.label_ratio}: task {task.name!r} has no boxes; give per cent or points")
    if cell.label_ratio.points is not None and task.kind == "detection":
        raise WrongUse(
            f"label ratio {cell.label_ratio}: the labels of task {task.name!r} are boxes; give per cent or boxes"
        )


def _check_cell(cell: Cell, specs: CellSpecs, target: PreparedDataset, last: PlannedStage) -> None:
    source = last.data.dataset if last.data else None
    check_applicable(specs.method, source, specs.task, target.dataset, cell.protocol)


def _split(target: PreparedDataset, specs: CellSpecs, ratio: LabelRatio, machine: Machine) -> OfficialSplit:
    """Divide the scenes that a task's kind can use. Raises NotApplicable if there are none, or if an official list does not
    fit task or data."""
    scenes, selection = (
        labelled_scenes(target, used_scenes(target, specs.profile), specs.task.kind),
        specs.profile.selection,
    )
    if ratio.official is None:
        return OfficialSplit(ratio, split_scenes(scenes, target.dataset, ratio, target.tested, selection), None)
    try:
        return official_split(ratio, specs.task.kind, target, scenes, selection, machine.label_files)
    except DataError as error:
        raise NotApplicable(str(error)) from None


def _without_steps(half: BudgetHalf) -> BudgetHalf:
    """A budget half for a stage without optimiser steps: its amount is a cap, not an amount to use up."""
    return half.model_copy(update={"uniformity": "at_most"})


def features_title(method: str, task: str) -> str:
    """The title of linear-probe features in lists of stages."""
    return f"{method} -> {task}: features"


def finetune_title(method: str, task: str, ratio: LabelRatio, protocol: Protocol = FINETUNE) -> str:
    """The title of an evaluation in lists of stages."""
    return f"{method} -> {task} at {ratio}" + (f", {protocol}" if protocol != FINETUNE else "")


def _common(specs: CellSpecs, half: BudgetHalf, share: float, machine: Machine) -> dict[str, object]:
    method, _, budget, profile = specs
    limits = Limits(
        budget=budget.name,
        budget_version=budget.version,
        currency=half.currency,
        amount=half.amount * share,
        uniformity=half.uniformity,
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


def _weights_sha256(machine: Machine) -> str | None:
    if machine.imagenet_weights is None:
        return None
    try:
        return hashlib.sha256(machine.imagenet_weights.read_bytes()).hexdigest()
    except OSError as error:
        raise WrongUse(f"--imagenet-weights {machine.imagenet_weights}: cannot be read: {error.strerror}") from None


def _check_currency(spec: StageSpec, method: Method) -> None:
    """Raises WrongUse, naming the method, for a currency that cannot limit a stage."""
    currency = spec.limits.currency
    where = f"budget {spec.limits.budget!r}, {spec.kind}: currency {currency.value!r}"
    if spec.kind == "pretrain" and currency not in method.currencies:
        known = ", ".join(method.currencies)
        raise WrongUse(f"{where}: method {method.name!r} is limited by {known} only (currencies in its method.yaml)")
    if currency == Currency.gpu_seconds and spec.device == "cpu":
        raise WrongUse(f"{where}: {method.name!r} would run on the CPU, which uses none; run on a GPU, or use flops")
    if currency == Currency.flops and spec.sparse_backend == "minkowski":
        raise WrongUse(f"{where}: only the project's own engine counts FLOPs; use --backend torch, or optimizer_steps")
