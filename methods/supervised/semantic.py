"""The only stage of `supervised`: semantic segmentation of the pre-training dataset, without its last layer (spec E.6c, I-28)."""

from __future__ import annotations

from pretrain_bench.benchmarks.datasets.views import Labels, load_labels
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.steps import labelled_training, semantic_loss
from pretrain_bench.methods.networks.res16unet import HEAD, seeded_backbone
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.loop import Training, train_and_save


def run(context: StageContext) -> dict[str, float | None]:
    """Train and write the final weights to `artifacts/backbone.safetensors`; no scene is held out to select a checkpoint."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the network with seeded initial weights, and its training on all labelled points of the pre-training scenes."""
    recipe, spec = context.recipe(SemanticRecipe), context.spec
    assert spec.data is not None
    seed, momentum = context.seed("weights"), spec.network.finetune_bn_momentum
    network = seeded_backbone(len(spec.data.classes), spec.network, momentum, spec.sparse_backend, seed)
    network = network.to(context.device)
    scenes = spec.data.scenes

    def labels_of(scene: str) -> Labels:
        return load_labels(context.view, scene)

    def save() -> None:
        save_backbone(network, context.artifacts, drop=HEAD)

    return labelled_training(context, network, recipe, scenes, labels_of, semantic_loss)._replace(save=save)
