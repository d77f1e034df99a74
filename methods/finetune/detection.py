"""Fine-tuning for object detection: VoteNet on the sparse backbone (spec F.3)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pretrain_bench.benchmarks.datasets.views import has_instances, load_aligned_cloud, load_boxes, load_labels
from pretrain_bench.benchmarks.input.annotations import labelled_rows
from pretrain_bench.benchmarks.input.detection import (
    Array,
    BoxArrays,
    BoxSample,
    box_arrays,
    box_instances,
    evaluation_sample,
    training_sample,
)
from pretrain_bench.benchmarks.metrics.detection_ap import decode, kept
from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.specs.recipes import DetectionRecipe
from pretrain_bench.harness.contract.stage import LABEL_ROWS_FILE
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.core import finetune, load_backbone
from pretrain_bench.methods.finetune.steps import scene_samples, warn_of_missing_classes
from pretrain_bench.methods.finetune.votenet_loss import box_targets, votenet_loss
from pretrain_bench.methods.networks.votenet import Proposals, VoteNet, norm_momentum, raw_boxes, set_norm_momentum
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.loop import StepResult, Training
from pretrain_bench.methods.training.optim import adam, milestones


class BoxBatch(NamedTuple):
    """Several scenes: coordinates (N, 4) int32 voxels, batch index first, and colours (N, 3) of all voxels; for each scene points
    (V_b, 3) in metres, votes (V_b, 3, 3) and vote masks (V_b,); and the boxes as targets."""

    coordinates: Tensor
    colours: Tensor
    points: list[Tensor]
    votes: list[Tensor]
    vote_masks: list[Tensor]
    boxes: BoxArrays


def run(context: StageContext) -> dict[str, float | None]:
    """Fine-tune and write predictions: the boxes left after non-maximum suppression, with objectness and class probabilities."""
    spec, recipe = context.spec, context.recipe(DetectionRecipe)
    assert spec.data is not None
    sizes = np.asarray(spec.data.box_mean_sizes_metres, np.float64)
    backbone = load_backbone(context, recipe.vote_channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed("detector"))
        network = VoteNet(backbone, recipe, len(spec.data.classes), spec.data.heading_bins, sizes)
    network = network.to(context.device)
    training = box_training(context, network, recipe)
    return finetune(context, network, training, partial(_predict, context, network, recipe))


def box_training(context: StageContext, network: VoteNet, recipe: DetectionRecipe) -> Training:
    """The training on the training scenes, in micro-batches that accumulate to the recipe's batch."""
    spec = context.spec
    assert spec.data is not None and spec.split is not None
    scenes, bins = spec.split.train, spec.data.heading_bins
    sizes = np.asarray(spec.data.box_mean_sizes_metres, np.float64)
    assert recipe.steps is not None, "the planner fills it in"
    length = context.run_length(recipe.steps, recipe.batch)
    schedule = milestones(recipe.optimiser.learning_rate, recipe.milestone_factor, recipe.milestones, length.scheduled)
    warn_of_missing_classes(context, "box", (allowed_boxes(context, scene)[:, 7].astype(int) for scene in scenes))

    def make_batch(number: int) -> list[BoxBatch]:
        samples = scene_samples(
            context, number, recipe.batch, scenes, lambda scene, rng: labelled_sample(context, scene, recipe, rng)
        )
        return [
            collate(samples[i : i + recipe.micro_batch], bins, sizes)
            for i in range(0, len(samples), recipe.micro_batch)
        ]

    def step(number: int, batch: list[BoxBatch]) -> StepResult:
        network.train()
        set_norm_momentum(network, norm_momentum(recipe, context.place / max(1, length.scheduled)))
        losses, health = [], dict[str, float]()
        for part in batch:
            proposals = propose(context, network, part)
            targets = box_targets(part.boxes, part.votes, part.vote_masks, proposals.seed_rows)
            loss, terms = votenet_loss(proposals, targets, sizes, recipe.padded_objects)
            (loss / len(batch)).backward()
            losses.append(float(loss.detach()) / len(batch))
            for name, value in terms.items():
                health[name] = health.get(name, 0.0) + value / len(batch)
        voxels = sum(len(part.coordinates) for part in batch)
        boxes = sum(int(part.boxes.present.sum()) for part in batch)
        seen = {"samples": recipe.batch, "scenes": recipe.batch, "points": voxels, "labels": boxes}
        health.pop("loss", None)
        return StepResult(sum(losses), seen, {**health, "voxels": float(voxels)})

    return Training(
        {"network": network}, adam(network.parameters(), recipe.optimiser), schedule, length, make_batch, step
    )


def labelled_sample(
    context: StageContext, scene: str, recipe: DetectionRecipe, rng: np.random.Generator
) -> BoxSample | None:
    """An augmented training sample with the boxes that the label ratio allows; None if fewer than two voxels remain."""
    xyz, rgb = load_aligned_cloud(context.view, scene)
    if not len(xyz):
        return None
    boxes = allowed_boxes(context, scene)
    instances = None
    if has_instances(context.view, scene):
        instances = box_instances(xyz, load_labels(context.view, scene).instance, boxes)
    sample = training_sample(xyz, rgb, boxes, instances, recipe, rng)
    return sample if len(sample.coordinates) > 1 else None


def allowed_boxes(context: StageContext, scene: str) -> Array:
    """(K, 8) float64 boxes of a training scene: all, or only those that the label ratio allows."""
    boxes, ratio = np.asarray(load_boxes(context.view, scene), np.float64), context.spec.label_ratio
    if ratio is None or ratio.boxes is None:
        return boxes
    return boxes[labelled_rows(ratio, scene, len(boxes), context.root / "in" / LABEL_ROWS_FILE)]


def collate(samples: list[BoxSample], heading_bins: int, mean_sizes: Array) -> BoxBatch:
    """Several scenes as one micro-batch."""
    return BoxBatch(
        batched_coordinates([torch.from_numpy(s.coordinates) for s in samples]),
        torch.from_numpy(np.concatenate([s.colours for s in samples])),
        [torch.from_numpy(s.points) for s in samples],
        [torch.from_numpy(s.votes) for s in samples],
        [torch.from_numpy(s.vote_mask) for s in samples],
        box_arrays([s.boxes for s in samples], heading_bins, mean_sizes),
    )


def propose(context: StageContext, network: VoteNet, part: BoxBatch) -> Proposals:
    """The network's proposals for a micro-batch, float32. The network, heads included, runs in the profile's precision."""
    engine = sparse_backend(context.spec.sparse_backend)
    tensor = engine.SparseTensor(part.colours.to(context.device), part.coordinates.to(context.device))
    with context.autocast():
        return network(tensor, [p.to(context.device) for p in part.points])


def _predict(context: StageContext, network: VoteNet, recipe: DetectionRecipe, scene: str) -> Prediction:
    """boxes (P, 7) in metres, in the coordinate frame of the labels; objectness (P,) and probabilities (P, classes)."""
    data = context.spec.data
    assert data is not None
    xyz, rgb = load_aligned_cloud(context.view, scene)
    if not len(xyz):
        nothing = np.zeros((0, len(data.classes)), np.float32)
        return {"boxes": np.zeros((0, 7), np.float32), "objectness": np.zeros(0, np.float32), "probabilities": nothing}
    sizes = np.asarray(data.box_mean_sizes_metres, np.float64)
    part = collate([evaluation_sample(xyz, rgb, recipe, scene)], data.heading_bins, sizes)
    detections = decode(raw_boxes(propose(context, network, part), sizes, 0), sizes)
    # A negative size would turn a box inside out.
    detections.boxes[:, 3:6] = np.maximum(detections.boxes[:, 3:6], 0)
    detections = kept(detections)
    return {
        "boxes": detections.boxes.astype(np.float32),
        "objectness": detections.objectness.astype(np.float32),
        "probabilities": detections.classes.astype(np.float32),
    }
