"""Features of frames before and after pre-training: the data of `bench features` (Figure 2 of the paper).

`python -m pretrain_bench.methods.features --root ROOT --artifacts DIR --scene NAME --frame N [M ...] --out FOLDER` reads the
stage in ROOT and its artifacts in DIR, and writes FOLDER/N.npz for each frame, with these arrays:

image (H, W, 3) uint8; xyz (N, 3) points of the frame in metres, z up; rgb (N, 3) in 0..255; uv (N, 2) the pixel of each point
points_before, points_after (V, C) features of the voxels; voxel (N,) the voxel of each point
pixels_before, pixels_after (S, S, C) and crop (S, S, 3) uint8, only where pixels and points share a feature space; the
stage's module then defines `pixel_features`. "Before" always means random weights, whatever the stage started from
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from pretrain_bench.benchmarks.datasets.views import Frame, load_frame, upright_points
from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.support.errors import BenchError, DataError
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import HEAD, seeded_backbone
from pretrain_bench.methods.sparse.backend import sparse_backend
from pretrain_bench.methods.sparse.tensor import batched_coordinates
from pretrain_bench.methods.stage import stage_module
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, load_into, load_weights

Arrays = dict[str, np.ndarray]


@torch.no_grad()
def features_of(context: StageContext, artifacts: Path, scene: str, frame: int) -> Arrays:
    """The arrays of one frame, as the module's docstring lists them.

    Raises DataError if the stage trains no network on points, its backbone cannot be read, or a file of the frame is missing or
    damaged.
    """
    loaded = load_frame(context.view, scene, frame)
    arrays = {"image": loaded.colour, **_points(context, artifacts, loaded)}
    pixel_features = getattr(stage_module(context), "pixel_features", None)
    return arrays if pixel_features is None else arrays | pixel_features(context, loaded)


def _points(context: StageContext, artifacts: Path, frame: Frame) -> Arrays:
    spec = context.spec
    voxel = (spec.recipe or {}).get("voxel_metres")
    if not isinstance(voxel, float):
        raise DataError(f"stage {spec.stage!r} of {spec.method!r} trains no network on points")
    points = upright_points(frame)
    voxels = quantise(to_cells(points.xyz, voxel))
    rows = voxels.representative
    inputs = points.rgb[rows] / 255 - 0.5
    if spec.input == "geometry":
        inputs = np.ones_like(inputs)
    trained = load_weights(artifacts / BACKBONE_FILE)
    head = trained.get(f"{HEAD}kernel")
    channels = 1 if head is None else head.shape[1]
    arrays: Arrays = {"xyz": points.xyz, "rgb": points.rgb, "uv": points.uv, "voxel": voxels.inverse}
    for name in ("before", "after"):
        network = seeded_backbone(channels, spec.network, 0.1, spec.sparse_backend, context.seed("weights"))
        if name == "after":
            load_into(network, trained, (HEAD,) if head is None else (), "backbone")
        # Both networks use batch statistics of the frame, since the untrained one has only the initial running statistics.
        network.train()
        coordinates = batched_coordinates([torch.from_numpy(voxels.coordinates)])
        x = sparse_backend(spec.sparse_backend).SparseTensor(torch.from_numpy(inputs.astype(np.float32)), coordinates)
        arrays[f"points_{name}"] = (network.features(x) if head is None else network(x)).F.numpy()
    return arrays


def main(arguments: list[str] | None = None) -> int:
    """Run the command of the module's docstring. Returns exit code 2 and prints the reason if the input is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain_bench.methods.features", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--frame", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        context = StageContext.open(options.root)
        torch.set_num_threads(context.spec.threads)
        for frame in options.frame:
            arrays = features_of(context, options.artifacts, options.scene, frame)
            np.savez_compressed(options.out / f"{frame}.npz", allow_pickle=False, **arrays)
    except (BenchError, IndexError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
