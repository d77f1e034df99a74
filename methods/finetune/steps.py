"""Training on labelled clouds, for fine-tuning and supervised pre-training (spec C.3 to C.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pretrain_bench.benchmarks.datasets.views import Labels, load_cloud, load_labels
from pretrain_bench.benchmarks.input.annotations import keep_rows, labelled_rows
from pretrain_bench.benchmarks.input.transforms import VoxelSample, evaluation_sample, training_sample
from pretrain_bench.benchmarks.input.voxelise import IGNORE
from pretrain_bench.benchmarks.specs.probes import FeatureRecipe
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.stage import LABEL_ROWS_FILE
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, first_usable
from pretrain_bench.methods.training.optim import polynomial, sgd

MOST_VOXELS = 2_000_000
"""The most voxels of a scene predicted in one pass: at full width each takes about 3.2 kB (measured on a CPU), 6.4 GB in all."""


Sample = TypeVar("Sample")


class MicroBatch(NamedTuple):
    """Several scenes: coordinates (N, 4) int32, batch index first; colours (N, 3) float32 in -0.5..0.5; labels (N,) int64; and
    for instance segmentation instance numbers (N,) int64, unique across scenes, -1 for none."""

    coordinates: Tensor
    colours: Tensor
    labels: Tensor
    instances: Tensor | None

    def to(self, device: torch.device) -> MicroBatch:
        """This micro-batch on `device`."""
        moved = [None if t is None else t.to(device, non_blocking=True) for t in self]
        return MicroBatch(*moved)  # type: ignore[arg-type]


class Loss(NamedTuple):
    """The loss of a micro-batch (a scalar), the logits (N, classes) behind it, and its parts by name."""

    total: Tensor
    logits: Tensor
    parts: dict[str, float]


LabelsOf = Callable[[str], Labels]
"""Gives the usable labels of a scene."""
LossOf = Callable[[Any, MicroBatch, float], Loss]
"""Maps the network's output, its micro-batch and the share of the schedule that is over (0..1) to the loss."""


def labelled_training(
    context: StageContext,
    network: nn.Module,
    recipe: SemanticRecipe,
    scenes: tuple[str, ...],
    labels_of: LabelsOf,
    loss_of: LossOf,
    things: tuple[int, ...] = (),
) -> Training:
    """The training on `scenes`, in micro-batches that accumulate to the recipe's batch, with the polynomial schedule. `things`
    are the classes whose instances are distinguished.

    Each sample reads its scene again: tens of thousands of scans would exceed memory and the number of mappings of a process.
    """
    spec = context.spec
    warn_of_missing_classes(context, "label", (labels_of(scene).semantic for scene in scenes))
    optimiser = sgd((p for p in network.parameters() if p.requires_grad), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.batch)
    schedule = polynomial(recipe.optimiser.learning_rate, recipe.poly_power, length.scheduled)
    engine = sparse_backend(spec.sparse_backend)
    few_labels = spec.label_ratio is not None and spec.label_ratio.points is not None

    def sample(scene: str, rng: np.random.Generator) -> VoxelSample | None:
        cloud, labels = load_cloud(context.view, scene), labels_of(scene)
        if not len(cloud.xyz):
            return None
        instances = None
        if things:
            instances = np.where(np.isin(labels.semantic, things), labels.instance, -1).astype(np.int32)
        drawn = training_sample(cloud, labels.semantic, recipe, rng, few_labels, instances)
        return drawn if len(drawn.coordinates) > 1 else None

    def make_batch(number: int) -> list[MicroBatch]:
        samples = scene_samples(context, number, recipe.batch, scenes, sample)
        return [collate(samples[i : i + recipe.micro_batch]) for i in range(0, len(samples), recipe.micro_batch)]

    def step(number: int, batch: list[MicroBatch]) -> StepResult:
        network.train()
        losses, right, counted = [], 0, 0
        health: dict[str, float] = {}
        for plain in batch:
            part = plain.to(context.device)
            with context.autocast():
                out = network(engine.SparseTensor(network_input(context, part.colours), part.coordinates))
            loss = loss_of(out, part, context.place / max(1, length.scheduled))
            (loss.total / len(batch)).backward()
            losses.append(float(loss.total.detach()) / len(batch))
            for name, value in loss.parts.items():
                health[name] = health.get(name, 0.0) + value / len(batch)
            valid = part.labels != IGNORE
            right += int((loss.logits.detach().argmax(1) == part.labels)[valid].sum())
            counted += int(valid.sum())
        voxels = sum(len(part.labels) for part in batch)
        seen = {"samples": recipe.batch, "scenes": recipe.batch, "points": voxels, "labels": counted}
        health |= {"accuracy": right / max(1, counted), "voxels": float(voxels)}
        return StepResult(sum(losses), seen, health)

    return Training({"network": network}, optimiser, schedule, length, make_batch, step)


def scene_samples(
    context: StageContext,
    step: int,
    batch: int,
    scenes: tuple[str, ...],
    sample: Callable[[str, np.random.Generator], Sample | None],
) -> list[Sample]:
    """The samples of a step, each with its own random stream. If `sample` returns None, another scene is drawn; raises DataError
    if many in a row are unusable."""
    made = []
    for place, index in enumerate(batch_indices(context, "order", step, batch, len(scenes))):
        rng = context.rng("augmentation", step, place)
        problem = "training scenes in a row have fewer than two voxels; there is nothing to learn from"
        made.append(first_usable(lambda i, rng=rng: sample(scenes[i], rng), index, len(scenes), rng, problem))  # type: ignore[misc]
    return made


def allowed_labels(context: StageContext, scene: str) -> Labels:
    """The labels of a training scene; with a ratio of labelled points, class and instance of all other points are masked."""
    data, ratio = context.spec.data, context.spec.label_ratio
    labels = load_labels(context.view, scene, data.label_ids if data is not None else ())
    if ratio is None or ratio.points is None:
        return labels
    rows = labelled_rows(ratio, scene, len(labels.semantic), context.root / "in" / LABEL_ROWS_FILE)
    return Labels(keep_rows(labels.semantic, rows), keep_rows(labels.instance, rows, ignore=-1))


def whole_scene(context: StageContext, recipe: SemanticRecipe | FeatureRecipe, scene: str) -> Any | None:
    """A scene without augmentation as a sparse tensor, rows in the scorer's order; None if it has no points.

    Raises DataError for more than MOST_VOXELS voxels, which one pass of the network may have no memory for.
    """
    coordinates, rgb = evaluation_sample(load_cloud(context.view, scene), recipe.voxel_metres)
    if not len(coordinates):
        return None
    if len(coordinates) > MOST_VOXELS:
        raise DataError(
            f"scene {scene}: {len(coordinates):,} voxels of {recipe.voxel_metres:g} m exceed the {MOST_VOXELS:,} that are "
            f"predicted at once; set a larger voxel_metres in tasks.{context.spec.task} of the profile, or split the scene"
        )
    batch = batched_coordinates([torch.from_numpy(coordinates)]).to(context.device)
    colours = torch.from_numpy(rgb / np.float32(255) - np.float32(0.5)).to(context.device)
    return sparse_backend(context.spec.sparse_backend).SparseTensor(network_input(context, colours), batch)


def network_input(context: StageContext, colours: Tensor) -> Tensor:
    """What the network sees of voxels with these colours (N, 3): the colours, or ones if it is frozen and never saw any."""
    return torch.ones_like(colours) if context.spec.input == "geometry" else colours


def warn_of_missing_classes(context: StageContext, what: str, classes: Iterable[NDArray[np.integer]]) -> None:
    """Warn of classes without a label (or box) in any training scene. `classes` yields the class numbers of each scene, IGNORE
    for none; `what` is "label" or "box"."""
    data = context.spec.data
    assert data is not None
    seen = np.zeros(256, np.int64)
    for one in classes:
        seen += np.bincount(one, minlength=256)
    missing = [name for number, name in enumerate(data.classes) if not seen[number]]
    if missing:
        context.warn(f"no training {what} of {', '.join(missing)} at this label ratio; they cannot be learnt")


def collate(samples: list[VoxelSample]) -> MicroBatch:
    """Join several scenes into one micro-batch."""
    coordinates = batched_coordinates([torch.from_numpy(s.coordinates) for s in samples])
    colours = torch.from_numpy(np.concatenate([s.rgb for s in samples]) / np.float32(255) - np.float32(0.5))
    labels = torch.from_numpy(np.concatenate([s.labels for s in samples]).astype(np.int64))
    if any(s.instances is None for s in samples):
        return MicroBatch(coordinates, colours, labels, None)
    numbered, next_number = [], 0
    for one in samples:
        assert one.instances is not None
        numbered.append(np.where(one.instances < 0, -1, one.instances.astype(np.int64) + next_number))
        next_number += int(one.instances.max(initial=-1)) + 1
    return MicroBatch(coordinates, colours, labels, torch.from_numpy(np.concatenate(numbered)))


def semantic_loss(out: Any, part: MicroBatch, progress: float) -> Loss:
    """Cross-entropy of a network whose output is a sparse tensor of logits."""
    logits = out.F.float()
    return Loss(voxel_loss(logits, part.labels), logits, {})


def voxel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, classes) over labelled voxels; zero, with a zero gradient, if none is labelled."""
    if not bool((labels != IGNORE).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE)
