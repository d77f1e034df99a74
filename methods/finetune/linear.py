"""The protocol `linear`: logistic regression on cached features of a frozen backbone (spec 2.5)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.specs.probes import LinearProbe
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.events import Ledger, Start, Usage
from pretrain_bench.harness.contract.stage import FEATURES_STAGE, TRAINING_ROWS
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.core import Evaluator, load_backbone
from pretrain_bench.methods.finetune.features import TEST_FOLDER, scene_features
from pretrain_bench.methods.finetune.logistic import LinearHead, fit_logistic
from pretrain_bench.methods.finetune.steps import warn_of_missing_classes
from pretrain_bench.methods.networks.res16unet import Res16UNet34C
from pretrain_bench.methods.training.checkpoint import load_weights, save_weights
from pretrain_bench.methods.training.loop import Clock, TrainingState
from pretrain_bench.methods.training.numerics import numerics

HEAD_FILE = "head.safetensors"


def run(context: StageContext) -> dict[str, float | None]:
    """Fit the head on the training scenes of the label ratio, and write the class of every voxel of the test scenes."""
    spec = context.spec
    assert spec.data is not None and isinstance(spec.probe, LinearProbe)
    context.events.cut(0)
    clock = Clock(Ledger())
    context.start(Start(total_steps=0, numerics=numerics()))
    features, labels = training_rows(context)
    warn_of_missing_classes(context, "label", [labels.numpy()])
    fit = fit_logistic(
        features.to(context.device), labels.to(context.device), len(spec.data.classes), spec.probe, context.events.alive
    )
    if not fit.converged:
        at_limit = fit.iterations >= spec.probe.iterations
        advice = (
            "raise probes.linear.iterations of the profile"
            if at_limit
            else "no step in float32 reduces the loss further"
        )
        context.warn(
            f"not converged: after {fit.iterations} iterations the gradient norm is "
            f"{fit.last_gradient / fit.first_gradient:.2%} of its initial value; {advice}"
        )
    save_weights(fit.head.state_dict(), context.artifacts / HEAD_FILE)
    state = TrainingState()
    evaluator = Evaluator(context, fit.head, partial(_predict, context, fit.head, _Network(context)))
    evaluator.validate(state)
    metrics = evaluator.finish(state)
    scenes = len(spec.split.train) if spec.split is not None else 0
    context.events.write(Usage(ledger=clock.read(Ledger(scenes=scenes, labels=len(labels)))))
    return {
        **metrics,
        "training_rows": float(len(labels)),
        "iterations": float(fit.iterations),
        "loss": fit.loss,
        "gradient_norm_first": fit.first_gradient,
        "gradient_norm_last": fit.last_gradient,
    }


def training_rows(context: StageContext) -> tuple[Tensor, Tensor]:
    """Features (N, C) float32 and labels (N,) int64 of the training scenes. Raises DataError if no voxel is labelled."""
    split = context.spec.split
    assert split is not None
    rows = load_weights(context.parent(FEATURES_STAGE) / TRAINING_ROWS)
    features, labels = (
        torch.cat([rows[f"{scene}.{what}"] for scene in split.train]) for what in ("features", "labels")
    )
    if not len(labels):
        raise DataError(
            f"none of the {len(split.train):,} training scenes has a labelled voxel; there is nothing to fit"
        )
    return features, labels


class _Network:
    """The frozen backbone, loaded on first use: only test scenes without stored features need it."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._loaded: Res16UNet34C | None = None

    def features(self, scene: str) -> Tensor:
        if self._loaded is None:
            self._loaded = load_backbone(self._context, 1).to(self._context.device).eval()
        return scene_features(self._context, self._loaded, self._context.recipe(SemanticRecipe), scene)


@torch.no_grad()
def _predict(context: StageContext, head: LinearHead, network: _Network, scene: str) -> Prediction:
    """Class of every voxel, in the scorer's order: (V,) uint8."""
    kept: Path = context.parent(FEATURES_STAGE) / TEST_FOLDER / f"{scene}.safetensors"
    features = load_weights(kept)["features"] if kept.is_file() else network.features(scene)
    return {"classes": head(features.to(context.device)).argmax(1).to(torch.uint8).cpu().numpy()}
