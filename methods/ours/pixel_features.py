"""Pixel features of `ours` for `bench features`: the output of stage 1 for an image (Figure 2 of the paper)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretrain_bench.benchmarks.datasets.views import Frame
from pretrain_bench.methods.context import StageContext, stream_seed
from pretrain_bench.methods.networks.resunet2d import PixelFeatureNet, network_input
from pretrain_bench.methods.ours.augment import to_tensor
from pretrain_bench.methods.ours.images import ARTIFACT, SETTINGS
from pretrain_bench.methods.ours.projection import centre_crop, crop_image
from pretrain_bench.methods.ours.recipe import OursImages, OursPoints
from pretrain_bench.methods.training.checkpoint import load_into, load_weights


def pixel_features(context: StageContext, frame: Frame) -> dict[str, np.ndarray]:
    """`pixels_before` and `pixels_after` (S, S, C) float32 of stage 1, and their image `crop` (S, S, 3) uint8.

    Empty if the output of the 3D network is not in the feature space of the pixels (`head` other than final16).
    """
    recipe = context.recipe(OursPoints)
    if recipe.head != "final16":
        return {}
    parent = context.parent("images")
    settings = OursImages.model_validate_json((parent / SETTINGS).read_bytes())
    height, width = frame.colour.shape[:2]
    crop = centre_crop(width, height, recipe.resize_side, recipe.image_side)
    image = crop_image(to_tensor(frame.colour), crop, recipe.antialias)
    arrays: dict[str, np.ndarray] = {"crop": (image.permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()}
    for name in ("before", "after"):
        torch.manual_seed(stream_seed(context.spec.seed, "ours/images", "weights"))
        network = PixelFeatureNet(settings)
        if name == "after":
            load_into(network, load_weights(parent / ARTIFACT), (), "image network of stage 1")
        network.eval()
        maps: Tensor = network(network_input(image[None], recipe.normalise, recipe.channel_order))
        arrays[f"pixels_{name}"] = maps[0].permute(1, 2, 0).numpy()
    return arrays
