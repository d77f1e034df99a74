"""Frozen parts of a network: norms that describe the task's scenes, and modules that no step changes (spec 2.5, 2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pretrain_bench.benchmarks.specs.backbone_shapes import ENCODER_MODULES
from pretrain_bench.benchmarks.specs.probes import DecoderProbe, FeatureRecipe
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.methods.context import CANCEL, StageContext
from pretrain_bench.methods.finetune.steps import whole_scene
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.training.loop import Cancelled, OutOfTime


@torch.no_grad()
def recalibrate(network: Res16UNet34C, parts: Sequence[nn.Module], scenes: Iterable[Any]) -> None:
    """Replace the running statistics of all batch norms in `parts` of the network by those of `scenes`, without labels.

    `scenes` are sparse tensors, each one pass. Mean and variance are the plain means over all passes. The network is left in
    evaluation mode, and the norms keep their momentum.
    """
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for the plain mean over all passes
    for part in parts:
        part.train()
    for scene in scenes:
        network.features(scene)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def freeze(parts: Iterable[nn.Module]) -> None:
    """Keep modules as they are: in evaluation mode whatever the network around them is set to, and without gradients."""
    for part in parts:
        part.eval().requires_grad_(False)
        part.train = lambda mode=True, part=part: part  # type: ignore[method-assign, misc]


def freeze_encoder(context: StageContext, network: Res16UNet34C, recipe: SemanticRecipe) -> None:
    """Freeze conv0p1s1 to block4 for the protocol `decoder`, after their batch norms are recalibrated where the probe says so."""
    spec = context.spec
    assert isinstance(spec.probe, DecoderProbe) and spec.split is not None
    encoder = [getattr(network, name) for name in ENCODER_MODULES]
    if spec.probe.batch_norm == "recalibrated":
        recalibrate(network, encoder, whole_scenes(context, recipe, spec.split.train))
    freeze(encoder)


def whole_scenes(context: StageContext, recipe: SemanticRecipe | FeatureRecipe, scenes: Iterable[str]) -> Iterator[Any]:
    """Scenes without augmentation as sparse tensors, in the order of their names; those without points are left out."""
    for scene in sorted(scenes):
        end_where_asked(context)
        tensor = whole_scene(context, recipe, scene)
        if tensor is not None:
            yield tensor
        context.events.alive()


def end_where_asked(context: StageContext) -> None:
    """Raises Cancelled or OutOfTime where the user or a time limit wants a stage without steps to end."""
    if context.stop == CANCEL:
        raise Cancelled("cancelled; the stage will start again")
    if context.stop is not None:
        raise OutOfTime("the time limit came before all scenes were passed through the network")
