"""Fine-tuning for instance segmentation: CSC's variant, or PointGroup with a score network (spec F.1)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.benchmarks.metrics.predictions import MOST_INSTANCES, Prediction
from pretrain_bench.benchmarks.specs.recipes import InstanceRecipe
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.clustering import Clusters, clusters
from pretrain_bench.methods.finetune.core import finetune, load_backbone
from pretrain_bench.methods.finetune.pointgroup import (
    cluster_logits,
    joined,
    proposals,
    score_loss,
    scored_and_suppressed,
)
from pretrain_bench.methods.finetune.steps import (
    Loss,
    MicroBatch,
    allowed_labels,
    labelled_training,
    voxel_loss,
    whole_scene,
)
from pretrain_bench.methods.networks.instance_net import InstanceNet, InstanceOutput
from pretrain_bench.methods.networks.score_net import ScoreNet

SMALL, DIRECTION_SMALL = 1e-6, 1e-8


def run(context: StageContext) -> dict[str, float | None]:
    """Fine-tune and write predictions: the class of every voxel, and instances as sets of voxels."""
    spec, recipe = context.spec, context.recipe(InstanceRecipe)
    assert spec.data is not None and spec.split is not None
    classes, things = spec.data.classes, recipe.counted_classes(spec.data.classes, spec.data.things)
    backbone = load_backbone(context, len(classes))
    momentum, width = spec.network.finetune_bn_momentum, backbone.feature_channels
    scores = None
    if recipe.method == "pointgroup":
        scores = ScoreNet(width, recipe.pointgroup.channels, spec.sparse_backend, momentum, context.seed("scores"))
        if spec.label_ratio is not None and spec.label_ratio.points is not None:
            context.warn(
                f"method pointgroup with {spec.label_ratio.points} labelled points per scene: clusters overlap so few labelled "
                "voxels that their scores learn to be 0, and few or no instances remain; use method csc"
            )
    network = InstanceNet(backbone, momentum, context.seed("offsets"), scores).to(context.device)
    training = labelled_training(
        context,
        network,
        recipe,
        spec.split.train,
        partial(allowed_labels, context),
        partial(instance_loss, network, recipe, things),
        things,
    )
    return finetune(context, network, training, partial(_predict, context, network, recipe, things))


class OffsetLosses(NamedTuple):
    """Two scalars over the voxels of instances: mean L1 distance to the target offsets in metres, and mean negative cosine."""

    distance: Tensor
    direction: Tensor


def instance_loss(
    network: InstanceNet,
    recipe: InstanceRecipe,
    things: tuple[int, ...],
    out: InstanceOutput,
    part: MicroBatch,
    progress: float,
) -> Loss:
    """The unweighted sum of cross-entropy, both offset losses and, with PointGroup from `score_from` on, the score loss.

    `progress` is the share of the schedule that is over, in 0..1; `things` are the classes with instances.
    """
    assert part.instances is not None
    logits = out.logits.float()
    targets = centre_offsets(part.coordinates, part.instances) * recipe.voxel_metres
    semantic = voxel_loss(logits, part.labels)
    offset = offset_losses(out.offsets.float(), targets, part.instances >= 0)
    values = {"semantic_loss": semantic, "offset_loss": offset.distance, "direction_loss": offset.direction}
    if recipe.method == "pointgroup" and progress >= recipe.pointgroup.score_from:
        coordinates, instances = part.coordinates.cpu().numpy(), part.instances.cpu().numpy()
        values["score_loss"] = score_loss(network, out, coordinates, instances, recipe, things)
    total = torch.stack(list(values.values())).sum()
    return Loss(total, logits, {name: float(value.detach()) for name, value in values.items()})


def centre_offsets(coordinates: Tensor, instances: Tensor) -> Tensor:
    """(N, 3) float32 offsets in voxels, from each voxel of (N, 4) coordinates to the mean of its instance; zero without one."""
    known = instances >= 0
    _, number = torch.unique(instances[known], return_inverse=True)
    place = coordinates[known, 1:].double()
    count = int(number.max()) + 1 if len(number) else 0
    sums = torch.zeros((count, 3), dtype=torch.float64, device=place.device).index_add_(0, number, place)
    centres = sums / torch.bincount(number, minlength=count)[:, None]
    offsets = torch.zeros((len(instances), 3), device=coordinates.device)
    offsets[known] = (centres[number] - place).float()
    return offsets


def offset_losses(predicted: Tensor, targets: Tensor, valid: Tensor) -> OffsetLosses:
    """The losses of (N, 3) offsets in metres over the `valid` rows (N,); zero, with a zero gradient, if there are none."""
    mask = valid.float()
    distance = ((predicted - targets).abs().sum(1) * mask).sum()
    towards = targets / (targets.norm(dim=1, keepdim=True) + DIRECTION_SMALL)
    # The gradient of a square root at zero is infinite; clamping keeps that of a zero offset finite.
    length = predicted.pow(2).sum(1, keepdim=True).clamp_min(DIRECTION_SMALL**2).sqrt()
    cosine = (towards * predicted / (length + DIRECTION_SMALL)).sum(1)
    count = mask.sum() + SMALL
    return OffsetLosses(distance / count, -(cosine * mask).sum() / count)


def _predict(
    context: StageContext, network: InstanceNet, recipe: InstanceRecipe, things: tuple[int, ...], scene: str
) -> Prediction:
    tensor = whole_scene(context, recipe, scene)
    if tensor is None:
        logits, clusters = np.zeros((0, 1), np.float32), joined([])
    else:
        out, coordinates = network(tensor), tensor.C[:, 1:].cpu().numpy()
        logits = out.logits.float().cpu().numpy()
        clusters = _clusters(network, out, coordinates, recipe, things)
    assert len(clusters.classes) <= MOST_INSTANCES
    return {
        "classes": logits.argmax(axis=1).astype(np.uint8),
        "voxels": clusters.voxels,
        "starts": clusters.starts,
        "instance_classes": clusters.classes,
        "confidences": clusters.confidences,
    }


def _clusters(
    network: InstanceNet,
    out: InstanceOutput,
    coordinates: NDArray[np.integer],
    recipe: InstanceRecipe,
    things: tuple[int, ...],
) -> Clusters:
    above = recipe.cluster_above_voxels
    if recipe.method == "pointgroup":
        proposed = proposals(coordinates, out, recipe, things, above)
        if not len(proposed.classes):
            return proposed
        scores = torch.sigmoid(cluster_logits(network, out.features, coordinates, proposed, recipe)).cpu().numpy()
        return scored_and_suppressed(proposed, scores, len(coordinates), recipe.pointgroup)
    moved = out.offsets.float().cpu().numpy() / np.float32(recipe.voxel_metres)
    logits = out.logits.float().cpu().numpy()
    places = (coordinates.astype(np.float32) + moved).astype(np.float32)
    return clusters(places, logits, things, recipe.cluster_radius_voxels, recipe.component_least_voxels, above)
