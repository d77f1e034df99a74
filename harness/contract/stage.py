"""`/bench/in/stage.json`: the full input of a stage, which also determines the key of its result (contract version 1).

    <root>/in/stage.json            this file                     <root>/data/<dataset>/    the stage's view of the data
    <root>/in/backbone.json         names and shapes of the tensors to leave (pre-training)
    <root>/in/imagenet_weights      where the stage has one       <root>/parents/<stage>/   artifacts of earlier stages
    <root>/in/checkpoint            the user's checkpoint, where the stage imports one
    <root>/in/label_rows            of an official choice of labelled points or boxes: the file that the benchmark distributes
    <root>/in/method/               a user's own method folder, where its Python runs without an image
    <root>/out/                     the only writable place       <root> is /bench in a container

Nothing in it depends on this machine: equal content means equal work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from operator import itemgetter
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import to_json

from pretrain_bench.benchmarks.datasets.coverage import SplitCoverage
from pretrain_bench.benchmarks.datasets.splits import Split
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.specs.backbone_shapes import TRANSFER_MEANS, Input, Transfer
from pretrain_bench.benchmarks.specs.base import FolderName, Name, Seed, Selection, Sha256, Spec, is_none
from pretrain_bench.benchmarks.specs.budget import UNIFORMITY_MEANS, Currency, Uniformity
from pretrain_bench.benchmarks.specs.cell import LabelRatio
from pretrain_bench.benchmarks.specs.checkpoint import IMPORTED, Checkpoint
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.specs.probes import FINETUNE, LinearProbe, Probe, Protocol
from pretrain_bench.benchmarks.specs.recipes import (
    DetectionRecipe,
    InstanceRecipe,
    SemanticRecipe,
    recipe_kind,
    task_recipe,
)
from pretrain_bench.benchmarks.specs.task import HeadlineMetric

KEY_LENGTH = 20
STAGE_FILE = "stage.json"
SHAPES_FILE = "backbone.json"
WEIGHTS_FILE = "imagenet_weights"
CHECKPOINT_FILE = "checkpoint"
LABEL_ROWS_FILE = "label_rows"
METHOD_FOLDER = "method"
FEATURES_STAGE = "features"
"""Name of the stage that computes the features of linear probes."""
TRAINING_ROWS = "training_rows.safetensors"
"""File with the features of labelled voxels, the output of a features stage."""
MOST_TEST_FEATURE_BYTES = 8 << 30
"""Limit of stored features of test scenes; each probe computes the rest again."""
LINEAR_PROBE_PARTS = (FEATURES_STAGE, "linear")
"""Values of `StageSpec.part` for linear probes."""

SparseBackend = Literal["torch", "triton", "minkowski"]
Kind = Literal["pretrain", "features", "finetune"]
KIND_MEANS = (
    "`pretrain` runs the method; `features` computes what linear probes at all label ratios share; `finetune` evaluates a "
    "backbone, by fine-tuning or by a probe"
)

Payload = dict[str, JsonValue]


class DataView(Spec):
    """One dataset in this stage's view."""

    dataset: Name
    manifest_sha256: Sha256
    synthetic: bool
    view: Literal["unlabelled", "labelled"]
    classes: tuple[str, ...] = Field((), description="classes of points, or of boxes in a detection task")
    things: tuple[str, ...] = Field((), description="those of `classes` with instances")
    label_ids: tuple[NonNegativeInt, ...] = Field(
        (),
        description="id of each class in the labels, for a task with some of the dataset's classes; in order by default",
    )
    heading_bins: PositiveInt = Field(1, description="heading bins of boxes; 1 if they are axis-aligned")
    box_mean_sizes_metres: tuple[tuple[float, float, float], ...] = Field((), description="full size of boxes by class")
    scenes: tuple[FolderName, ...] = Field((), description="the scenes a pre-training stage uses")

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `label_ids` for tasks with all classes, so that their keys stay those from before this field."""
        plain: dict[str, Any] = dump(self)
        if not self.label_ids:
            plain.pop("label_ids", None)
        return plain


class Limits(Spec):
    """The limits of this stage: its share of the budget half's currency, and caps."""

    budget: Name
    budget_version: PositiveInt
    currency: Currency
    amount: Annotated[float, Field(ge=0)]
    uniformity: Uniformity = Field("at_most", description=UNIFORMITY_MEANS)
    schedule_horizon: Literal["budget", "recipe"]
    loader_workers: Annotated[int, Field(ge=0)] = 0
    wall_seconds: PositiveFloat | None = Field(None, description="the one cap that can change a good result")


class StageSpec(Spec):
    """One stage. `seed` is the pre-training seed of a pretrain or features stage and the fine-tuning seed of a finetune stage."""

    contract_version: Literal[1] = 1
    kind: Kind = Field(description=KIND_MEANS)
    method: Name
    stage: Name
    task: Name | None = None
    label_ratio: LabelRatio | None = None
    headline_metric: HeadlineMetric = "miou_voxel"
    seed: Seed
    profile: Name
    profile_version: PositiveInt
    network: NetworkSettings
    precision: Literal["fp32", "bf16"] = "fp32"
    recipe: Payload | None = Field(
        None, description="the validated fields of the stage's recipe, which only the stage's own code interprets"
    )
    from_task: tuple[str, ...] = Field(
        (), description="pre-training: recipe fields that take the fine-tuning task's value"
    )
    settings: dict[str, bool | int | float | str] = Field({}, description="settings in the method's file, unchanged")
    pretrained_on: tuple[str, ...] | None = Field(
        None,
        exclude_if=is_none,
        description="pre-training: scenes that the method's file states for weights that it brings along",
    )
    limits: Limits
    data: DataView | None = None
    selection: Selection = Field("held_out", description="fine-tuning: the training scenes that select a checkpoint")
    split: Split | None = None
    coverage: SplitCoverage | None = Field(None, description="fine-tuning: the scored part of the test split")
    input: Input = Field(
        "colour",
        exclude_if=lambda kind: kind == "colour",
        description="the features of a voxel that the network sees: its colour, or geometry: ones",
    )
    transfer: Transfer = Field("all", description=f"fine-tuning: {TRANSFER_MEANS}")
    parents: dict[Name, str] = Field({}, description="stage name to key")
    probe: Probe | None = Field(
        None,
        exclude_if=lambda probe: probe is None,
        description="finetune stage: the probe of a frozen backbone or encoder; None: the whole network is fine-tuned",
    )
    imagenet_weights_sha256: Sha256 | None = None
    checkpoint: Checkpoint | None = Field(
        None,
        exclude_if=lambda checkpoint: checkpoint is None,
        description="the user's file that a stage of an imported method converts",
    )
    threads: PositiveInt
    sparse_backend: SparseBackend
    device: Literal["cpu", "cuda"]
    code_sha256: Sha256

    @field_validator("recipe")
    @classmethod
    def _task_recipe_is_valid(cls, payload: Payload | None, info: ValidationInfo) -> Payload | None:
        """Validate task recipes, which belong to this project, and fill in fields newer than the file."""
        if payload is None or info.data.get("kind") != "finetune":
            return payload
        return task_recipe(payload).model_dump(mode="json")

    @property
    def task_recipe(self) -> SemanticRecipe | InstanceRecipe | DetectionRecipe:
        """The recipe of a fine-tuning stage, as a model."""
        return task_recipe(self.recipe)

    @property
    def class_metric(self) -> str:
        """The per-class metric whose mean is the headline metric: `iou_voxel`, `iou_point` or `ap50`."""
        return self.headline_metric.removeprefix("m")

    @property
    def task_kind(self) -> str:
        """`semantic`, `instance` or `detection`: the kind of task that a fine-tuning stage trains and is scored for."""
        return recipe_kind(self.recipe)

    @property
    def protocol(self) -> Protocol:
        """How a finetune stage evaluates the backbone."""
        return FINETUNE if self.probe is None else self.probe.protocol

    @property
    def is_linear(self) -> bool:
        """Whether the stage fits a linear probe, which takes no optimiser step and selects no checkpoint."""
        return isinstance(self.probe, LinearProbe)

    @property
    def takes_no_step(self) -> bool:
        """Whether the stage works on data without optimiser steps, and so uses nothing of a budget of steps."""
        return self.kind == "features" or self.is_linear

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints for which a finetune stage writes predictions."""
        if self.is_linear:
            return ("final",)
        held_out = self.split is not None and bool(self.split.selection)
        return tuple(c for c in CHECKPOINTS if held_out or c != "selected")

    @property
    def parents_kind(self) -> Kind:
        """The kind of the stages in `parents`."""
        return "features" if self.is_linear else "pretrain"

    @property
    def part(self) -> str:
        """Determines, with kind and method, the module that runs a stage: its name; in fine-tuning the kind of the task, or
        `linear`."""
        if self.kind != "finetune":
            return self.stage
        return LINEAR_PROBE_PARTS[1] if self.is_linear else self.task_kind

    @property
    def code_of(self) -> str:
        """The method whose code runs a pre-training stage; an imported checkpoint has a name chosen by the user."""
        return IMPORTED if self.checkpoint is not None else self.method

    @property
    def key(self) -> str:
        """Hash of the canonical JSON of the whole spec. Equal keys mean equal work."""
        return key_of(self.model_dump(mode="json"))


def key_of(plain: object) -> str:
    """The key of a spec as it was written; fields added since are left out."""
    return _key_of_text(canonical_json(plain))


def _key_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


_shared_values = itemgetter(*(name for name in StageSpec.model_fields if name not in ("parents", "seed")))


def shared_values(spec: StageSpec) -> tuple[int, ...]:
    """Identities of all values but seed and parents. Equal for copies of one spec that differ in these two only, as long as one
    of the copies is kept."""
    return tuple(map(id, _shared_values(spec.__dict__)))


class Keys:
    """Keys of many specs, each made once. Copies of one spec share the text of all values but seed and parents."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[StageSpec, str]] = {}
        self._texts: dict[tuple[int, ...], tuple[str, str, str]] = {}

    def of(self, spec: StageSpec) -> str:
        """`spec.key`."""
        if id(spec) not in self._keys:
            shared = shared_values(spec)
            if shared not in self._texts:
                self._texts[shared] = _texts_around(spec)
            before, between, after = self._texts[shared]
            parents = canonical_json(spec.parents)
            key = _key_of_text(f'{{{before},"parents":{parents},{between},"seed":{spec.seed},{after}}}')
            self._keys[id(spec)] = spec, key
        return self._keys[id(spec)][1]


def _texts_around(spec: StageSpec) -> tuple[str, str, str]:
    """The canonical JSON of the fields that sort before `parents`, between it and `seed`, and after that."""
    plain = spec.model_dump(mode="json")
    ranges = (("", "parents"), ("parents", "seed"), ("seed", "~"))
    before, between, after = (
        canonical_json({name: value for name, value in plain.items() if first < name < last})[1:-1]
        for first, last in ranges
    )
    return before, between, after


def hashes_as_written(plain: object) -> Iterator[str]:
    """Yield the sha256 of data as they were originally hashed; fields added since are ignored.

    Sorted data are canonical once compacted, which is fast. Only tiny numbers are then formatted differently; the second hash
    is that of the canonical text.
    """
    yield hashlib.sha256(to_json(plain)).hexdigest()
    yield hashlib.sha256(canonical_json(plain).encode()).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(data: object) -> str:
    """Sorted keys, no spaces, no NaN: one text for one value."""
    return _CANONICAL.encode(data)
