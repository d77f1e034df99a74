"""Steps shared by all fine-tuning: load the backbone, train, validate, and keep the predictions of the reported checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrain_bench.benchmarks.metrics import predictions as prediction_files
from pretrain_bench.benchmarks.metrics.names import CHECKPOINTS
from pretrain_bench.benchmarks.metrics.predictions import Prediction
from pretrain_bench.benchmarks.metrics.scorer import Scorer, scorer_of
from pretrain_bench.benchmarks.specs.backbone_shapes import DECODER_PREFIXES, HEAD_PREFIX, not_transferred
from pretrain_bench.benchmarks.specs.probes import DecoderProbe
from pretrain_bench.harness.contract.events import Eval
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import Res16UNet34C, seeded_backbone
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_into, load_weights
from pretrain_bench.methods.training.loop import Training, TrainingState, train

TRAINING_FIT_SCENES = 16

Predict = Callable[[str], Prediction]
"""Predicts a whole scene, given its name, without augmentation and with the network in evaluation mode."""


def finetune(
    context: StageContext, network: nn.Module, training: Training, predict: Predict
) -> dict[str, float | None]:
    """Fine-tune, validate periodically, and write the test predictions of the final, selected and best checkpoints.

    Returns the metrics of the end event. `training` reads labels of training scenes only; labels of test and selection scenes
    stay inside the scorers. Raises as `train`.
    """
    spec = context.spec
    assert spec.split is not None
    evaluator = Evaluator(context, network, predict)
    every = spec.task_recipe.validate_every
    assert every is not None, "the planner fills it in"
    earlier = training.after_step

    def after_step(state: TrainingState) -> None:
        if earlier is not None:
            earlier(state)
        if state.step % every == 0 or training.length.is_over(state.step, state.ledger):
            evaluator.validate(state)

    state = train(context, training._replace(after_step=after_step))
    if state.extra.get("validated_at") != state.step:
        evaluator.validate(state)
    return {**evaluator.finish(state), **evaluator.training_fit(spec.split.train[:TRAINING_FIT_SCENES])}


def load_backbone(context: StageContext, out_channels: int) -> Res16UNet34C:
    """The pre-trained backbone with a new head, and, with `transfer: encoder` or a decoder probe that resets it, a new decoder.

    New tensors are chosen by name; all others must match in name and shape (spec A.4). Raises DataError if one does not, or the
    file cannot be read.
    """
    spec = context.spec
    momentum = spec.network.finetune_bn_momentum
    seed = context.seed("weights")
    network = seeded_backbone(out_channels, spec.network, momentum, spec.sparse_backend, seed)
    (parent,) = spec.parents
    weights = load_weights(context.parent(parent) / BACKBONE_FILE)
    drawn = not_transferred(spec.transfer)
    if isinstance(spec.probe, DecoderProbe) and spec.probe.start == "reset":
        drawn = (HEAD_PREFIX, *DECODER_PREFIXES)
    transferred, total = load_into(network, weights, drawn, "pre-trained backbone")
    expected = total - len([k for k in network.state_dict() if k.startswith(drawn)])
    assert transferred == expected, f"{transferred} tensors were transferred, expected {expected}"
    context.notes["transferred_tensors"] = f"{transferred} of {total}, {'*, '.join(drawn)}* dropped"
    return network


class Evaluator:
    """Scores the weights during training, and keeps the test predictions of the final, selected and best checkpoints."""

    def __init__(self, context: StageContext, network: nn.Module, predict: Predict) -> None:
        split = context.spec.split
        assert split is not None
        self.context, self.network, self._predict = context, network, predict
        selection = split.selection if "selected" in context.spec.checkpoints else ()
        self.scenes = {"selection": selection, "test": split.test}
        self.scorers = {name: self._scorer(scenes) for name, scenes in self.scenes.items() if scenes}
        if not split.selection and context.spec.selection == "held_out" and not context.spec.takes_no_step:
            context.warn(
                "too few training scenes to hold any out: no checkpoint is selected, only final and best are reported"
            )

    def _scorer(self, scenes: tuple[str, ...]) -> Scorer:
        spec = self.context.spec
        assert spec.data is not None
        data = spec.data
        return scorer_of(spec.task_recipe, data.classes, data.things, self.context.view, scenes, data.label_ids)

    @torch.no_grad()
    def predict(self, scenes: tuple[str, ...]) -> dict[str, Prediction]:
        """The network's predictions of whole scenes, by scene."""
        self.network.eval()
        predictions = {}
        for scene in scenes:
            predictions[scene] = self._predict(scene)
            self.context.events.alive()
        return predictions

    def validate(self, state: TrainingState) -> None:
        """Score the current weights on the held-out training scenes and the test scenes, and update the kept checkpoints."""
        kept: dict[str, Any] = state.extra.setdefault("kept", {})
        scores: dict[str, float] = {}
        predictions: dict[str, dict[str, Prediction]] = {}
        for name, scorer in self.scorers.items():
            predictions[name] = self.predict(self.scenes[name])
            metrics = scorer.score(predictions[name])
            scores[name] = metrics[self.context.spec.headline_metric] or 0.0
            if not self.context.spec.takes_no_step:  # without steps, no learning curve is recorded
                digest = prediction_files.digest(predictions[name])
                self.context.events.write(Eval(step=state.step, split=name, metrics=metrics, predictions_sha256=digest))
        tensors = {scene: _as_tensors(prediction) for scene, prediction in predictions["test"].items()}
        for which, by in (("selected", "selection"), ("best", "test")):
            if which in self.context.spec.checkpoints and (which not in kept or scores[by] > kept[which]["score"]):
                kept[which] = {"score": scores[by], "step": state.step, "predictions": tensors}
        kept["final"] = {"score": scores["test"], "step": state.step, "predictions": tensors}
        state.extra["validated_at"] = state.step

    def training_fit(self, scenes: tuple[str, ...]) -> dict[str, float | None]:
        """The headline metric on the given training scenes: of the current weights, and of a constant prediction."""
        scorer, name = self._scorer(scenes), self.context.spec.headline_metric
        return {
            f"{name}_training": scorer.score(self.predict(scenes))[name],
            f"{name}_training_constant": scorer.score({s: scorer.constant(s) for s in scenes})[name],
        }

    def finish(self, state: TrainingState) -> dict[str, float | None]:
        """Write the kept predictions, and return their scores; the harness compares these with scores that it computes itself."""
        metrics: dict[str, float | None] = {"steps": float(state.step)}
        for which in CHECKPOINTS:
            kept = state.extra["kept"].get(which)
            if kept is None:
                continue
            predictions = {s: {n: t.numpy() for n, t in tensors.items()} for s, tensors in kept["predictions"].items()}
            prediction_files.write(self.context.artifacts / "predictions" / which, predictions)
            scores = self.scorers["test"].score(predictions)
            metrics.update({f"{name}_{which}": value for name, value in scores.items()})
            metrics[f"step_{which}"] = float(kept["step"])
        return metrics


def _as_tensors(prediction: Prediction) -> dict[str, Tensor]:
    """The prediction as tensors, since loading a checkpoint refuses numpy arrays."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in prediction.items()}
