"""The features of a frozen backbone on a task's scenes, shared by linear probes at all label ratios (spec 2.5). Artifacts:

training_rows.safetensors      `<scene>.features` (n, C) float32 and `<scene>.labels` (n,) int64 of sampled labelled voxels
test/<scene>.safetensors       `features` (V, C) float32 of all voxels of a test scene, rows in the scorer's order
backbone.safetensors           the backbone, with the batch-norm statistics that produced the features
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain_bench.benchmarks.datasets.views import load_cloud
from pretrain_bench.benchmarks.input.annotations import chosen_rows
from pretrain_bench.benchmarks.input.transforms import evaluation_voxels, labels_of_the_labelled
from pretrain_bench.benchmarks.input.voxelise import IGNORE, voxel_labels
from pretrain_bench.benchmarks.specs.probes import FeatureRecipe
from pretrain_bench.benchmarks.specs.recipes import SemanticRecipe
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.harness.contract.events import Ledger, Start, Usage
from pretrain_bench.harness.contract.stage import MOST_TEST_FEATURE_BYTES, TRAINING_ROWS
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.finetune.core import load_backbone
from pretrain_bench.methods.finetune.frozen import end_where_asked, recalibrate, whole_scenes
from pretrain_bench.methods.finetune.steps import allowed_labels, whole_scene
from pretrain_bench.methods.networks.res16unet import HEAD, Res16UNet34C
from pretrain_bench.methods.training.checkpoint import save_backbone, save_weights
from pretrain_bench.methods.training.loop import Clock
from pretrain_bench.methods.training.numerics import numerics

TEST_FOLDER = "test"


def run(context: StageContext) -> dict[str, float | None]:
    """Recalibrate the batch norms if the recipe asks for it, then write the features of training rows and test scenes."""
    spec, recipe = context.spec, context.recipe(FeatureRecipe)
    assert spec.split is not None
    context.events.cut(0)
    clock = Clock(Ledger())
    network = load_backbone(context, 1).to(context.device).eval()
    context.start(Start(total_steps=0, numerics=numerics()))
    if recipe.batch_norm == "recalibrated":
        recalibrate(network, [network], whole_scenes(context, recipe, spec.split.train))
    rows: dict[str, Tensor] = {}
    for scene in spec.split.train:
        features, labels = scene_features(context, network, recipe, scene), scene_labels(context, recipe, scene)
        drawn = labelled_rows(scene, labels, recipe.rows_per_scene)
        rows[f"{scene}.features"] = features[torch.from_numpy(drawn)]
        rows[f"{scene}.labels"] = torch.from_numpy(labels[drawn].astype(np.int64))
    save_weights(rows, context.artifacts / TRAINING_ROWS)
    labelled = sum(len(tensor) for name, tensor in rows.items() if name.endswith(".labels"))
    kept = _write_test(context, network, recipe)
    save_backbone(network, context.artifacts, drop=HEAD)
    scenes = len(spec.split.train) + len(spec.split.test)
    context.events.write(Usage(ledger=clock.read(Ledger(scenes=scenes, labels=labelled))))
    return {"training_rows": float(labelled), "test_scenes_kept": float(kept)}


def _write_test(context: StageContext, network: Res16UNet34C, recipe: FeatureRecipe) -> int:
    """Write the features of as many test scenes as fit MOST_TEST_FEATURE_BYTES, and return their number."""
    assert context.spec.split is not None
    folder, written = context.artifacts / TEST_FOLDER, 0
    all_scenes = len(context.spec.split.test)
    folder.mkdir()
    for number, scene in enumerate(context.spec.split.test):
        features = scene_features(context, network, recipe, scene)
        written += features.numel() * features.element_size()
        if written > MOST_TEST_FEATURE_BYTES:
            context.warn(
                f"features of {all_scenes - number:,} of {all_scenes:,} test scenes are not kept, since together they exceed "
                f"{MOST_TEST_FEATURE_BYTES >> 30} GiB; each probe recomputes them"
            )
            return number
        save_weights({"features": features}, folder / f"{scene}.safetensors")
    return all_scenes


@torch.no_grad()
def scene_features(
    context: StageContext, network: Res16UNet34C, recipe: SemanticRecipe | FeatureRecipe, scene: str
) -> Tensor:
    """(V, C) float32 on the CPU: the input of the last layer of a network in evaluation mode, rows in the scorer's order.

    Raises DataError, naming the pre-training run, if a value is non-finite or the scene is too large for one pass; Cancelled and
    OutOfTime as `end_where_asked`.
    """
    end_where_asked(context)
    tensor = whole_scene(context, recipe, scene)
    if tensor is None:
        return torch.zeros((0, network.feature_channels))
    features: Tensor = network.features(tensor).F.float().cpu()
    if not bool(torch.isfinite(features).all()):
        spec = context.spec
        raise DataError(
            f"scene {scene}: features of {spec.method} (pre-training seed {spec.seed}) are NaN or infinite; its pre-training "
            "diverged, or its batch-norm statistics do not fit the scenes"
        )
    context.events.alive()
    return features


def scene_labels(context: StageContext, recipe: FeatureRecipe, scene: str) -> NDArray[np.uint8]:
    """(V,) uint8 labels of a training scene's voxels; IGNORE where the label ratio allows none."""
    voxels = evaluation_voxels(np.asarray(load_cloud(context.view, scene).xyz), recipe.voxel_metres)
    labels = np.asarray(allowed_labels(context, scene).semantic)
    ratio = context.spec.label_ratio
    if ratio is not None and ratio.points is not None:
        return np.asarray(labels_of_the_labelled(labels, voxels))
    return np.asarray(voxel_labels(labels, voxels))


def labelled_rows(scene: str, labels: NDArray[np.uint8], at_most: int) -> NDArray[np.int64]:
    """Sorted rows of `at_most` labelled voxels (0: all), drawn with the scene's name as seed, so equal for all methods."""
    labelled = np.flatnonzero(labels != IGNORE)
    return labelled[chosen_rows(scene, at_most or len(labelled), len(labelled))]
