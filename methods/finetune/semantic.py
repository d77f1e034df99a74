"""Fine-tuning for semantic segmentation (spec C.3 to C.5)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.specs.probes import DecoderProbe
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.core import finetune, load_backbone
from pretrain_bench.methods.finetune.frozen import freeze_encoder
from pretrain_bench.methods.finetune.steps import allowed_labels, labelled_training, semantic_loss, whole_scene
from pretrain_bench.methods.networks.res16unet import Res16UNet34C


def run(context: StageContext) -> dict[str, float | None]:
    """Fine-tune and write predictions: the class of every voxel."""
    spec, recipe = context.spec, context.recipe(SemanticRecipe)
    assert spec.data is not None and spec.split is not None
    network = load_backbone(context, len(spec.data.classes)).to(context.device)
    if isinstance(spec.probe, DecoderProbe):
        freeze_encoder(context, network, recipe)
    labels_of = partial(allowed_labels, context)
    training = labelled_training(context, network, recipe, spec.split.train, labels_of, semantic_loss)
    return finetune(context, network, training, partial(_predict, context, network, recipe))


def _predict(context: StageContext, network: Res16UNet34C, recipe: SemanticRecipe, scene: str) -> Prediction:
    """Class of every voxel, in the scorer's order: (V,) uint8."""
    tensor = whole_scene(context, recipe, scene)
    if tensor is None:
        return {"classes": np.zeros(0, np.uint8)}
    return {"classes": network(tensor).F.argmax(1).to(torch.uint8).cpu().numpy()}
