"""Frozen parts of a network, and recalibration of their batch norms on the task's scenes (spec 2.5, 2.6)."""

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
    """Replace the running statistics of all batch norms in `parts` of the network by those of `scenes`. Labels are not used.

    `scenes` are sparse tensors; each is one forward pass. Mean and variance are unweighted means over the passes. Leaves the
    network in evaluation mode, and the momentum of its norms unchanged.
    """
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all passes
    for part in parts:
        part.train()
    for scene in scenes:
        network.features(scene)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def freeze(parts: Iterable[nn.Module]) -> None:
    """Freeze modules: no gradients, and evaluation mode even after the surrounding network is set to training mode."""
    for part in parts:
        part.eval().requires_grad_(False)
        part.train = lambda mode=True, part=part: part  # type: ignore[method-assign, misc]


def freeze_encoder(context: StageContext, network: Res16UNet34C, recipe: SemanticRecipe) -> None:
    """Freeze the encoder (conv0p1s1 to block4) for the protocol `decoder`; recalibrate its norms first if the probe says so."""
    spec = context.spec
    assert isinstance(spec.probe, DecoderProbe) and spec.split is not None
    encoder = [getattr(network, name) for name in ENCODER_MODULES]
    if spec.probe.batch_norm == "recalibrated":
        recalibrate(network, encoder, whole_scenes(context, recipe, spec.split.train))
    freeze(encoder)


def whole_scenes(context: StageContext, recipe: SemanticRecipe | FeatureRecipe, scenes: Iterable[str]) -> Iterator[Any]:
    """Yield scenes without augmentation as sparse tensors, sorted by name; scenes without points are skipped."""
    for scene in sorted(scenes):
        end_where_asked(context)
        tensor = whole_scene(context, recipe, scene)
        if tensor is not None:
            yield tensor
        context.events.alive()


def end_where_asked(context: StageContext) -> None:
    """Raise Cancelled or OutOfTime if the user or the soft limit asked this stage, which takes no steps, to stop."""
    if context.stop == CANCEL:
        raise Cancelled("cancelled; the stage has no checkpoint and starts again when it is rerun")
    if context.stop is not None:
        raise OutOfTime("the time limit was reached before all scenes had passed through the network")
