"""The reference input of the sparse engine: a procedural room with 50,000 surface voxels of 5 cm."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretrain_bench.benchmarks.input.voxelise import quantise, to_cells
from pretrain_bench.benchmarks.procedural import rooms, sensors

SEED = 20230117


def surface_voxels(count: int, voxel_metres: float = 0.05) -> tuple[Tensor, Tensor]:
    """(count, 4) int32 sorted coordinates and (count, 3) float32 features; several rooms side by side if one is too small."""
    rng = np.random.default_rng(SEED)
    clouds, offset, most = [], 0.0, 0
    while True:
        world = rooms.build_room(rng)
        cloud = sensors.sample_surfaces(world, rng, 4000)
        clouds.append(cloud.xyz @ _turn(0.4) + [offset, 0, 0])
        offset += 12.0
        most += len(quantise(to_cells(clouds[-1], voxel_metres)).coordinates)
        if most < count:  # rooms may overlap, so this is an upper bound
            continue
        voxels = quantise(to_cells(np.concatenate(clouds), voxel_metres)).coordinates
        if len(voxels) >= count:
            break
    chosen = voxels[:count]
    coordinates = np.concatenate([np.zeros((count, 1), np.int32), chosen], axis=1)
    return torch.from_numpy(coordinates), torch.from_numpy(rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32))


def _turn(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
