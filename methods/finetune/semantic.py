"""Fine-tuning for semantic segmentation (spec C.3 to C.5)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.annotations import chosen_rows, keep_rows
from benchmarks.datasets.views import load_cloud, load_labels
from benchmarks.metrics import predictions as prediction_files
from benchmarks.metrics.scorer import SemanticScorer
from benchmarks.specs import SemanticRecipe
from benchmarks.transforms import evaluation_sample
from harness.contract.events import Eval
from methods.context import StageContext
from methods.finetune.steps import labelled_training
from methods.networks.res16unet import HEAD, Res16UNet34C, seeded_backbone
from methods.sparse.backend import sparse_backend
from methods.sparse.tensor import batched_coordinates
from methods.training.checkpoint import BACKBONE_FILE, load_into, load_weights
from methods.training.loop import TrainingState, train

CHECKPOINTS = ("final", "selected", "best")
TRAINING_FIT_SCENES = 16

Predictions = dict[str, Tensor]


def run(context: StageContext) -> dict[str, float | None]:
    """Fine-tune, validate along the way, and write the test predictions of the final, selected and best checkpoints."""
    spec, recipe = context.spec, context.spec.recipe
    assert isinstance(recipe, SemanticRecipe) and spec.data is not None and spec.split is not None
    network = load_backbone(context, len(spec.data.classes)).to(context.device)
    scenes = spec.split.train
    evaluator = Evaluator(context, network, recipe)
    # Only training scenes are ever asked for; test and selection labels stay inside the scorers.
    training = labelled_training(context, network, recipe, scenes, partial(_allowed_labels, context))

    def validate(state: TrainingState) -> None:
        if state.step % recipe.validate_every == 0 or state.step == training.steps:
            evaluator.validate(state)

    state = train(context, training._replace(after_step=validate))
    if state.extra.get("validated_at") != state.step:
        evaluator.validate(state)
    return {**evaluator.finish(state), **evaluator.training_fit(scenes[:TRAINING_FIT_SCENES])}


def _allowed_labels(context: StageContext, scene: str) -> NDArray[np.uint8]:
    """The labels of a training scene that the label ratio allows."""
    labels, ratio = load_labels(context.view, scene).semantic, context.spec.label_ratio
    if ratio is None or ratio.points is None:
        return labels
    return keep_rows(labels, chosen_rows(scene, ratio.points, len(labels)))


def load_backbone(context: StageContext, classes: int) -> Res16UNet34C:
    """The pre-trained backbone with a fresh head: `final.*` is dropped by name, everything else must match (spec A.4)."""
    spec = context.spec
    momentum = spec.network.finetune_bn_momentum
    seed = context.seed("weights")
    network = seeded_backbone(classes, spec.network, momentum, spec.sparse_backend, seed)
    (parent,) = spec.parents
    weights = load_weights(context.parent(parent) / BACKBONE_FILE)
    transferred, total = load_into(network, weights, (HEAD,), "pre-trained backbone")
    expected = total - len([k for k in network.state_dict() if k.startswith(HEAD)])
    assert transferred == expected, f"{transferred} tensors were transferred, expected {expected}"
    context.notes["transferred_tensors"] = f"{transferred} of {total}, {HEAD}* dropped"
    return network


class Evaluator:
    """Scores checkpoints along the way, and keeps the test predictions of the three that count."""

    def __init__(self, context: StageContext, network: Res16UNet34C, recipe: SemanticRecipe) -> None:
        spec = context.spec
        assert spec.split is not None and spec.data is not None
        self.context, self.network, self.recipe = context, network, recipe
        self.scenes = {"selection": spec.split.selection, "test": spec.split.test}
        self.scorers = {
            name: SemanticScorer(context.view, scenes, recipe.voxel_metres, len(spec.data.classes))
            for name, scenes in self.scenes.items()
            if scenes
        }
        if not spec.split.selection:
            context.warn("too few training scenes to hold any out; no checkpoint is selected, only final and best")

    def validate(self, state: TrainingState) -> None:
        """Score the current weights on the held-out training scenes and on the test scenes."""
        kept: dict[str, Any] = state.extra.setdefault("kept", {})
        scores: dict[str, float] = {}
        predictions: dict[str, Predictions] = {}
        for name, scorer in self.scorers.items():
            predictions[name] = self.predict(self.scenes[name])
            metrics = scorer.score({s: p.numpy() for s, p in predictions[name].items()})
            scores[name] = metrics[self.context.spec.headline_metric] or 0.0
            self.context.events.write(Eval(step=state.step, split=name, metrics=metrics))
        for which, by in (("selected", "selection"), ("best", "test")):
            if by in scores and (which not in kept or scores[by] > kept[which]["score"]):
                kept[which] = {"score": scores[by], "step": state.step, "predictions": predictions["test"]}
        kept["final"] = {"score": scores["test"], "step": state.step, "predictions": predictions["test"]}
        state.extra["validated_at"] = state.step

    @torch.no_grad()
    def predict(self, scenes: tuple[str, ...]) -> Predictions:
        """Class of every voxel of whole scenes, without augmentation: (V,) uint8 in the scorer's voxel order."""
        engine = sparse_backend(self.context.spec.sparse_backend)
        self.network.eval()
        out = {}
        for scene in scenes:
            coordinates, rgb = evaluation_sample(load_cloud(self.context.view, scene), self.recipe.voxel_metres)
            batch = batched_coordinates([torch.from_numpy(coordinates)]).to(self.context.device)
            colours = torch.from_numpy(rgb / np.float32(255) - np.float32(0.5)).to(self.context.device)
            with self.context.autocast():
                logits = self.network(engine.SparseTensor(colours, batch)).F
            out[scene] = logits.argmax(1).to(torch.uint8).cpu()
        return out

    def training_fit(self, scenes: tuple[str, ...]) -> dict[str, float | None]:
        """mIoU of the final weights on (some) training scenes, beside that of always saying their most frequent class."""
        assert self.context.spec.data is not None
        scorer = SemanticScorer(
            self.context.view, scenes, self.recipe.voxel_metres, len(self.context.spec.data.classes)
        )
        constant = {s: np.full(scorer.voxels(s), scorer.majority_class(), np.uint8) for s in scenes}
        fitted = {s: p.numpy() for s, p in self.predict(scenes).items()}
        return {
            "miou_voxel_training": scorer.score(fitted)["miou_voxel"],
            "miou_voxel_training_majority": scorer.score(constant)["miou_voxel"],
        }

    def finish(self, state: TrainingState) -> dict[str, float | None]:
        """Write the predictions; returns the stage's own scores, which the harness compares with its own."""
        metrics: dict[str, float | None] = {"steps": float(state.step)}
        for which in CHECKPOINTS:
            kept = state.extra["kept"].get(which)
            if kept is None:
                continue
            arrays = {s: p.numpy() for s, p in kept["predictions"].items()}
            prediction_files.write_semantic(self.context.artifacts / "predictions" / which, arrays)
            scores = self.scorers["test"].score(arrays)
            metrics.update({f"{name}_{which}": value for name, value in scores.items()})
            metrics[f"step_{which}"] = float(kept["step"])
        return metrics
