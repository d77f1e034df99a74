"""Stage 1 of `ours`: a 2D network learns one feature per pixel by InfoNCE between two views of an image (spec E.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pretrain_bench.benchmarks.datasets.views import load_colour
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.resunet2d import SIDE_MULTIPLE, PixelFeatureNet, network_input
from pretrain_bench.methods.ours.augment import apply_crop, change_colours, draw_crop, match_pixels, to_tensor
from pretrain_bench.methods.ours.recipe import OursImages
from pretrain_bench.methods.training.checkpoint import load_into, load_weights, save_weights
from pretrain_bench.methods.training.contrast import embedding_health, grouped_info_nce, info_nce, unit_rows
from pretrain_bench.methods.training.frames import frames_of
from pretrain_bench.methods.training.loop import StepResult, Training, batch_indices, train_and_save
from pretrain_bench.methods.training.optim import exponential, sgd

ARTIFACT = "image_network.safetensors"
SETTINGS = "image_network.json"


def run(context: StageContext) -> dict[str, float | None]:
    """Train the 2D network and write it to `artifacts/image_network.safetensors`."""
    return train_and_save(context, prepare(context))


def prepare(context: StageContext) -> Training:
    """Build the network and its training. Raises DataError if `image_side` is not a multiple of 32 or no scene has a frame."""
    recipe = context.recipe(OursImages)
    assert context.spec.data is not None
    if recipe.image_side % SIDE_MULTIPLE:
        raise DataError(
            f"recipe of ours/images: image_side is {recipe.image_side}; it must be a multiple of {SIDE_MULTIPLE}"
        )
    frames = frames_of(context)
    torch.manual_seed(context.seed("weights"))
    network = PixelFeatureNet(recipe).to(context.device)
    initialise_encoder(context, network)
    optimiser = sgd(network.parameters(), recipe.optimiser)
    length = context.run_length(recipe.steps, recipe.images_per_step)
    schedule = exponential(recipe.optimiser.learning_rate, recipe.decay, recipe.steps, length.scheduled)
    network.train()

    def make_batch(number: int) -> tuple[Tensor, list[Tensor]]:
        chosen = [frames[i] for i in batch_indices(context, "order", number, recipe.images_per_step, len(frames))]
        views, matches = [], []
        for position, (scene, index) in enumerate(chosen):
            rng = context.rng("augmentation", number, position)
            one, two, pairs = make_views(load_colour(context.view, scene, index), recipe, rng)
            views.append((one, two))
            matches.append(pairs)
        return torch.stack([v for pair in zip(*views, strict=True) for v in pair]), matches

    def step(number: int, batch: tuple[Tensor, list[Tensor]]) -> StepResult:
        images, matches = batch
        inputs = network_input(images.to(context.device, non_blocking=True), recipe.normalise, recipe.channel_order)
        half = len(matches)
        with context.autocast():
            features = view_features(network, inputs, recipe, number >= recipe.freeze_encoder_steps).float()
        rows = [gather_pairs(features[i], features[half + i], matches[i].to(context.device)) for i in range(half)]
        loss = pixel_loss(rows, recipe)
        loss.backward()
        # Measured within each pair, whatever negatives the loss uses, so that profiles can be compared.
        each = [embedding_health(unit_rows(q.detach()), unit_rows(k.detach())) for q, k in rows if len(q)]
        health = {name: float(np.mean([h[name] for h in each])) for name in (each[0] if each else ())}
        health["pixels_per_pair"] = float(np.mean([len(m) for m in matches]))
        return StepResult(float(loss.detach()), {"samples": half, "frames": half, "images": 2 * half}, health)

    def save() -> None:
        save_weights(network.state_dict(), context.artifacts / ARTIFACT)
        (context.artifacts / SETTINGS).write_text(recipe.model_dump_json(indent=1))

    return Training({"network": network}, optimiser, schedule, length, make_batch, step, save=save)


def initialise_encoder(context: StageContext, network: nn.Module) -> None:
    """Load the user's ImageNet weights into the encoder, or warn that it is randomly initialised. Raises DataError if the file
    does not match the encoder."""
    path = context.imagenet_weights
    if path is None:
        context.notes["encoder_initialisation"] = "random"
        context.warn("no ImageNet weights were given (--imagenet-weights FILE); the 2D encoder is randomly initialised")
        return
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    loaded, total = load_into(encoder, load_weights(path), (), "ImageNet weights", counters=False)
    context.notes["encoder_initialisation"] = f"imagenet file, {loaded} of {total} tensors"


def make_views(colour: np.ndarray, recipe: OursImages, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two augmented views (3, S, S) in [0, 1] of an image (H, W, 3) uint8, and up to `pixels_per_pair` matches (M, 2)."""
    image = to_tensor(colour)
    height, width = colour.shape[:2]
    crops = [draw_crop(width, height, recipe, rng) for _ in range(2)]
    one, two = (change_colours(apply_crop(image, crop), recipe, rng) for crop in crops)
    matches = match_pixels(crops[0], crops[1], recipe.match_radius_pixels, recipe.match == "nearest")
    chosen = rng.permutation(len(matches))[: recipe.pixels_per_pair]
    return one, two, matches[torch.from_numpy(chosen)]


def view_features(network: nn.Module, inputs: Tensor, recipe: OursImages, train_encoder: bool) -> Tensor:
    """(2N, C, S, S) features of N first views followed by N second views (2N, 3, S, S), in one pass or one per view
    (`norm_over`)."""
    passes = inputs.chunk(2) if recipe.norm_over == "each_view" else (inputs,)
    return torch.cat([network(part, train_encoder=train_encoder) for part in passes])


def gather_pairs(one: Tensor, two: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (M, C) at flat matches (M, 2) of two feature maps (C, S, S)."""
    return one.flatten(1).t()[matches[:, 0]], two.flatten(1).t()[matches[:, 1]]


def pixel_loss(rows: list[tuple[Tensor, Tensor]], recipe: OursImages) -> Tensor:
    """InfoNCE per image pair, then the mean (or sum) over all pairs of the step: a scalar. `rows` are queries and keys (M, C).

    A pair without matches contributes zero but counts in the mean (spec 0.2, item 7). With `negatives: batch`, matched pixels of
    the step's other images are negatives too (J-3).
    """
    normalised = [(unit_rows(q), unit_rows(k)) for q, k in rows if len(q)]
    if not normalised:
        return torch.stack([q.sum() for q, _ in rows]).sum() * 0.0
    if recipe.negatives == "batch":
        losses = grouped_info_nce(normalised, recipe.temperature)
    else:
        losses = [info_nce(q, k, recipe.temperature) for q, k in normalised]
    loss = torch.stack(losses).sum()
    return loss if recipe.reduction == "sum" else loss / len(rows)
