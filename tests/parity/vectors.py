"""Load golden vectors, and compute the weights that they define by formula (see vectors/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "vectors"
CONVOLUTIONS = {
    "conv_k3s1": (3, 1, 1),
    "conv_k5s1": (5, 1, 1),
    "conv_k2s2": (2, 2, 1),
    "conv_k3s2": (3, 2, 1),
    "conv_k3s4": (3, 4, 1),
    "conv_k1s2": (1, 2, 1),
    "conv_k3s1d2": (3, 1, 2),
    "conv_k1s1_bias": (1, 1, 1),
    "conv_k3s1_bias": (3, 1, 1),
}
"""Golden convolutions: kernel size, stride, dilation."""
_MASK = np.uint64(0xFFFFFFFF)


def load(name: str) -> dict[str, NDArray]:
    """Load one archive of this repository."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        return dict(archive)


def case(archive: dict[str, NDArray], name: str) -> dict[str, NDArray]:
    """The arrays `name__*`, keyed without the prefix."""
    return {k.removeprefix(f"{name}__"): v for k, v in archive.items() if k.startswith(f"{name}__")}


def formula(tensor: int, count: int) -> NDArray[np.float64]:
    """(count,) values in (-1, 1) for tensor number `tensor`."""
    i = np.arange(count, dtype=np.uint64)
    h = (np.uint64(2654435761) * i + np.uint64((2246822519 * tensor + 374761393 + 97) % 2**32)) & _MASK
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & _MASK
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(3266489917)) & _MASK
    h = h ^ (h >> np.uint64(16))
    return 2 * ((h.astype(np.float64) + 0.5) / 2**32) - 1


def formula_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict with which the golden vectors of the backbone were computed."""
    weights = {}
    for number, (name, value) in enumerate(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
            continue
        shape = tuple(value.shape)
        r = formula(number, value.numel())
        if name.endswith("kernel"):
            fan = shape[0] if len(shape) == 2 else shape[1] if name.startswith("convtr") else shape[0] * shape[1]
            r = r * np.sqrt(6 / fan)
        elif name == "final.bias" or (name.endswith("bias")):
            r = 0.1 * r
        elif name.endswith("running_mean"):
            r = 0.05 * r
        elif name.endswith("running_var"):
            r = 1 + 0.2 * np.abs(r)
        else:
            r = 1 + 0.1 * r
        weights[name] = torch.from_numpy(r.astype(np.float32).reshape(shape))
    return weights
