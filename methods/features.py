"""What a backbone says of one frame, before and after its pre-training: the data behind `bench features` (the paper's Figure 2).

`python -m pretrain_bench.methods.features --root ROOT --artifacts DIR --scene NAME --frame N --out FILE`
reads the stage that is laid out in
ROOT and the artifacts it left, and writes arrays:

image (H, W, 3) uint8; xyz (N, 3) points of the frame, world metres; rgb (N, 3) 0..255; uv (N, 2) pixel of each
points_before, points_after (V, C) features of the voxels; voxel (N,) the voxel of each point
pixels_before, pixels_after (S, S, C) and crop (S, S, 3) uint8, only where pixels and points share one space:
`ours` with its features in the last layer itself (J-8). Before: random weights, whatever stage 1 started from
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain_bench.benchmarks.datasets.views import Frame, load_frame
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.specs.method_recipes import OursImages, OursPoints, PointContrast
from pretrain_bench.benchmarks.support.errors import BenchError, DataError
from pretrain_bench.methods.context import StageContext, stream_seed
from pretrain_bench.methods.networks.res16unet import HEAD, seeded_backbone
from pretrain_bench.methods.networks.resunet2d import PixelFeatureNet, network_input
from pretrain_bench.methods.ours.augment import to_tensor
from pretrain_bench.methods.ours.images import ARTIFACT, SETTINGS
from pretrain_bench.methods.ours.projection import centre_crop, crop_image, unproject
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_into, load_weights

Arrays = dict[str, np.ndarray]


@torch.no_grad()
def features_of(context: StageContext, artifacts: Path, scene: str, frame: int) -> Arrays:
    """The arrays of the module's text. Raises DataError for a stage without frames or a backbone."""
    loaded = load_frame(context.view, scene, frame)
    arrays = {"image": loaded.colour, **_points(context, artifacts, loaded)}
    if isinstance(context.spec.recipe, OursPoints) and context.spec.recipe.head == "final16":
        arrays |= _pixels(context, loaded)
    return arrays


def _points(context: StageContext, artifacts: Path, frame: Frame) -> Arrays:
    spec = context.spec
    voxel = getattr(spec.recipe, "voxel_metres", None)
    if voxel is None:
        raise DataError(f"stage {spec.stage!r} of {spec.method!r} trains no network on points")
    points = unproject(frame)
    voxels = quantise(to_cells(points.xyz, voxel))
    rows = voxels.representative
    inputs = points.rgb[rows] / 255 - 0.5
    if isinstance(spec.recipe, PointContrast):
        inputs = np.ones_like(inputs)
    trained = load_weights(artifacts / BACKBONE_FILE)
    head = trained.get(f"{HEAD}kernel")
    channels = 1 if head is None else head.shape[1]
    found: Arrays = {"xyz": points.xyz, "rgb": points.rgb, "uv": points.uv, "voxel": voxels.inverse}
    for name in ("before", "after"):
        network = seeded_backbone(channels, spec.network, 0.1, spec.sparse_backend, context.seed("weights"))
        if name == "after":
            load_into(network, trained, (HEAD,) if head is None else (), "backbone")
        # Statistics of the frame itself, so that the untrained network is normalised like the trained one.
        network.train()
        coordinates = batched_coordinates([torch.from_numpy(voxels.coordinates)])
        x = sparse_backend(spec.sparse_backend).SparseTensor(torch.from_numpy(inputs.astype(np.float32)), coordinates)
        found[f"points_{name}"] = (network.features(x) if head is None else network(x)).F.numpy()
    return found


def _pixels(context: StageContext, frame: Frame) -> Arrays:
    recipe = context.spec.recipe
    assert isinstance(recipe, OursPoints)
    parent = context.parent("images")
    settings = OursImages.model_validate_json((parent / SETTINGS).read_bytes())
    height, width = frame.depth.shape
    crop = centre_crop(width, height, recipe.resize_side, recipe.image_side)
    image = crop_image(to_tensor(frame.colour), crop)
    found: Arrays = {"crop": (image.permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()}
    for name in ("before", "after"):
        torch.manual_seed(stream_seed(context.spec.seed, "ours/images", "weights"))
        network = PixelFeatureNet(settings)
        if name == "after":
            load_into(network, load_weights(parent / ARTIFACT), (), "image network of stage 1")
        network.eval()
        maps: Tensor = network(network_input(image[None], recipe.normalise, recipe.channel_order))
        found[f"pixels_{name}"] = maps[0].permute(1, 2, 0).numpy()
    return found


def main(arguments: list[str] | None = None) -> int:
    """See the module's text. Exit code 2 where the input is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain_bench.methods.features", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--frame", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        context = StageContext.open(options.root)
        torch.set_num_threads(context.spec.threads)
        arrays = features_of(context, options.artifacts, options.scene, options.frame)
    except (BenchError, IndexError) as error:
        print(error, file=sys.stderr)
        return 2
    np.savez_compressed(options.out, allow_pickle=False, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
